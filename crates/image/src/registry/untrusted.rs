//! Text that a server or a helper sent.

/// Makes it safe to print: one line of at most 300 characters, without control characters.
#[must_use]
pub fn tame(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}
