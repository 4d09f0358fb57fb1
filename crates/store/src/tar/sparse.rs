//! Which parts of a sparse file an archive holds.

use std::io::{self, BufRead};

use tar::Header;

use super::blocks::BlockReader;
use super::error::{malformed, read_error};
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

/// Reads the map of a sparse file in GNU's own form: in the header, and in blocks behind it.
pub(super) fn read_gnu_map<R: BufRead>(reader: &mut BlockReader<R>, header: &Header) -> Result<Parts> {
    let gnu = header.as_gnu().ok_or_else(|| malformed("a sparse file without a GNU header"))?;
    let mut parts = Vec::new();
    let push = |parts: &mut Parts, block: &tar::GnuSparseHeader| match (block.offset(), block.length()) {
        _ if block.is_empty() => Ok(()),
        (Ok(offset), Ok(length)) => {
            parts.push((offset, length));
            Ok(())
        }
        _ => Err(malformed_map()),
    };
    for block in &gnu.sparse {
        push(&mut parts, block)?;
    }
    let mut more = gnu.is_extended();
    while more {
        let block = reader.block()?.ok_or_else(|| read_error(io::ErrorKind::UnexpectedEof.into()))?;
        let mut extension = tar::GnuExtSparseHeader::new();
        extension.as_mut_bytes().copy_from_slice(&block);
        for block in extension.sparse() {
            push(&mut parts, block)?;
        }
        if parts.len() as u64 > MAX_PARTS {
            return Err(too_many_parts());
        }
        more = extension.is_extended();
    }
    Ok(parts)
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
