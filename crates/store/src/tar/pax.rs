//! Extended headers of PAX archives (pax(1), POSIX.1-2001): `LENGTH KEY=VALUE\n`, where the length counts all of it.

use nsrs_base::error::{Code, Error, Result};

/// Reads the records of an extended header. A value may hold any byte.
///
/// # Errors
/// A record whose length isn't that of a record.
pub fn records(mut bytes: &[u8]) -> Result<Vec<(&[u8], &[u8])>> {
    let mut found = Vec::new();
    // Some writers fill the block with zeroes and count them.
    while bytes.first().is_some_and(|byte| *byte != 0) {
        let record = record(bytes)
            .ok_or_else(|| Error::new(Code::ImageInvalid, "read the archive", "a PAX header has a malformed record"))?;
        found.push((record.1, record.2));
        bytes = &bytes[record.0..];
    }
    Ok(found)
}

fn record(bytes: &[u8]) -> Option<(usize, &[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let length: usize = decimal(&bytes[..space]).and_then(|length| usize::try_from(length).ok())?;
    if length <= space + 1 || length > bytes.len() || bytes[length - 1] != b'\n' {
        return None;
    }
    let body = &bytes[space + 1..length - 1];
    let equals = body.iter().position(|byte| *byte == b'=')?;
    (equals > 0).then(|| (length, &body[..equals], &body[equals + 1..]))
}

/// A number of digits only.
#[must_use]
pub fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A time: seconds, maybe negative, maybe with a fraction. Rounded down to nanoseconds.
#[must_use]
pub fn time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let negative = whole.starts_with('-');
    let digits = whole.strip_prefix('-').unwrap_or(whole);
    let seconds = i64::try_from(decimal(digits.as_bytes())?).ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanos: u32 = format!("{fraction:0<9.9}").parse().ok()?;
    Some(match (negative, nanos) {
        (false, nanos) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, nanos) => (-seconds - 1, 1_000_000_000 - nanos),
    })
}

/// Appends a record, `LENGTH KEY=VALUE\n`.
pub fn push(to: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    to.extend_from_slice(length.to_string().as_bytes());
    to.push(b' ');
    to.extend_from_slice(key);
    to.push(b'=');
    to.extend_from_slice(value);
    to.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_they_were_written() {
        for length in [0, 1, 80, 90, 91, 92, 93, 94, 980, 990, 991, 992, 9990] {
            let value: Vec<u8> = (0..length).map(|index| (index % 7) as u8 + 8).collect();
            let mut bytes = Vec::new();
            push(&mut bytes, b"SCHILY.xattr.user.x", &value);
            push(&mut bytes, b"path", b"a=b\nc");
            let records = records(&bytes).unwrap();
            assert_eq!(records, [(&b"SCHILY.xattr.user.x"[..], &value[..]), (b"path", b"a=b\nc")]);
        }
    }

    #[test]
    fn malformed_records_are_refused() {
        for text in
            ["6 a=b", "5 a=b\n", "7 a=b\n", "99 a=b\n", "a=b\n", "-6 a=b\n", "4 ab\n", "5 =b\n", "2 \n", "6 a=b\nx"]
        {
            assert!(records(text.as_bytes()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn times_have_fractions_and_signs() {
        assert_eq!(time(b"12.5"), Some((12, 500_000_000)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"7"), Some((7, 0)));
        assert_eq!(time(b"1.1234567899"), Some((1, 123_456_789)));
        assert!(time(b"1e5").is_none() && time(b"").is_none() && time(b"1.x").is_none());
    }
}
