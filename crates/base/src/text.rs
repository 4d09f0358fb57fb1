//! Others' text on a terminal: what could steer the terminal, or deceive who reads, is written out instead of done.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether this is a control character, or one that reorders text or breaks lines.
#[must_use]
pub fn is_steering(c: char) -> bool {
    let reorders = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || reorders
}

/// Whether this takes no space, so that names which differ in it alone look the same. Text has good uses for some of them:
/// they join the parts of an emoji, and part the letters of Persian.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{2065}' | '\u{206a}'..='\u{206f}' | '\u{feff}')
}

/// A text that is safe to print in a line: steering characters become visible escapes (`\x1b`, `\n`, `\u202e`), as the command
/// line writes them too (cli/escape.ts). Backslashes stay, so a part that was escaped before is not escaped twice.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_steering) {
        return text.into();
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        let _ = match c {
            '\n' => write!(safe, "\\n"),
            '\r' => write!(safe, "\\r"),
            '\t' => write!(safe, "\\t"),
            // All of them are of the Basic Multilingual Plane.
            _ if is_steering(c) && u32::from(c) > 0xff => write!(safe, "\\u{:04x}", u32::from(c)),
            _ if is_steering(c) => write!(safe, "\\x{:02x}", u32::from(c)),
            _ => write!(safe, "{c}"),
        };
    }
    safe.into()
}

/// A name that is safe to print and can be told from every other: steering and invisible characters, bytes that aren't UTF-8,
/// and backslashes become `\xNN`. Names are recorded in this form, too (changes.json): which characters it concerns is a part of
/// that format.
#[must_use]
pub fn escaped(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '\\' || is_steering(c) || is_invisible(c) {
                push_hex(&mut text, c.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                text.push(c);
            }
        }
        push_hex(&mut text, chunk.invalid());
    }
    text
}

/// A JSON text, of which nothing steers a terminal or is unseen: such characters can only be within strings, where they become
/// `\uNNNN`.
#[must_use]
pub fn printable_json(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        // Between tokens: what JSON is indented by.
        if (is_steering(c) || is_invisible(c)) && c != '\n' {
            // All of them are of the Basic Multilingual Plane.
            let _ = write!(safe, "\\u{:04x}", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    safe
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(text, "\\x{byte:02x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the command line is held to as well (test/cli/escape.test.ts).
    #[derive(serde::Deserialize)]
    struct Expected {
        /// The first and the last character of each range.
        escaped: Vec<(u32, u32)>,
        texts: Vec<(String, String)>,
    }

    #[test]
    fn what_steers_a_terminal_is_seen() {
        let expected: Expected = serde_json::from_str(include_str!("../../../test/helpers/escapes.json")).unwrap();
        for (text, seen) in &expected.texts {
            assert_eq!(printable(text), seen.as_str());
        }
        for c in '\0'..=char::MAX {
            let is_escaped = expected.escaped.iter().any(|(first, last)| (*first..=*last).contains(&u32::from(c)));
            assert_eq!(is_steering(c), is_escaped, "{c:?}");
        }
    }

    #[test]
    fn names_can_be_told_from_each_other() {
        let names: [&[u8]; 5] = [b"a\x1b", br"a\x1b", b"a\xff", "a\u{202e}".as_bytes(), "a\u{feff}".as_bytes()];
        assert_eq!(names.map(escaped), [r"a\x1b", r"a\x5cx1b", r"a\xff", r"a\xe2\x80\xae", r"a\xef\xbb\xbf"]);
    }

    #[test]
    fn json_stays_json() {
        let value = "\u{1b}\u{9b}\u{202e}\n\"\\";
        let json = serde_json::to_string_pretty(&[value]).unwrap();
        let safe = printable_json(&json);
        assert!(!safe.contains(|c| is_steering(c) && c != '\n'), "{safe}");
        assert_eq!(serde_json::from_str::<[String; 1]>(&safe).unwrap(), [value]);
    }
}
