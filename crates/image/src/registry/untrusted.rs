//! Text that a server or a helper sent.

use nsrs_base::text::printable;

/// Makes it one line of at most 300 characters, safe to print.
#[must_use]
pub fn tame(text: &str) -> String {
    let line: String = text.chars().take(300).collect();
    printable(&line.split_whitespace().collect::<Vec<_>>().join(" ")).into_owned()
}
