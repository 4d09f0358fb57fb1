//! The extended headers of PAX before an entry, with what they say of sparse files and extended attributes.

use super::error::malformed;
use super::pax;
use nsrs_base::error::Result;

/// What extended headers say of the entry that follows them.
#[derive(Debug, Default)]
pub(super) struct ExtendedHeader {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<(i64, u32)>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse_parts: Vec<(u64, u64)>,
    pub(super) sparse_offset: Option<u64>,
    pub(super) sparse_map: bool,
    pub(super) sparse_in_data: bool,
    pub(super) sparse_name: Option<Vec<u8>>,
    pub(super) sparse_size: Option<u64>,
}

impl ExtendedHeader {
    /// Adds another header, which overrides the earlier ones.
    ///
    /// # Errors
    /// It is malformed.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<()> {
        for (key, value) in pax::records(bytes)? {
            let number = || {
                let key = String::from_utf8_lossy(key);
                pax::decimal(value).ok_or_else(|| malformed(format!("the PAX value of {key} is not a number")))
            };
            // An empty value removes an earlier one.
            let bytes = (!value.is_empty()).then(|| value.to_vec());
            match key {
                b"path" => self.path = bytes,
                b"linkpath" => self.link = bytes,
                b"size" => self.size = if value.is_empty() { None } else { Some(number()?) },
                b"uid" => self.uid = if value.is_empty() { None } else { Some(number()?) },
                b"gid" => self.gid = if value.is_empty() { None } else { Some(number()?) },
                b"mtime" => {
                    self.mtime = match bytes {
                        None => None,
                        Some(text) => {
                            Some(pax::time(&text).ok_or_else(|| malformed("the PAX value of mtime is not a time"))?)
                        }
                    }
                }
                b"GNU.sparse.major" => self.sparse_in_data = value == b"1",
                b"GNU.sparse.name" => self.sparse_name = bytes,
                b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse_size = Some(number()?),
                b"GNU.sparse.numblocks" => self.sparse_map = true,
                b"GNU.sparse.offset" => self.sparse_offset = Some(number()?),
                b"GNU.sparse.numbytes" => {
                    let offset =
                        self.sparse_offset.take().ok_or_else(|| malformed("malformed map of a sparse file"))?;
                    self.sparse_parts.push((offset, number()?));
                }
                b"GNU.sparse.map" => {
                    self.sparse_map = true;
                    let numbers: Option<Vec<u64>> = match value {
                        [] => Some(Vec::new()),
                        value => value.split(|byte| *byte == b',').map(pax::decimal).collect(),
                    };
                    let numbers = numbers.filter(|numbers| numbers.len() % 2 == 0);
                    let numbers = numbers.ok_or_else(|| malformed("malformed map of a sparse file"))?;
                    self.sparse_parts = numbers.chunks(2).map(|pair| (pair[0], pair[1])).collect();
                }
                key => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        self.xattrs.retain(|(other, _)| other != name);
                        self.xattrs.push((name.to_vec(), value.to_vec()));
                    }
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
