//! Results on standard output, and text on standard error.

use std::io::Write;

use nsrs_base::error::{At, Result};
use nsrs_base::text::{printable, printable_json};
use rustix::process::Signal;
use serde_json::Value;

/// Writes a line to standard output, safe to print. If the reader is gone, ends the program ([`end_without_reader`]).
///
/// # Errors
/// Standard output can't be written.
pub fn line(text: &str) -> Result<()> {
    write(&printable(text))
}

fn write(text: &str) -> Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => end_without_reader(),
        other => other.at("write the result", ""),
    }
}

/// Prints text to standard error. Failing to do so is not an error.
pub fn print_error(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Ends the program as SIGPIPE would, for a reader that has read enough (`nsrs images | head`).
pub fn end_without_reader() -> ! {
    std::process::exit(128 + Signal::PIPE.as_raw())
}

/// Writes indented JSON to standard output.
///
/// # Errors
/// Those of [`line`].
pub fn json(value: &Value) -> Result<()> {
    write(&printable_json(&serde_json::to_string_pretty(value).unwrap_or_default()))
}

/// Writes a table with a line of titles to standard output. Columns are as wide as their widest cell.
///
/// # Errors
/// Those of [`line`].
pub fn table(titles: &[&str], rows: &[Vec<String>]) -> Result<()> {
    let safe = |row: &Vec<String>| row.iter().map(|cell| printable(cell).into_owned()).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(safe).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([titles[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..titles.len()).map(width).collect();
    let titles: Vec<String> = titles.iter().map(|title| (*title).to_owned()).collect();
    for row in std::iter::once(&titles).chain(&rows) {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        line(cells.join("   ").trim_end())?;
    }
    Ok(())
}

/// A number of bytes as people read it: `1.5 MB`, in powers of ten as docker does.
#[must_use]
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 999.5 {
            return match unit {
                "B" => format!("{bytes} B"),
                _ if value < 9.995 => format!("{value:.2} {unit}"),
                _ if value < 99.95 => format!("{value:.1} {unit}"),
                _ => format!("{value:.0} {unit}"),
            };
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

/// How long ago a time was: `3 days ago`.
#[must_use]
pub fn ago(seconds: i64) -> String {
    let since = nsrs_store::time::now() - seconds;
    let of = |count: i64, unit: &str| format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" });
    match since {
        ..0 => "in the future".to_owned(),
        0..60 => of(since, "second"),
        60..3600 => of(since / 60, "minute"),
        3600..172_800 => of(since / 3600, "hour"),
        172_800..1_209_600 => of(since / 86_400, "day"),
        1_209_600..5_184_000 => of(since / 604_800, "week"),
        5_184_000..63_072_000 => of(since / 2_592_000, "month"),
        _ => of(since / 31_536_000, "year"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, text) in
            [(0, "0 B"), (999, "999 B"), (1_500, "1.50 kB"), (12_345_678, "12.3 MB"), (999_600_000, "1.00 GB")]
        {
            assert_eq!(size(bytes), text);
        }
    }
}
