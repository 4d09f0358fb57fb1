//! Which parts of a sparse file an archive holds.

use std::io::{self, BufRead};

use super::blocks::BlockReader;
use super::error::{malformed, read_error};
use super::header::{Header, gnu_sparse_more};
use super::{BLOCK, pax};
use nsrs_base::error::{Error, Result};

/// Offset and length of each part that is in the archive.
pub(super) type Parts = Vec<(u64, u64)>;

/// How many parts a sparse file may have.
const MAX_PARTS: u64 = 1 << 20;

fn malformed_map() -> Error {
    malformed("malformed map of a sparse file")
}

fn too_many_parts() -> Error {
    malformed("a sparse file has too many parts")
}

/// Reads the map of a sparse file in GNU's own form: in the header, and in blocks behind it. Returns the size of the file, too.
pub(super) fn read_gnu_map<R: BufRead>(reader: &mut BlockReader<R>, header: &Header) -> Result<(u64, Parts)> {
    let (size, mut parts, mut more) = header.gnu_sparse()?;
    while more {
        let block = reader.block()?.ok_or_else(|| read_error(io::ErrorKind::UnexpectedEof.into()))?;
        let (others, is_continued) = gnu_sparse_more(&block)?;
        parts.extend(others);
        if parts.len() as u64 > MAX_PARTS {
            return Err(too_many_parts());
        }
        more = is_continued;
    }
    Ok((size, parts))
}

/// Reads the map of a sparse file in PAX form 1.0: decimal lines at the beginning of its data, filled to whole blocks.
pub(super) fn read_pax_map<R: BufRead>(reader: &mut BlockReader<R>) -> Result<Parts> {
    let mut used = 0_u64;
    let mut line = |reader: &mut BlockReader<R>| -> Result<u64> {
        let mut digits = Vec::new();
        loop {
            let byte = *reader.data()?.first().ok_or_else(malformed_map)?;
            reader.consume(1);
            used += 1;
            match byte {
                b'\n' => break,
                _ if digits.len() > 20 => return Err(malformed_map()),
                digit => digits.push(digit),
            }
        }
        pax::decimal(&digits).ok_or_else(malformed_map)
    };
    let count = line(reader)?;
    if count > MAX_PARTS {
        return Err(too_many_parts());
    }
    let mut parts = Vec::new();
    for _ in 0..count {
        let offset = line(reader)?;
        parts.push((offset, line(reader)?));
    }
    let mut padding = used.next_multiple_of(BLOCK) - used;
    while padding > 0 {
        let count = reader.data()?.len().min(usize::try_from(padding).unwrap_or(usize::MAX));
        if count == 0 {
            return Err(malformed_map());
        }
        reader.consume(count);
        padding -= count as u64;
    }
    Ok(parts)
}

/// Checks that the parts of a sparse file are in order, inside it, and together as long as what is stored.
pub(super) fn check(parts: &[(u64, u64)], size: u64, stored: u64) -> std::result::Result<(), &'static str> {
    if i64::try_from(size).is_err() {
        return Err("a sparse file is larger than a file can be");
    }
    let (mut end, mut sum) = (0_u64, 0_u64);
    for (offset, length) in parts {
        if *offset < end {
            return Err("the parts of a sparse file overlap");
        }
        end =
            offset.checked_add(*length).filter(|end| *end <= size).ok_or("a part of a sparse file is outside of it")?;
        sum += length;
    }
    match sum == stored {
        true => Ok(()),
        false => Err("the parts of a sparse file aren't as long as its data"),
    }
}
