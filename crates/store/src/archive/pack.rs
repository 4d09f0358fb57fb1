//! A tree as an archive.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

use rustix::fs::{FileType, Mode, OFlags, major, minor, openat, readlinkat};
use rustix::io::Errno;

use crate::tar::write::Writer;
use crate::tar::{EntryKind, TarEntry};
use nsrs_base::error::show;
use nsrs_base::error::{At, Error, Result};
use nsrs_base::tree::copy::parts;
use nsrs_base::tree::merge::{Node, Visitor};
use nsrs_base::tree::xattrs;

/// Writes what it is shown as an archive.
#[derive(Debug)]
pub struct Packer<W> {
    writer: Writer<W>,
    /// The first names of files that have several, by device and inode.
    first: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
    /// Sockets, which no archive holds.
    pub sockets: u64,
    /// Entries written so far.
    pub entries: u64,
    /// Entries whose owner or group is nobody: in a user namespace that is everybody who isn't mapped there.
    pub nobodys: u64,
    nobody: (u32, u32),
}

impl<W: Write> Packer<W> {
    /// A packer that writes the archive to this output.
    pub fn new(output: W) -> Packer<W> {
        Packer {
            writer: Writer::new(output),
            first: HashMap::new(),
            buffer: vec![0; 256 << 10],
            sockets: 0,
            entries: 0,
            nobodys: 0,
            nobody: (overflow("uid"), overflow("gid")),
        }
    }

    /// Writes the end marker and returns the output.
    ///
    /// # Errors
    /// The output refuses.
    pub fn finish(self) -> Result<W> {
        self.writer.finish().map_err(|error| crate::tar::read_error(error).because("write the archive"))
    }

    fn entry(&mut self, node: &Node<'_>, kind: EntryKind) -> Result<TarEntry> {
        let mut path = node.path.to_vec();
        if kind == EntryKind::Directory {
            path = if path.is_empty() { b"./".to_vec() } else { [&path[..], b"/"].concat() };
        }
        let device = match kind {
            EntryKind::CharDevice | EntryKind::BlockDevice => (major(node.stat.st_rdev), minor(node.stat.st_rdev)),
            _ => (0, 0),
        };
        self.nobodys += u64::from(node.stat.st_uid == self.nobody.0 || node.stat.st_gid == self.nobody.1);
        Ok(TarEntry {
            path,
            link: Vec::new(),
            kind,
            mode: node.stat.st_mode & 0o7777,
            uid: node.stat.st_uid.into(),
            gid: node.stat.st_gid.into(),
            mtime: (node.stat.st_mtime, node.stat.st_mtime_nsec as u32),
            device,
            size: if kind == EntryKind::File { node.stat.st_size as u64 } else { 0 },
            sparse: None,
            xattrs: xattrs(node.parent, node.name).at("read the attributes", show(node.path))?,
        })
    }

    fn put(&mut self, entry: &TarEntry) -> Result<()> {
        self.entries += 1;
        self.writer.entry(entry).map_err(|error| written(&entry.path, error))
    }

    fn file(&mut self, node: &Node<'_>, mut entry: TarEntry) -> Result<()> {
        let step = "read the file";
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file: File = openat(node.parent, node.name, flags, Mode::empty()).at(step, show(node.path))?.into();
        // Less on disk than its size: it has holes.
        if (node.stat.st_blocks as u64).saturating_mul(512) < entry.size {
            entry.sparse = parts(&file, entry.size);
        }
        self.put(&entry)?;
        let whole = [(0, entry.size)];
        for (offset, length) in entry.sparse.as_deref().unwrap_or(&whole) {
            let (mut at, end) = (*offset, offset + length);
            while at < end {
                let most = usize::try_from(end - at).unwrap_or(usize::MAX).min(self.buffer.len());
                let count = file.read_at(&mut self.buffer[..most], at).at(step, show(node.path))?;
                if count == 0 {
                    return Err(Error::os(step, show(node.path), Errno::IO).because("it shrank while it was read"));
                }
                self.writer.data(&self.buffer[..count]).map_err(|error| written(node.path, error))?;
                at += count as u64;
            }
        }
        Ok(())
    }
}

/// The id of who isn't mapped (proc_sys_kernel(5)).
fn overflow(kind: &str) -> u32 {
    let text = std::fs::read_to_string(format!("/proc/sys/kernel/overflow{kind}"));
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(65534)
}

fn written(path: &[u8], error: std::io::Error) -> Error {
    match error.downcast::<Error>() {
        // What the store said of it.
        Ok(error) => error,
        Err(error) if error.raw_os_error().is_some() => Error::os("write the archive", show(path), &error),
        Err(error) => Error::os("write the archive", show(path), &error).because(error.to_string()),
    }
}

impl<W: Write> Visitor for Packer<W> {
    fn enter(&mut self, node: &Node<'_>) -> Result<()> {
        let entry = self.entry(node, EntryKind::Directory)?;
        self.put(&entry)
    }

    fn leave(&mut self, _node: &Node<'_>) -> Result<()> {
        Ok(())
    }

    fn leaf(&mut self, node: &Node<'_>) -> Result<()> {
        let kind = match node.kind() {
            FileType::RegularFile => EntryKind::File,
            FileType::Symlink => EntryKind::Symlink,
            FileType::CharacterDevice => EntryKind::CharDevice,
            FileType::BlockDevice => EntryKind::BlockDevice,
            FileType::Fifo => EntryKind::Fifo,
            _ => {
                self.sockets += 1;
                return Ok(());
            }
        };
        if node.stat.st_nlink > 1 {
            let identity = (node.stat.st_dev, node.stat.st_ino);
            if let Some(first) = self.first.get(&identity) {
                let link = first.clone();
                let entry = TarEntry { link, size: 0, xattrs: Vec::new(), ..self.entry(node, EntryKind::HardLink)? };
                return self.put(&entry);
            }
            self.first.insert(identity, node.path.to_vec());
        }
        let mut entry = self.entry(node, kind)?;
        match kind {
            EntryKind::File => self.file(node, entry),
            EntryKind::Symlink => {
                let link = readlinkat(node.parent, node.name, Vec::new()).at("read the link", show(node.path))?;
                entry.link = link.into_bytes();
                self.put(&entry)
            }
            _ => self.put(&entry),
        }
    }
}
