//! The entries of an archive, one after the other, from a stream: old, ustar, GNU and PAX, with long names, extended
//! attributes and sparse files of all these forms.
//!
//! Where readers of archives differ, this one does as Go's does, which docker, containerd and scanners of images use: what they
//! see in an image is what is unpacked here. It refuses some archives that Go's reads, and a test compares the two.

use std::io::BufRead;

use super::blocks::BlockReader;
use super::error::malformed;
use super::extended_header::{ExtendedHeader, PaxMap, PaxSparse, until_zero};
use super::header::{Block, Header};
use super::{EntryKind, TarEntry, sparse};
use nsrs_base::error::Result;
use nsrs_base::error::show;

/// The largest extended header or long name that is read into memory, in bytes.
const MAX_EXTENDED: u64 = 1 << 20;

/// Reads the entries of an uncompressed archive one by one.
#[derive(Debug)]
pub struct TarReader<R> {
    blocks: BlockReader<R>,
}

/// What stands before an entry and holds for it.
#[derive(Default)]
struct BeforeEntry {
    extended: Option<ExtendedHeader>,
    /// GNU's long name.
    path: Option<Vec<u8>>,
    /// GNU's long target of a link.
    link: Option<Vec<u8>>,
}

impl BeforeEntry {
    fn is_empty(&self) -> bool {
        self.extended.is_none() && self.path.is_none() && self.link.is_none()
    }
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
        let mut before = BeforeEntry::default();
        loop {
            let Some(header) = self.header()? else {
                return match before.is_empty() {
                    true => Ok(None),
                    false => Err(malformed("nothing follows an extended header")),
                };
            };
            match header.kind {
                b'x' => before.extended = Some(ExtendedHeader::read(&self.extended_data(header.size)?)?),
                // It holds for all entries that follow; what git and others write there doesn't matter here. But it is an
                // entry by itself for Go, which takes what stood before it.
                b'g' => {
                    ExtendedHeader::read(&self.extended_data(header.size)?)?;
                    before = BeforeEntry::default();
                }
                b'L' => before.path = Some(until_zero(self.extended_data(header.size)?)),
                b'K' => before.link = Some(until_zero(self.extended_data(header.size)?)),
                // A volume label. It's an entry by itself, too.
                b'V' => {
                    let mut extended = before.extended.unwrap_or_default();
                    if extended.sparse.take_map()? != PaxMap::None {
                        return Err(malformed("a sparse entry that is not a regular file"));
                    }
                    self.blocks.begin_data(extended.size.unwrap_or(header.size))?;
                    before = BeforeEntry::default();
                }
                _ => return self.entry(header, before).map(Some),
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
        let is_empty = |block: &Block| block.iter().all(|byte| *byte == 0);
        match self.blocks.block()? {
            Some(block) if !is_empty(&block) => return Header::read(block).map(Some),
            // The end marker are two empty blocks, of which the second may be missing. What follows them is not part of the
            // archive; what follows one is for some readers.
            Some(_) if self.blocks.block()?.is_some_and(|block| !is_empty(&block)) => {
                return Err(malformed("the end marker is incomplete"));
            }
            _ => {}
        }
        self.blocks.ended = true;
        Ok(None)
    }

    fn extended_data(&mut self, size: u64) -> Result<Vec<u8>> {
        self.blocks.begin_data(size)?;
        self.blocks.read_data(MAX_EXTENDED).map_err(|error| match error.errno {
            None if size > MAX_EXTENDED => malformed(format!("a long name or extended header claims {size} bytes")),
            _ => error,
        })
    }

    fn entry(&mut self, header: Header, before: BeforeEntry) -> Result<TarEntry> {
        let mut extended = before.extended.unwrap_or_default();
        // GNU's long name counts before that of PAX, wherever it stands; an empty one doesn't.
        let chosen = |gnu: Option<Vec<u8>>, pax: Option<Vec<u8>>, own: &[u8]| {
            gnu.filter(|name| !name.is_empty()).or(pax).unwrap_or_else(|| own.to_vec())
        };
        let mut path = chosen(before.path, extended.path.take(), &header.path);
        let kind = entry_kind(header.kind, &path)?;
        let stored = extended.size.unwrap_or(header.size);
        let extent = match kind {
            EntryKind::File => self.extent(&header, stored, &mut extended.sparse, &mut path)?,
            _ if extended.sparse.take_map()? != PaxMap::None => {
                return Err(malformed("a sparse entry that is not a regular file").on(show(&path)));
            }
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
            EntryKind::HardLink | EntryKind::Symlink => chosen(before.link, extended.link, &header.link),
            _ => Vec::new(),
        };
        if link.contains(&0) {
            return Err(malformed("the target of a link contains a zero byte").on(show(&path)));
        }
        let is_device = matches!(kind, EntryKind::CharDevice | EntryKind::BlockDevice);
        Ok(TarEntry {
            link,
            kind,
            mode: header.mode,
            uid: extended.uid.unwrap_or(header.uid),
            gid: extended.gid.unwrap_or(header.gid),
            mtime: extended.mtime.unwrap_or((header.mtime, 0)),
            device: if is_device { header.device } else { (0, 0) },
            size: extent.size,
            sparse: extent.sparse,
            xattrs: extended.xattrs,
            path,
        })
    }

    /// Begins the data of a file. The name of a sparse one may be in its extended header.
    fn extent(&mut self, header: &Header, stored: u64, extended: &mut PaxSparse, path: &mut Vec<u8>) -> Result<Extent> {
        self.blocks.begin_data(stored)?;
        let (size, parts) = if header.kind == b'S' {
            sparse::read_gnu_map(&mut self.blocks, header)?
        } else {
            let map = extended.take_map()?;
            if map == PaxMap::None {
                return Ok(Extent { size: stored, sparse: None });
            }
            if let Some(name) = extended.name.take() {
                *path = name;
            }
            let size = extended.size().ok_or_else(|| malformed("a sparse file without its size"))?;
            match map {
                PaxMap::Header(parts) => (size, parts),
                _ => (size, sparse::read_pax_map(&mut self.blocks)?),
            }
        };
        sparse::check(&parts, size, self.blocks.left()).map_err(|why| malformed(why).on(show(path)))?;
        // An empty part only says where the file ends, which its size says, too.
        let parts = parts.into_iter().filter(|(_, length)| *length > 0).collect();
        Ok(Extent { size, sparse: Some(parts) })
    }
}

fn entry_kind(kind: u8, path: &[u8]) -> Result<EntryKind> {
    Ok(match kind {
        // In the oldest form only a slash at the end marks a directory. In all others it is a file's name as any other:
        // it has data, and who took it for a directory would read them as headers, or miss them.
        0 if path.ends_with(b"/") => EntryKind::Directory,
        0 | b'0' | b'7' | b'S' => EntryKind::File,
        b'1' => EntryKind::HardLink,
        b'2' => EntryKind::Symlink,
        b'3' => EntryKind::CharDevice,
        b'4' => EntryKind::BlockDevice,
        b'5' => EntryKind::Directory,
        b'6' => EntryKind::Fifo,
        other => {
            let kind = char::from(other).escape_default();
            return Err(malformed(format!("unknown entry type '{kind}'")).on(show(path)));
        }
    })
}
