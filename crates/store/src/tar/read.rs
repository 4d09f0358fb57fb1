//! The entries of an archive, one after the other, from a stream: old, ustar, GNU and PAX, with long names, extended
//! attributes and sparse files of all these forms.
//!
//! Where readers of archives are known to differ (sizes of entries without data, of PAX headers), this one does as Go's
//! does, which docker and containerd use: what they see in an image is what is unpacked here.

use std::borrow::Cow;
use std::io::{self, BufRead};

use tar::{EntryType, Header};

use super::blocks::BlockReader;
use super::error::malformed;
use super::extended_header::{ExtendedHeader, until_zero};
use super::{EntryKind, TarEntry, sparse};
use nsrs_base::error::show;
use nsrs_base::error::{Error, Result};

/// The largest extended header or long name that is read into memory, in bytes.
const MAX_EXTENDED: u64 = 1 << 20;

/// Reads the entries of an uncompressed archive one by one.
#[derive(Debug)]
pub struct TarReader<R> {
    blocks: BlockReader<R>,
}

/// How large the file of an entry is, and which parts of it are in the archive.
struct Extent {
    size: u64,
    sparse: Option<sparse::Parts>,
}

impl<R: BufRead> TarReader<R> {
    /// Reads from the beginning of an archive.
    pub fn new(input: R) -> TarReader<R> {
        TarReader { blocks: BlockReader::new(input) }
    }

    /// What is behind the archive.
    pub fn into_inner(self) -> R {
        self.blocks.into_inner()
    }

    /// The next entry; what is left of the data of the one before is skipped. `None` at the end marker or the end of the
    /// input.
    ///
    /// # Errors
    /// The archive is truncated or malformed.
    pub fn next_entry(&mut self) -> Result<Option<TarEntry>> {
        let mut extended = ExtendedHeader::default();
        let mut has_extended = false;
        loop {
            let Some(header) = self.header()? else {
                return match has_extended {
                    true => Err(malformed("nothing follows an extended header")),
                    false => Ok(None),
                };
            };
            let size = header.entry_size().map_err(|_| malformed("the size of an entry is not a number"))?;
            match header.entry_type() {
                EntryType::XHeader => {
                    let bytes = self.extended_data(size)?;
                    extended.read(&bytes)?;
                    has_extended = true;
                }
                // It holds for all entries that follow; what git and others write there doesn't matter here.
                EntryType::XGlobalHeader => drop(self.extended_data(size)?),
                EntryType::GNULongName => {
                    extended.path = Some(until_zero(self.extended_data(size)?));
                    has_extended = true;
                }
                EntryType::GNULongLink => {
                    extended.link = Some(until_zero(self.extended_data(size)?));
                    has_extended = true;
                }
                // A volume label has no data.
                other if other.as_byte() == b'V' => {}
                _ => return self.entry(&header, size, extended).map(Some),
            }
        }
    }

    /// The next part of the current entry's data as it is in the archive (of a sparse file the stored parts, one after the
    /// other); empty at its end. [`TarReader::consume`] marks what was used of it.
    ///
    /// # Errors
    /// The archive is truncated.
    pub fn data(&mut self) -> Result<&[u8]> {
        self.blocks.data()
    }

    /// Marks bytes of [`TarReader::data`] as used.
    pub fn consume(&mut self, count: usize) {
        self.blocks.consume(count);
    }

    /// Reads the current entry's data into memory, if there are no more than `max` bytes.
    ///
    /// # Errors
    /// There are more; the archive is truncated.
    pub fn bytes(&mut self, max: u64) -> Result<Vec<u8>> {
        self.blocks.read_data(max)
    }

    fn header(&mut self) -> Result<Option<Header>> {
        self.blocks.skip_data()?;
        if self.blocks.ended {
            return Ok(None);
        }
        let block = self.blocks.block()?;
        let Some(block) = block.filter(|block| block.iter().any(|byte| *byte != 0)) else {
            // What follows the end marker is not part of the archive.
            self.blocks.ended = true;
            return Ok(None);
        };
        let header = Header::from_byte_slice(&block).clone();
        let sum = |value: fn(u8) -> i64| -> i64 {
            let field = 148..156;
            (0..).zip(block).map(|(index, byte)| if field.contains(&index) { 32 } else { value(byte) }).sum()
        };
        let stated = header.cksum().map(i64::from).unwrap_or(-1);
        // Old programs added the bytes up as signed ones.
        if stated != sum(i64::from) && stated != sum(|byte| i64::from(byte as i8)) {
            return Err(malformed("a header has a wrong checksum").hint("make sure that it is a complete tar archive"));
        }
        Ok(Some(header))
    }

    fn extended_data(&mut self, size: u64) -> Result<Vec<u8>> {
        self.blocks.begin_data(size)?;
        self.blocks.read_data(MAX_EXTENDED).map_err(|error| match error.errno {
            None if size > MAX_EXTENDED => malformed(format!("a long name or extended header claims {size} bytes")),
            _ => error,
        })
    }

    fn entry(&mut self, header: &Header, size: u64, mut extended: ExtendedHeader) -> Result<TarEntry> {
        let mut path = extended.path.take().unwrap_or_else(|| header.path_bytes().into_owned());
        let kind = entry_kind(header, &path)?;
        let number = |value: io::Result<u64>, what: &str| number(header, value, what);
        let device = match kind {
            EntryKind::CharDevice | EntryKind::BlockDevice => {
                let device = |value: io::Result<Option<u32>>| {
                    number(value.map(|value| value.unwrap_or(0).into()), "device number")
                };
                let (major, minor) = (device(header.device_major())?, device(header.device_minor())?);
                (u32::try_from(major).unwrap_or(0), u32::try_from(minor).unwrap_or(0))
            }
            _ => (0, 0),
        };
        let stored = extended.size.unwrap_or(size);
        let extent = match kind {
            EntryKind::File => self.extent(header, stored, &mut extended, &mut path)?,
            // A link or a directory has no data, whatever its size says.
            _ => {
                self.blocks.begin_data(0)?;
                Extent { size: 0, sparse: None }
            }
        };
        if path.contains(&0) {
            return Err(malformed("a name contains a zero byte").on(show(&path)));
        }
        let link = match kind {
            EntryKind::HardLink | EntryKind::Symlink => {
                extended.link.or_else(|| header.link_name_bytes().map(Cow::into_owned)).unwrap_or_default()
            }
            _ => Vec::new(),
        };
        if link.contains(&0) {
            return Err(malformed("the target of a link contains a zero byte").on(show(&path)));
        }
        Ok(TarEntry {
            link,
            kind,
            mode: header.mode().map_err(|_| malformed("its mode is not a number").on(show(&path)))? & 0o7777,
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
            size: extent.size,
            sparse: extent.sparse,
            xattrs: extended.xattrs,
            path,
        })
    }

    /// Begins the data of a file. The name of a sparse one may be in its extended header.
    fn extent(
        &mut self,
        header: &Header,
        stored: u64,
        extended: &mut ExtendedHeader,
        path: &mut Vec<u8>,
    ) -> Result<Extent> {
        self.blocks.begin_data(stored)?;
        let is_gnu = header.entry_type() == EntryType::GNUSparse;
        let parts = if extended.sparse_in_data {
            sparse::read_pax_map(&mut self.blocks)?
        } else if extended.sparse_map {
            std::mem::take(&mut extended.sparse_parts)
        } else if is_gnu {
            sparse::read_gnu_map(&mut self.blocks, header)?
        } else {
            return Ok(Extent { size: stored, sparse: None });
        };
        if let Some(name) = extended.sparse_name.take() {
            *path = name;
        }
        let size = match is_gnu {
            true => number(header, header.as_gnu().map_or(Ok(0), tar::GnuHeader::real_size), "size")?,
            false => extended.sparse_size.ok_or_else(|| malformed("a sparse file without its size"))?,
        };
        sparse::check(&parts, size, self.blocks.left()).map_err(|why| malformed(why).on(show(path)))?;
        // An empty part only says where the file ends, which its size says, too.
        let parts = parts.into_iter().filter(|(_, length)| *length > 0).collect();
        Ok(Extent { size, sparse: Some(parts) })
    }
}

fn entry_kind(header: &Header, path: &[u8]) -> Result<EntryKind> {
    Ok(match header.entry_type() {
        // In the oldest form only a slash at the end marks a directory.
        EntryType::Regular | EntryType::Continuous if path.ends_with(b"/") => EntryKind::Directory,
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => EntryKind::File,
        EntryType::Link => EntryKind::HardLink,
        EntryType::Symlink => EntryKind::Symlink,
        EntryType::Char => EntryKind::CharDevice,
        EntryType::Block => EntryKind::BlockDevice,
        EntryType::Directory => EntryKind::Directory,
        EntryType::Fifo => EntryKind::Fifo,
        other => {
            let kind = char::from(other.as_byte()).escape_default();
            return Err(malformed(format!("unknown entry type '{kind}'")).on(show(path)));
        }
    })
}

fn number(header: &Header, value: io::Result<u64>, what: &str) -> Result<u64> {
    value.map_err(|_| -> Error { malformed(format!("its {what} is not a number")).on(show(&header.path_bytes())) })
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
