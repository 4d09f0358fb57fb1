//! The input of an archive: headers of one block each, and data that fill whole blocks.

use std::io::{self, BufRead};

use super::BLOCK;
use super::error::{malformed, read_error};
use nsrs_base::error::Result;

#[derive(Debug)]
pub(super) struct BlockReader<R> {
    input: R,
    /// Bytes of the current entry's data that are still to come.
    left: u64,
    /// Bytes that fill its last block.
    padding: u64,
    /// The end marker or the end of the input was read: there are no more entries.
    pub ended: bool,
}

impl<R: BufRead> BlockReader<R> {
    pub fn new(input: R) -> BlockReader<R> {
        BlockReader { input, left: 0, padding: 0, ended: false }
    }

    pub fn into_inner(self) -> R {
        self.input
    }

    /// Bytes of the current entry's data that are still to come.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Begins the data of an entry.
    pub fn begin_data(&mut self, size: u64) -> Result<()> {
        if i64::try_from(size).is_err() {
            return Err(malformed("an entry is larger than a file can be"));
        }
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK) - size;
        Ok(())
    }

    /// The next part of the current entry's data; empty at its end.
    pub fn data(&mut self) -> Result<&[u8]> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let bytes = fill(&mut self.input)?;
        if bytes.is_empty() {
            return Err(read_error(io::ErrorKind::UnexpectedEof.into()));
        }
        let available = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        Ok(&bytes[..available])
    }

    /// Marks bytes of [`BlockReader::data`] as used.
    pub fn consume(&mut self, count: usize) {
        self.left -= count as u64;
        self.input.consume(count);
    }

    /// Reads the rest of the current entry's data into memory, if there are no more than `max` bytes.
    pub fn read_data(&mut self, max: u64) -> Result<Vec<u8>> {
        if self.left > max {
            return Err(malformed(format!("an entry of {} bytes where at most {max} are allowed", self.left)));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(self.left).unwrap_or(0));
        loop {
            let part = self.data()?;
            if part.is_empty() {
                return Ok(bytes);
            }
            let count = part.len();
            bytes.extend_from_slice(part);
            self.consume(count);
        }
    }

    /// Goes to the end of the current entry's last block. That block may be incomplete behind the data if the input ends
    /// there: some programs don't fill it, and neither GNU tar nor docker's reader minds.
    pub fn skip_data(&mut self) -> Result<()> {
        loop {
            let count = match self.data() {
                Ok([]) => break,
                Ok(part) => part.len(),
                Err(error) => {
                    self.ended = true;
                    return Err(error);
                }
            };
            self.consume(count);
        }
        while self.padding > 0 {
            let available = fill(&mut self.input)?.len();
            if available == 0 {
                self.ended = true;
                return Ok(());
            }
            let count = usize::try_from(self.padding).unwrap_or(usize::MAX).min(available);
            self.input.consume(count);
            self.padding -= count as u64;
        }
        Ok(())
    }

    /// The next block; `None` at the end of the input.
    pub fn block(&mut self) -> Result<Option<[u8; BLOCK as usize]>> {
        let mut block = [0; BLOCK as usize];
        let mut have = 0;
        while have < block.len() {
            let bytes = fill(&mut self.input)?;
            if bytes.is_empty() {
                return match have {
                    0 => Ok(None),
                    _ => Err(read_error(io::ErrorKind::UnexpectedEof.into())),
                };
            }
            let count = bytes.len().min(block.len() - have);
            block[have..have + count].copy_from_slice(&bytes[..count]);
            self.input.consume(count);
            have += count;
        }
        Ok(Some(block))
    }
}

/// Fills the buffer, again after a signal.
fn fill<R: BufRead>(input: &mut R) -> Result<&[u8]> {
    loop {
        match input.fill_buf() {
            // Asked twice: the borrow of the first can't be returned from a loop.
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(read_error(error)),
        }
    }
    input.fill_buf().map_err(read_error)
}
