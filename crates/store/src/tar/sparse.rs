//! Which parts of a sparse file an archive holds.

use std::io::{self, BufRead};

use tar::Header;

use super::read::{Reader, bad, read_error};
use super::{BLOCK, pax};
use nsrs_base::error::Result;

/// How many parts a sparse file may have.
const MOST_PARTS: u64 = 1 << 20;

impl<R: BufRead> Reader<R> {
    /// The map of a sparse file in GNU's own form: in the header, and in blocks behind it.
    pub(super) fn sparse_gnu(&mut self, header: &Header) -> Result<Vec<(u64, u64)>> {
        let gnu = header.as_gnu().ok_or_else(|| bad("a sparse file without a GNU header"))?;
        let mut parts = Vec::new();
        let push = |parts: &mut Vec<(u64, u64)>, block: &tar::GnuSparseHeader| match (block.offset(), block.length()) {
            _ if block.is_empty() => Ok(()),
            (Ok(offset), Ok(length)) => {
                parts.push((offset, length));
                Ok(())
            }
            _ => Err(bad("a malformed sparse file")),
        };
        for block in &gnu.sparse {
            push(&mut parts, block)?;
        }
        let mut more = gnu.is_extended();
        while more {
            let block = self.block()?.ok_or_else(|| read_error(io::ErrorKind::UnexpectedEof.into()))?;
            let mut extension = tar::GnuExtSparseHeader::new();
            extension.as_mut_bytes().copy_from_slice(&block);
            for block in extension.sparse() {
                push(&mut parts, block)?;
            }
            if parts.len() as u64 > MOST_PARTS {
                return Err(bad("a sparse file has too many parts"));
            }
            more = extension.is_extended();
        }
        Ok(parts)
    }

    /// The map of a sparse file in PAX form 1.0: decimal lines at the beginning of its data, filled to whole blocks.
    pub(super) fn sparse_data(&mut self) -> Result<Vec<(u64, u64)>> {
        let mut used = 0_u64;
        let mut line = |reader: &mut Self| -> Result<u64> {
            let mut digits = Vec::new();
            loop {
                let byte = *reader.data()?.first().ok_or_else(|| bad("a malformed sparse file"))?;
                reader.consume(1);
                used += 1;
                match byte {
                    b'\n' => break,
                    _ if digits.len() > 20 => return Err(bad("a malformed sparse file")),
                    digit => digits.push(digit),
                }
            }
            pax::decimal(&digits).ok_or_else(|| bad("a malformed sparse file"))
        };
        let count = line(self)?;
        if count > MOST_PARTS {
            return Err(bad("a sparse file has too many parts"));
        }
        let mut parts = Vec::new();
        for _ in 0..count {
            let offset = line(self)?;
            parts.push((offset, line(self)?));
        }
        let mut fill = used.next_multiple_of(BLOCK) - used;
        while fill > 0 {
            let part = self.data()?.len().min(usize::try_from(fill).unwrap_or(usize::MAX));
            if part == 0 {
                return Err(bad("a malformed sparse file"));
            }
            self.consume(part);
            fill -= part as u64;
        }
        Ok(parts)
    }
}

/// The parts of a sparse file must be in order, inside it, and as long together as what is stored.
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
