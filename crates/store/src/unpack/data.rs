//! Writes the data of files.

use std::fs::File;
use std::io::BufRead;
use std::os::unix::fs::FileExt;

use rustix::io::Errno;

use super::errors::{failed, invalid};
use crate::tar::TarEntry;
use crate::tar::read::TarReader;
use nsrs_base::error::{Error, Result};

/// The number of zeroes in a row that become a hole.
const HOLE: usize = 64 << 10;

/// Writes the data of an entry; long runs of zeroes become holes.
pub(super) fn write<R: BufRead>(file: &File, entry: &TarEntry, reader: &mut TarReader<R>) -> Result<()> {
    let whole = [(0, entry.size)];
    let parts = entry.sparse.as_deref().unwrap_or(&whole);
    let mut hole = entry.sparse.is_some();
    for (offset, length) in parts {
        let (mut offset, end) = (*offset, offset + length);
        while offset < end {
            let data = reader.data()?;
            let most = usize::try_from(end - offset).unwrap_or(usize::MAX).min(data.len());
            if most == 0 {
                return Err(invalid("its data is shorter than its size"));
            }
            hole |= put(file, &data[..most], offset).map_err(|error| failed_io(entry, &error))?;
            reader.consume(most);
            offset += most as u64;
        }
    }
    if hole {
        file.set_len(entry.size).map_err(|error| failed_io(entry, &error))?;
    }
    Ok(())
}

fn failed_io(entry: &TarEntry, error: &std::io::Error) -> Error {
    failed("write the file", entry, error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))
}

/// Writes all but long runs of zeroes, and returns whether there was one.
fn put(file: &File, bytes: &[u8], at: u64) -> std::io::Result<bool> {
    let (mut start, mut hole) = (0, false);
    for (index, piece) in bytes.chunks(HOLE).enumerate() {
        if piece.len() == HOLE && is_zero(piece) {
            let end = index * HOLE;
            file.write_all_at(&bytes[start..end], at + start as u64)?;
            start = end + HOLE;
            hole = true;
        }
    }
    file.write_all_at(&bytes[start..], at + start as u64)?;
    Ok(hole)
}

fn is_zero(bytes: &[u8]) -> bool {
    // Most data is known not to be from its first bytes.
    bytes[..16] == [0; 16] && bytes.chunks(16).all(|part| part.iter().all(|byte| *byte == 0))
}
