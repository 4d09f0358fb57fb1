//! Two columns of text: a label, and what there is to say about it, wrapped.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use nsrs_base::text::{is_steering, printable};

/// Where the second column begins.
const INDENT: usize = 14;
/// Where a line ends, unless one word alone is longer.
const WIDTH: usize = 96;

/// Writes rows of two columns.
pub struct Sheet<'a, 'f> {
    out: &'a mut fmt::Formatter<'f>,
}

impl<'a, 'f> Sheet<'a, 'f> {
    /// A sheet without rows, which writes to `out`.
    pub fn new(out: &'a mut fmt::Formatter<'f>) -> Sheet<'a, 'f> {
        Sheet { out }
    }

    /// An empty line between two groups of rows.
    pub fn gap(&mut self) -> fmt::Result {
        self.out.write_char('\n')
    }

    /// A row of prose, which may break at every space.
    pub fn prose(&mut self, label: &str, text: &str) -> fmt::Result {
        self.wrapped(label, text.split(' '), "", "")
    }

    /// A row of a list, which never breaks within an item.
    pub fn list<S: AsRef<str>>(&mut self, label: &str, items: impl IntoIterator<Item = S>) -> fmt::Result {
        self.wrapped(label, items, ",", "")
    }

    /// A row of words that a shell would read as one command, over however many lines.
    pub fn shell<S: AsRef<str>>(&mut self, label: &str, words: impl IntoIterator<Item = S>) -> fmt::Result {
        self.wrapped(label, words, "", " \\")
    }

    /// Items with a blank between them; `join` follows each but the last, `end` each broken line.
    fn wrapped<S: AsRef<str>>(
        &mut self,
        label: &str,
        items: impl IntoIterator<Item = S>,
        join: &str,
        end: &str,
    ) -> fmt::Result {
        // A label that fills its column still has a blank behind it.
        write!(self.out, "{label:<width$} ", width = INDENT - 1)?;
        let mut column = INDENT;
        let mut items = items.into_iter().peekable();
        let mut first = true;
        while let Some(item) = items.next() {
            let join = if items.peek().is_some() { join } else { "" };
            let item = printable(item.as_ref());
            let length = item.chars().count() + join.len();
            if !first && column + 1 + length + end.len() > WIDTH {
                write!(self.out, "{end}\n{:INDENT$}", "")?;
                column = INDENT;
            } else if !first {
                self.out.write_char(' ')?;
                column += 1;
            }
            write!(self.out, "{item}{join}")?;
            column += length;
            first = false;
        }
        self.out.write_char('\n')
    }
}

/// A word as a shell reads it. What steers a terminal is escaped (`$'…'` of POSIX 2024): a name must not be able to move the
/// cursor of the terminal that shows it.
pub fn quoted(word: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_alphanumeric() || "%+,-./:=@_^".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into();
    }
    if !word.contains(is_steering) {
        return format!("'{}'", word.replace('\'', r"'\''")).into();
    }
    let mut text = String::from("$'");
    for c in word.chars() {
        match c {
            '\n' => text += r"\n",
            '\t' => text += r"\t",
            '\r' => text += r"\r",
            '\'' | '\\' => text.extend(['\\', c]),
            // In octal, byte by byte: three digits end by themselves, whatever follows.
            _ if is_steering(c) => c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| text += &format!("\\{byte:03o}")),
            _ => text.push(c),
        }
    }
    (text + "'").into()
}

/// `1 path`, `2 paths`.
pub fn count(number: usize, one: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {one}{plural}")
}

/// Bytes in the largest binary unit that divides them.
pub fn size(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.into_iter().find(|(shift, _)| bytes > 0 && bytes.trailing_zeros() >= *shift) {
        Some((shift, unit)) => format!("{} {unit}", bytes >> shift),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_only_where_a_shell_needs_it() {
        for (word, text) in [
            ("a-b_c/1.2=x", "a-b_c/1.2=x"),
            ("", "''"),
            ("two words", "'two words'"),
            ("$HOME", "'$HOME'"),
            ("~", "'~'"),
            ("it's", r"'it'\''s'"),
            ("a\nb'\\", r"$'a\nb\'\\'"),
            ("\u{1b}[2J", r"$'\033[2J'"),
            ("\u{9b}1", r"$'\302\2331'"),
            ("größe", "größe"),
            ("a\u{202e}b", r"$'a\342\200\256b'"),
        ] {
            assert_eq!(quoted(word), text);
        }
    }

    #[test]
    fn sizes_are_exact() {
        for (bytes, text) in [(0, "0 bytes"), (1000, "1000 bytes"), (64 << 20, "64 MiB"), (1536, "1536 bytes")] {
            assert_eq!(size(bytes), text);
        }
    }
}
