//! Events as lines of text, for people.

/// The last line of a pull or push.
pub fn closing(reference: &str, digest: &str, milliseconds: u64, present: bool) -> String {
    let time = match milliseconds {
        ..1000 => format!("{milliseconds} ms"),
        _ => format!("{:.1} s", milliseconds as f64 / 1000.0),
    };
    format!("{reference}: {digest} {}in {time}", if present { "already exists; checked " } else { "" })
}

/// The first twelve digits of a digest.
pub fn short(digest: &str) -> &str {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    hex.get(..12).unwrap_or(hex)
}

/// A number of bytes: `312 B`, `1.2 kB`, `45.1 MB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A request that is repeated after so many milliseconds.
pub fn retry(message: &str, wait: u64) -> String {
    format!("{message}; retrying in {:.1} s", wait as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in
            [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (45_123_456, "45.1 MB"), (999_950, "1.0 MB")]
        {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn the_last_line_says_how_long_it_took() {
        assert_eq!(closing("box", "sha256:a", 2345, false), "box: sha256:a in 2.3 s");
        assert_eq!(closing("box", "sha256:a", 14, true), "box: sha256:a already exists; checked in 14 ms");
    }
}
