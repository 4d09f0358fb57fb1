//! The entries of an archive, one after the other, from a stream: old, ustar, GNU and PAX, with long names, extended
//! attributes and sparse files of all these forms.
//!
//! Where readers of archives are known to differ (sizes of entries without data, of PAX headers), this one does as Go's
//! does, which docker and containerd use: what they see in an image is what is unpacked here.

use std::io::{self, BufRead};

use tar::{EntryType, Header};

use super::extended::{Extended, text};
use super::{BLOCK, Entry, Kind, sparse};
use nsrs_base::error::show;
use nsrs_base::error::{Code, Error, Result};

/// The largest extended header or long name that is read into memory, in bytes.
const MOST_EXTENDED: u64 = 1 << 20;

/// Reads an archive.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    /// Bytes of the current entry's data that are still to come.
    left: u64,
    /// Bytes that fill its last block.
    padding: u64,
    ended: bool,
}

pub(super) fn bad(why: impl Into<String>) -> Error {
    Error::new(Code::ImageInvalid, "read the archive", why)
}

/// The error record for a failed read: one that was carried through [`io::Error::other`], or a new one.
pub fn read_error(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => match error.kind() {
            io::ErrorKind::UnexpectedEof => bad("it's cut short"),
            _ if error.raw_os_error().is_some() => Error::os("read the archive", "", &error),
            _ => bad(error.to_string()),
        },
    }
}

impl<R: BufRead> Reader<R> {
    /// Reads from here.
    pub fn new(input: R) -> Reader<R> {
        Reader { input, left: 0, padding: 0, ended: false }
    }

    /// What is behind the archive.
    pub fn into_inner(self) -> R {
        self.input
    }

    /// The next entry; what is left of the data of the one before is skipped. `None` at the end marker or the end of the
    /// input.
    ///
    /// # Errors
    /// The archive is cut short or malformed.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        let mut extended = Extended::default();
        let mut any = false;
        loop {
            let Some(header) = self.header()? else {
                return match any {
                    true => Err(bad("it ends behind an extended header")),
                    false => Ok(None),
                };
            };
            let size = header.entry_size().map_err(|_| bad("the size of an entry is no number"))?;
            match header.entry_type() {
                EntryType::XHeader => {
                    let bytes = self.extended(size)?;
                    extended.read(&bytes)?;
                    any = true;
                }
                // Of all entries that follow; what git and others write there concerns nobody.
                EntryType::XGlobalHeader => drop(self.extended(size)?),
                EntryType::GNULongName => {
                    extended.path = Some(text(self.extended(size)?));
                    any = true;
                }
                EntryType::GNULongLink => {
                    extended.link = Some(text(self.extended(size)?));
                    any = true;
                }
                // A volume label has no data.
                other if other.as_byte() == b'V' => {}
                _ => return self.entry(&header, size, extended).map(Some),
            }
        }
    }

    /// The next part of the current entry's data as it is in the archive (of a sparse file the stored parts, one after the
    /// other); empty at its end. What was used of it is told by [`Reader::consume`].
    ///
    /// # Errors
    /// The archive is cut short.
    pub fn data(&mut self) -> Result<&[u8]> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let bytes = fill(&mut self.input)?;
        if bytes.is_empty() {
            return Err(read_error(io::ErrorKind::UnexpectedEof.into()));
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        Ok(&bytes[..most])
    }

    /// So many bytes of [`Reader::data`] were used.
    pub fn consume(&mut self, count: usize) {
        self.left -= count as u64;
        self.input.consume(count);
    }

    /// Reads the current entry's data into memory, if it's at most so long.
    ///
    /// # Errors
    /// It's longer; the archive is cut short.
    pub fn bytes(&mut self, most: u64) -> Result<Vec<u8>> {
        if self.left > most {
            return Err(bad(format!("an entry of {} bytes is longer than the {most} it may have", self.left)));
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

    /// To the end of the current entry's last block. Where the input ends, that block may be cut short behind the data:
    /// some programs don't fill it, and GNU's tar and docker's reader don't mind.
    fn skip(&mut self) -> Result<()> {
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
            let there = fill(&mut self.input)?.len();
            if there == 0 {
                self.ended = true;
                return Ok(());
            }
            let count = usize::try_from(self.padding).unwrap_or(usize::MAX).min(there);
            self.input.consume(count);
            self.padding -= count as u64;
        }
        Ok(())
    }

    fn take(&mut self, size: u64) -> Result<()> {
        if i64::try_from(size).is_err() {
            return Err(bad("an entry is larger than a file can be"));
        }
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK) - size;
        Ok(())
    }

    pub(super) fn block(&mut self) -> Result<Option<[u8; BLOCK as usize]>> {
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

    fn header(&mut self) -> Result<Option<Header>> {
        self.skip()?;
        if self.ended {
            return Ok(None);
        }
        let block = self.block()?;
        let Some(block) = block.filter(|block| block.iter().any(|byte| *byte != 0)) else {
            // Whatever stands behind the end marker is no part of the archive.
            self.ended = true;
            return Ok(None);
        };
        let header = Header::from_byte_slice(&block).clone();
        let sum = |value: fn(u8) -> i64| -> i64 {
            let field = 148..156;
            (0..).zip(block).map(|(index, byte)| if field.contains(&index) { 32 } else { value(byte) }).sum()
        };
        let told = header.cksum().map(i64::from).unwrap_or(-1);
        // Old programs added bytes up as signed ones.
        if told != sum(i64::from) && told != sum(|byte| i64::from(byte as i8)) {
            return Err(bad("a header has a wrong checksum").hint("is it a tar archive, and whole?"));
        }
        Ok(Some(header))
    }

    fn extended(&mut self, size: u64) -> Result<Vec<u8>> {
        self.take(size)?;
        self.bytes(MOST_EXTENDED).map_err(|error| match error.errno {
            None if size > MOST_EXTENDED => bad(format!("a long name or extended header claims {size} bytes")),
            _ => error,
        })
    }

    fn entry(&mut self, header: &Header, size: u64, extended: Extended) -> Result<Entry> {
        let gnu_sparse = header.entry_type() == EntryType::GNUSparse;
        let mut path = extended.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let kind = match header.entry_type() {
            // In the oldest form a slash at the end was all that told a directory.
            EntryType::Regular | EntryType::Continuous if path.ends_with(b"/") => Kind::Directory,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
            EntryType::Link => Kind::HardLink,
            EntryType::Symlink => Kind::Symlink,
            EntryType::Char => Kind::CharDevice,
            EntryType::Block => Kind::BlockDevice,
            EntryType::Directory => Kind::Directory,
            EntryType::Fifo => Kind::Fifo,
            other => {
                let kind = char::from(other.as_byte()).escape_default();
                return Err(bad(format!("entries of type '{kind}' aren't known")).on(show(&path)));
            }
        };
        let number = |value: io::Result<u64>, what: &str| {
            value.map_err(|_| bad(format!("its {what} is no number")).on(show(&header.path_bytes())))
        };
        let device = |value: io::Result<Option<u32>>| number(value.map(|value| value.unwrap_or(0).into()), "device");
        let device = match kind {
            Kind::CharDevice | Kind::BlockDevice => {
                let (major, minor) = (device(header.device_major())?, device(header.device_minor())?);
                (u32::try_from(major).unwrap_or(0), u32::try_from(minor).unwrap_or(0))
            }
            _ => (0, 0),
        };
        let stored = extended.size.unwrap_or(size);
        // A link or a directory has no data, whatever its size says.
        self.take(if kind == Kind::File { stored } else { 0 })?;
        let mut sparse = None;
        let mut real = stored;
        if kind == Kind::File {
            if extended.sparse_in_data {
                sparse = Some(self.sparse_data()?);
            } else if extended.sparse_map {
                sparse = Some(extended.sparse_parts);
            } else if gnu_sparse {
                sparse = Some(self.sparse_gnu(header)?);
            }
            if sparse.is_some() {
                if let Some(name) = extended.sparse_name {
                    path = name;
                }
                real = match gnu_sparse {
                    true => number(header.as_gnu().map_or(Ok(0), tar::GnuHeader::real_size), "size")?,
                    false => extended.sparse_size.ok_or_else(|| bad("a sparse file without its size"))?,
                };
            }
        }
        if let Some(parts) = &mut sparse {
            sparse::check(parts, real, self.left).map_err(|why| bad(why).on(show(&path)))?;
            // An empty one only says where the file ends, which its size says too.
            parts.retain(|(_, length)| *length > 0);
        }
        if path.contains(&0) {
            return Err(bad("a name has a zero byte in it").on(show(&path)));
        }
        let link = extended.link.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
        let link = match kind {
            Kind::HardLink | Kind::Symlink => link.unwrap_or_default(),
            _ => Vec::new(),
        };
        if link.contains(&0) {
            return Err(bad("a link has a zero byte in it").on(show(&path)));
        }
        Ok(Entry {
            link,
            kind,
            mode: header.mode().map_err(|_| bad("its mode is no number").on(show(&path)))? & 0o7777,
            uid: match extended.uid {
                Some(uid) => uid,
                None => number(header.uid(), "owner")?,
            },
            gid: match extended.gid {
                Some(gid) => gid,
                None => number(header.gid(), "group")?,
            },
            mtime: extended.mtime.unwrap_or_else(|| (mtime(header), 0)),
            device,
            size: if kind == Kind::File { real } else { 0 },
            sparse,
            xattrs: extended.xattrs,
            path,
        })
    }
}

/// More input, again after a signal.
fn fill<R: BufRead>(input: &mut R) -> Result<&[u8]> {
    loop {
        match input.fill_buf() {
            // Asked twice, for the borrow of the first can't be returned from a loop.
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(read_error(error)),
        }
    }
    input.fill_buf().map_err(read_error)
}

/// The time in a header; before 1970 in GNU's binary form.
fn mtime(header: &Header) -> i64 {
    let field = &header.as_old().mtime;
    if field[0] & 0x80 == 0 {
        return header.mtime().ok().and_then(|time| i64::try_from(time).ok()).unwrap_or(0);
    }
    let mut eight = [0; 8];
    eight.copy_from_slice(&field[4..12]);
    i64::from_be_bytes(eight)
}
