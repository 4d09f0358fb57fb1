//! Archives written: PAX where ustar doesn't hold it, byte for byte the same for the same entries.

use std::io::{self, Write};

use tar::{EntryType, Header};

use super::{BLOCK, EntryKind, TarEntry, pax};

/// Writes an uncompressed archive entry by entry.
#[derive(Debug)]
pub struct Writer<W> {
    output: W,
    left: u64,
    padding: usize,
}

impl<W: Write> Writer<W> {
    /// A writer that writes the archive to this output.
    pub fn new(output: W) -> Writer<W> {
        Writer { output, left: 0, padding: 0 }
    }

    /// Begins an entry. The data of a file follow by [`Writer::data`], exactly as many bytes as its size (of a sparse file
    /// the parts).
    ///
    /// # Errors
    /// The output refuses; the data of the entry before weren't complete.
    pub fn entry(&mut self, entry: &TarEntry) -> io::Result<()> {
        self.fill()?;
        let mut extended = Vec::new();
        let mut header = Header::new_ustar();
        let stored = match &entry.sparse {
            _ if entry.kind != EntryKind::File => 0,
            Some(parts) => parts.iter().map(|part| part.1).sum(),
            None => entry.size,
        };
        let mut map = Vec::new();
        if let Some(parts) = &entry.sparse {
            map = sparse_map(parts, entry.size);
            pax::push(&mut extended, b"GNU.sparse.major", b"1");
            pax::push(&mut extended, b"GNU.sparse.minor", b"0");
            pax::push(&mut extended, b"GNU.sparse.name", &entry.path);
            pax::push(&mut extended, b"GNU.sparse.realsize", entry.size.to_string().as_bytes());
        }
        let size = stored + map.len() as u64;
        header.set_entry_type(match entry.kind {
            EntryKind::File => EntryType::Regular,
            EntryKind::HardLink => EntryType::Link,
            EntryKind::Symlink => EntryType::Symlink,
            EntryKind::CharDevice => EntryType::Char,
            EntryKind::BlockDevice => EntryType::Block,
            EntryKind::Directory => EntryType::Directory,
            EntryKind::Fifo => EntryType::Fifo,
        });
        if !put(&mut header.as_old_mut().name, &entry.path) {
            pax::push(&mut extended, b"path", &entry.path);
        }
        if !put(&mut header.as_old_mut().linkname, &entry.link) {
            pax::push(&mut extended, b"linkpath", &entry.link);
        }
        header.set_mode(entry.mode);
        let mut number = |key: &[u8], value: u64, most: u64| {
            if value > most {
                pax::push(&mut extended, key, value.to_string().as_bytes());
                return 0;
            }
            value
        };
        header.set_uid(number(b"uid", entry.uid, 0o777_7777));
        header.set_gid(number(b"gid", entry.gid, 0o777_7777));
        header.set_size(number(b"size", size, 0o777_7777_7777));
        let (seconds, nanos) = entry.mtime;
        let plain = u64::try_from(seconds).ok().filter(|seconds| *seconds <= 0o777_7777_7777);
        header.set_mtime(plain.unwrap_or(0));
        if nanos != 0 || plain.is_none() {
            pax::push(&mut extended, b"mtime", time(seconds, nanos).as_bytes());
        }
        if matches!(entry.kind, EntryKind::CharDevice | EntryKind::BlockDevice) {
            header.set_device_major(entry.device.0)?;
            header.set_device_minor(entry.device.1)?;
        }
        for (name, value) in &entry.xattrs {
            pax::push(&mut extended, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
        }
        if !extended.is_empty() {
            let mut before = Header::new_ustar();
            before.set_entry_type(EntryType::XHeader);
            put(&mut before.as_old_mut().name, b"././@PaxHeader");
            before.set_mode(0o644);
            before.set_uid(0);
            before.set_gid(0);
            before.set_mtime(0);
            before.set_size(extended.len() as u64);
            before.set_cksum();
            self.output.write_all(before.as_bytes())?;
            extended.resize(extended.len().next_multiple_of(BLOCK as usize), 0);
            self.output.write_all(&extended)?;
        }
        header.set_cksum();
        self.output.write_all(header.as_bytes())?;
        self.output.write_all(&map)?;
        self.left = stored;
        self.padding = (size.next_multiple_of(BLOCK) - size) as usize;
        Ok(())
    }

    /// Writes data of the entry.
    ///
    /// # Errors
    /// The output refuses, or it's more than was said.
    pub fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.left = self
            .left
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| io::Error::other("the file grew while it was read"))?;
        self.output.write_all(bytes)
    }

    fn fill(&mut self) -> io::Result<()> {
        if self.left > 0 {
            return Err(io::Error::other("the file shrank while it was read"));
        }
        self.output.write_all(&[0; BLOCK as usize][..std::mem::take(&mut self.padding)])
    }

    /// Writes the end marker and returns the output.
    ///
    /// # Errors
    /// The output refuses.
    pub fn finish(mut self) -> io::Result<W> {
        self.fill()?;
        self.output.write_all(&[0; 2 * BLOCK as usize])?;
        self.output.flush()?;
        Ok(self.output)
    }
}

/// Puts a text into a field. Returns false for one that doesn't fit (it is cut) or is not ASCII.
fn put(field: &mut [u8; 100], text: &[u8]) -> bool {
    let count = text.len().min(field.len());
    field[..count].copy_from_slice(&text[..count]);
    count == text.len() && text.is_ascii()
}

fn time(seconds: i64, nanos: u32) -> String {
    match (seconds, nanos) {
        (seconds, 0) => seconds.to_string(),
        (seconds, nanos) if seconds >= 0 => format!("{seconds}.{nanos:09}"),
        (seconds, nanos) => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanos),
    }
}

fn sparse_map(parts: &[(u64, u64)], size: u64) -> Vec<u8> {
    // GNU tar makes a file end where its last part does: a hole at the end takes an empty part there.
    let end = parts.last().map_or(0, |(offset, length)| offset.saturating_add(*length));
    let closing = (end < size).then_some((size, 0));
    let mut map = format!("{}\n", parts.len() + usize::from(closing.is_some()));
    for (offset, length) in parts.iter().chain(&closing) {
        map += &format!("{offset}\n{length}\n");
    }
    let mut map = map.into_bytes();
    map.resize(map.len().next_multiple_of(BLOCK as usize), 0);
    map
}

#[cfg(test)]
mod tests {
    use super::super::read::TarReader;
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let base = TarEntry {
            path: b"a".to_vec(),
            link: Vec::new(),
            kind: EntryKind::File,
            mode: 0o4755,
            uid: 1,
            gid: 2,
            mtime: (5, 6),
            device: (0, 0),
            size: 3,
            sparse: None,
            xattrs: vec![(b"user.a".to_vec(), b"x\ny=\0z".to_vec())],
        };
        let entries = [
            base.clone(),
            TarEntry {
                path: vec![b'n'; 300],
                link: vec![b'l'; 300],
                kind: EntryKind::Symlink,
                size: 0,
                ..base.clone()
            },
            TarEntry { uid: 4_000_000_000, gid: 3_000_000, mtime: (-7, 250), path: "ü".into(), ..base.clone() },
            TarEntry { kind: EntryKind::CharDevice, device: (4, 65), size: 0, xattrs: Vec::new(), ..base.clone() },
            TarEntry { size: 100_000, sparse: Some(vec![(0, 1), (50_000, 1), (99_999, 1)]), ..base.clone() },
            TarEntry { size: 100_000, sparse: Some(Vec::new()), ..base.clone() },
            TarEntry { kind: EntryKind::Directory, path: b"d/".to_vec(), size: 0, ..base },
        ];
        let mut writer = Writer::new(Vec::new());
        for entry in &entries {
            writer.entry(entry).unwrap();
            if entry.size > 0 && entry.sparse.as_ref().is_none_or(|parts| !parts.is_empty()) {
                writer.data(b"abc").unwrap();
            }
        }
        let bytes = writer.finish().unwrap();
        let mut reader = TarReader::new(&bytes[..]);
        for entry in &entries {
            assert_eq!(reader.next_entry().unwrap().as_ref(), Some(entry));
        }
        assert_eq!(reader.next_entry().unwrap(), None);
    }
}
