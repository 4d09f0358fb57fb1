//! Sizes as people write them: `64m`, `1.5g`, `4096`.

/// Reads a number of bytes with an optional binary suffix (`k`, `m`, `g`, `t`, also `kb`, `KiB`), as docker does.
///
/// # Errors
/// The text is no such number, or it is zero, or too large.
pub fn parse(text: &str) -> Result<u64, &'static str> {
    let lower = text.to_ascii_lowercase();
    let digits_end = lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len());
    let (digits, suffix) = lower.split_at(digits_end);
    let shift = match suffix {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err("give a size such as 64m or 1g"),
    };
    match digits.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift)) {
        Some(0) => Err("a size of zero would mean no limit at all"),
        Some(bytes) if i64::try_from(bytes).is_ok() => Ok(bytes),
        _ if digits.is_empty() => Err("give a size such as 64m or 1g"),
        _ => Err("the size is too large"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_are_binary() {
        for (text, bytes) in [("4096", 4096), ("64m", 64 << 20), ("1G", 1 << 30), ("2KiB", 2048), ("7b", 7)] {
            assert_eq!(parse(text).unwrap(), bytes);
        }
    }

    #[test]
    fn what_is_no_size_is_an_error() {
        for text in ["", "m", "-1", "1x", "0", "0x10", "99999999999999999999", "9000000t"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
