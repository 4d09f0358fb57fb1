//! The extended headers of PAX before an entry, with what they say of sparse files and extended attributes.

use super::error::malformed;
use super::pax;
use nsrs_base::error::{Result, show};

/// What an extended header says of the entry that follows it.
#[derive(Debug, Default)]
pub(super) struct ExtendedHeader {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<(i64, u32)>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: PaxSparse,
}

/// What it says of a sparse file.
#[derive(Debug, Default)]
pub(super) struct PaxSparse {
    pub(super) name: Option<Vec<u8>>,
    major: Vec<u8>,
    minor: Vec<u8>,
    size: Option<u64>,
    real_size: Option<u64>,
    /// The map as one list.
    map: Vec<(u64, u64)>,
    /// The map as pairs of records.
    pairs: Vec<(u64, u64)>,
    blocks: Option<u64>,
    /// An offset whose length is still to come.
    offset: Option<u64>,
}

/// Where the map of a sparse file is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PaxMap {
    /// The entry is no sparse file, or of a version that isn't known, which is then read as it is.
    None,
    /// In the header.
    Header(Vec<(u64, u64)>),
    /// At the beginning of the data.
    Data,
}

impl PaxSparse {
    /// The size of the file with its holes.
    pub(super) fn size(&self) -> Option<u64> {
        self.size.or(self.real_size)
    }

    /// # Errors
    /// The header has a version with a map, and none or an incomplete one.
    pub(super) fn take_map(&mut self) -> Result<PaxMap> {
        let is_mapped = !self.map.is_empty() || !self.pairs.is_empty();
        match (&self.major[..], &self.minor[..]) {
            (b"0", b"0" | b"1") => {}
            (b"1", b"0") => return Ok(PaxMap::Data),
            (b"", b"") if is_mapped => {}
            _ => return Ok(PaxMap::None),
        }
        let (list, pairs) = (std::mem::take(&mut self.map), std::mem::take(&mut self.pairs));
        let map = if pairs.is_empty() { list } else { pairs };
        match self.blocks == Some(map.len() as u64) && self.offset.is_none() {
            true => Ok(PaxMap::Header(map)),
            false => Err(malformed("malformed map of a sparse file")),
        }
    }
}

impl ExtendedHeader {
    /// Reads a header. It takes the place of one before it; within it, the last of equal keys counts.
    ///
    /// # Errors
    /// It is malformed.
    pub(super) fn read(bytes: &[u8]) -> Result<ExtendedHeader> {
        let mut all = ExtendedHeader::default();
        for (key, value) in pax::records(bytes)? {
            all.record(key, value)?;
        }
        Ok(all)
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let number =
            || pax::decimal(value).ok_or_else(|| malformed(format!("the PAX value of {} is not a number", show(key))));
        // An empty value removes an earlier one.
        let bytes = (!value.is_empty()).then(|| value.to_vec());
        let optional = || if value.is_empty() { Ok(None) } else { number().map(Some) };
        if matches!(key, b"path" | b"linkpath" | b"uname" | b"gname") && value.contains(&0) {
            return Err(malformed("a name contains a zero byte").on(show(value)));
        }
        match key {
            b"path" => self.path = bytes,
            b"linkpath" => self.link = bytes,
            b"size" => self.size = optional()?,
            b"uid" => self.uid = optional()?,
            b"gid" => self.gid = optional()?,
            b"mtime" => {
                self.mtime = match bytes {
                    None => None,
                    Some(text) => {
                        Some(pax::time(&text).ok_or_else(|| malformed("the PAX value of mtime is not a time"))?)
                    }
                }
            }
            b"GNU.sparse.major" => self.sparse.major = value.to_vec(),
            b"GNU.sparse.minor" => self.sparse.minor = value.to_vec(),
            b"GNU.sparse.name" => self.sparse.name = bytes,
            b"GNU.sparse.size" => self.sparse.size = optional()?,
            b"GNU.sparse.realsize" => self.sparse.real_size = optional()?,
            b"GNU.sparse.numblocks" => self.sparse.blocks = optional()?,
            b"GNU.sparse.offset" => {
                if self.sparse.offset.replace(number()?).is_some() {
                    return Err(malformed("malformed map of a sparse file"));
                }
            }
            b"GNU.sparse.numbytes" => {
                let offset = self.sparse.offset.take().ok_or_else(|| malformed("malformed map of a sparse file"))?;
                self.sparse.pairs.push((offset, number()?));
            }
            b"GNU.sparse.map" => {
                let numbers: Option<Vec<u64>> = match value {
                    [] => Some(Vec::new()),
                    value => value.split(|byte| *byte == b',').map(pax::decimal).collect(),
                };
                let numbers = numbers.filter(|numbers| numbers.len() % 2 == 0);
                let numbers = numbers.ok_or_else(|| malformed("malformed map of a sparse file"))?;
                self.sparse.map = numbers.chunks(2).map(|pair| (pair[0], pair[1])).collect();
            }
            key => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.retain(|(other, _)| other != name);
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

/// A name up to its first zero byte.
pub(super) fn until_zero(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    bytes
}
