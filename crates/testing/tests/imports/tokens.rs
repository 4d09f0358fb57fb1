//! The words of a Rust source, without comments and literals.

/// Identifiers, `::`, and every other character of the punctuation by itself.
pub fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            _ if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            _ if rest.starts_with("/*") => comment(rest),
            '"' => string(rest),
            '\'' => quote(rest),
            _ if rest.starts_with("::") => {
                tokens.push(&rest[..2]);
                2
            }
            _ if is_word(first) => word(rest, &mut tokens),
            _ => {
                if !first.is_whitespace() {
                    tokens.push(&rest[..first.len_utf8()]);
                }
                first.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    tokens
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// The length of a block comment, which may hold others.
fn comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of a string in double quotes with escapes.
fn string(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(text.len())
}

/// The length of a raw string from its `#` or quote on.
fn raw_string(text: &str) -> usize {
    let hashes = text.len() - text.trim_start_matches('#').len();
    let end = format!("\"{}", "#".repeat(hashes));
    text[hashes + 1..].find(&end).map_or(text.len(), |found| hashes + 1 + found + end.len())
}

/// The length of a character literal, or of the quote of a lifetime.
fn quote(text: &str) -> usize {
    let mut characters = text.char_indices().skip(1);
    match (characters.next(), characters.next()) {
        (Some((_, '\\')), Some((at, escaped))) => {
            let from = at + escaped.len_utf8();
            text[from..].find('\'').map_or(text.len(), |found| from + found + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

/// The length of an identifier, a number, or a literal that begins with letters; pushes what is an identifier.
fn word<'a>(text: &'a str, tokens: &mut Vec<&'a str>) -> usize {
    let length = text.find(|character| !is_word(character)).unwrap_or(text.len());
    let (word, after) = text.split_at(length);
    match word {
        "r" | "br" | "cr" if after.trim_start_matches('#').starts_with('"') => length + raw_string(after),
        "b" | "c" if after.starts_with('"') => length + string(after),
        // A raw identifier.
        "r" if after.starts_with('#') => length + 1,
        _ => {
            tokens.push(word);
            length
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_without_comments_and_literals() {
        for (text, expected) in [
            ("use a::b; // c::d", "use a :: b ;"),
            ("/* a /* b */ c */ d /// e\nf", "d f"),
            (r##"x("a::b\"c") y"##, "x ( ) y"),
            (r###"let a = r#"crate::x" "# ; br"\" b"""###, "let a = ; "),
            ("'a' '\\'' '\\u{1F600}' 'ä' b'\"' x", "b x"),
            ("fn a<'b>(c: &'b d::E)", "fn a < b > ( c : & b d :: E )"),
            ("r#type::x 1_000u64 a->b", "type :: x 1_000u64 a - > b"),
            ("c\"x\" \"unclosed", ""),
        ] {
            assert_eq!(tokens(text).join(" "), expected.trim(), "{text}");
        }
    }
}
