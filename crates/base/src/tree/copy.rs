//! A tree as another tree: by reflinks where the file system has them, by copies, or by hard links.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat, fchmod,
    fchown, fsetxattr, ftruncate, futimens, ioctl_ficlone, linkat, mkdirat, mknodat, openat, readlinkat, seek,
    setxattr, symlinkat, utimensat,
};
use rustix::io::Errno;

use super::marks::OPAQUE;
use super::merge::{Node, Visitor};
use super::{Xattr, open_directory, xattrs};
use crate::error::show;
use crate::error::{At, Error, Result};

/// Whether files are copied or linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Sharing their blocks where the file system can (`FICLONE`), byte by byte elsewhere.
    Copy,
    /// As other names of the same files: for trees that are only read.
    Link,
}

/// A visitor that copies a tree into a directory.
#[derive(Debug)]
pub struct Copier {
    how: How,
    /// The open directories of the destination, the innermost last.
    into: Vec<OwnedFd>,
    /// The first names of files that have several.
    first: HashMap<(u64, u64), Vec<u8>>,
    /// Copies share their blocks with the original (`FICLONE`); false once the file system has refused.
    pub reflinks: bool,
    /// How many device nodes were left out, which take rights to make.
    pub skipped: u64,
}

impl Copier {
    /// A copier whose copies go into this empty directory.
    ///
    /// # Errors
    /// It can't be opened.
    pub fn new(into: &Path, how: How) -> Result<Copier> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let into = rustix::fs::open(into, flags, Mode::empty()).at("copy into", into.display())?;
        Ok(Copier { how, into: vec![into], first: HashMap::new(), reflinks: how == How::Copy, skipped: 0 })
    }

    fn top(&self) -> &OwnedFd {
        // The root is never taken off: `leave` takes off what `enter` put on.
        self.into.last().unwrap_or_else(|| unreachable!("a copier always has its root"))
    }

    fn file(&mut self, node: &Node<'_>) -> rustix::io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let from = openat(node.parent, node.name, flags, Mode::empty())?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let to = openat(self.top(), node.name, flags, Mode::RUSR | Mode::WUSR)?;
        if self.reflinks && ioctl_ficlone(&to, &from).is_err() {
            self.reflinks = false;
        }
        let (from, to) = (File::from(from), File::from(to));
        if !self.reflinks {
            copy(&from, &to, node.stat.st_size as u64)?;
        }
        own(fchown(&to, Some(uid(node)), Some(gid(node))))?;
        fchmod(&to, mode(node))?;
        give(&xattrs(node.parent, node.name)?, |name, value| fsetxattr(&to, name, value, XattrFlags::empty()))?;
        futimens(&to, &times(node))
    }

    fn other(&mut self, node: &Node<'_>) -> rustix::io::Result<()> {
        let to = self.top();
        match node.kind() {
            FileType::Symlink => symlinkat(readlinkat(node.parent, node.name, Vec::new())?, to, node.name)?,
            kind => mknodat(to, node.name, kind, mode(node), node.stat.st_rdev)?,
        }
        own(chownat(to, node.name, Some(uid(node)), Some(gid(node)), AtFlags::SYMLINK_NOFOLLOW))?;
        if node.kind() != FileType::Symlink {
            chmodat(to, node.name, mode(node), AtFlags::empty())?;
        }
        let all = xattrs(node.parent, node.name)?;
        if !all.is_empty() {
            let fd = openat(to, node.name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
            let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
            give(&all, |name, value| setxattr(&path[..], name, value, XattrFlags::empty()))?;
        }
        utimensat(to, node.name, &times(node), AtFlags::SYMLINK_NOFOLLOW)
    }

    fn hard(&mut self, node: &Node<'_>, first: &[u8]) -> rustix::io::Result<()> {
        // The copy has real directories where this path has them: nobody changes it meanwhile.
        linkat(&self.into[0], first, self.top(), node.name, AtFlags::empty())
    }

    /// Makes a directory like one of the source and leaves its attributes for later.
    fn directory(&mut self, node: &Node<'_>) -> rustix::io::Result<()> {
        if !node.path.is_empty() {
            mkdirat(self.top(), node.name, Mode::RWXU)?;
            let made = open_directory(self.top(), node.name)?;
            self.into.push(made);
        }
        Ok(())
    }
}

impl Visitor for Copier {
    fn enter(&mut self, node: &Node<'_>) -> Result<()> {
        self.directory(node).at("copy the directory", show(node.path))
    }

    fn leave(&mut self, node: &Node<'_>) -> Result<()> {
        let step = "copy the directory";
        let own_fd;
        let fd = if node.path.is_empty() {
            self.top()
        } else {
            own_fd = self.into.pop();
            match &own_fd {
                Some(fd) => fd,
                None => return Ok(()),
            }
        };
        (|| {
            own(fchown(fd, Some(uid(node)), Some(gid(node))))?;
            fchmod(fd, mode(node))?;
            let mut all = xattrs(node.parent, node.name)?;
            if self.how == How::Link {
                // A layer stays one: what overlayfs was told comes along.
                all.extend(overlay(node)?);
            }
            give(&all, |name, value| fsetxattr(fd, name, value, XattrFlags::empty()))?;
            futimens(fd, &times(node))
        })()
        .at(step, show(node.path))
    }

    fn leaf(&mut self, node: &Node<'_>) -> Result<()> {
        let step = "copy the file";
        if self.how == How::Link {
            return linkat(node.parent, node.name, self.top(), node.name, AtFlags::empty()).at(step, show(node.path));
        }
        if node.stat.st_nlink > 1 {
            let identity = (node.stat.st_dev, node.stat.st_ino);
            if let Some(first) = self.first.get(&identity).cloned() {
                return self.hard(node, &first).at(step, show(node.path));
            }
            self.first.insert(identity, node.path.to_vec());
        }
        match node.kind() {
            FileType::RegularFile => self.file(node).map_err(|errno| full(step, node, errno)),
            FileType::Socket => Ok(()),
            _ => match self.other(node) {
                Err(Errno::PERM) if matches!(node.kind(), FileType::CharacterDevice | FileType::BlockDevice) => {
                    self.skipped += 1;
                    Ok(())
                }
                other => other.at(step, show(node.path)),
            },
        }
    }
}

/// The parts of a file that hold data (lseek(2)); `None` where the file system can't tell.
pub fn parts(file: &File, size: u64) -> Option<Vec<(u64, u64)>> {
    let mut parts = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            // A hole to the end.
            Err(Errno::NXIO) => break,
            Err(_) => return None,
        };
        let end = seek(file, SeekFrom::Hole(start)).ok()?.min(size);
        parts.push((start, end.checked_sub(start)?));
        at = end;
    }
    Some(parts)
}

/// Copies the parts of a file that hold data, so that a file of holes takes no more room and no more time.
pub fn copy(from: &File, to: &File, size: u64) -> rustix::io::Result<()> {
    for (offset, length) in parts(from, size).unwrap_or_else(|| vec![(0, size)]) {
        rustix::fs::seek(from, SeekFrom::Start(offset))?;
        rustix::fs::seek(to, SeekFrom::Start(offset))?;
        // copy_file_range(2) or sendfile(2), by the standard library.
        let copied = std::io::copy(&mut std::io::Read::take(from, length), &mut &*to);
        copied.map_err(|error| error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))?;
    }
    ftruncate(to, size)
}

fn full(step: &str, node: &Node<'_>, errno: Errno) -> Error {
    let error = Error::os(step, show(node.path), errno);
    match errno {
        Errno::NOSPC | Errno::DQUOT => error.hint("make room on the disk, or copy to another one"),
        _ => error,
    }
}

/// What overlayfs was told of a directory.
fn overlay(node: &Node<'_>) -> rustix::io::Result<Vec<Xattr>> {
    let fd = open_directory(node.parent, node.name)?;
    let mut found = Vec::new();
    for name in OPAQUE {
        let mut value = [0_u8; 8];
        if let Ok(count) = rustix::fs::fgetxattr(&fd, name, &mut value) {
            found.push((name.as_bytes().to_vec(), value[..count].to_vec()));
        }
    }
    Ok(found)
}

fn uid(node: &Node<'_>) -> Uid {
    Uid::from_raw(node.stat.st_uid)
}

fn gid(node: &Node<'_>) -> Gid {
    Gid::from_raw(node.stat.st_gid)
}

fn mode(node: &Node<'_>) -> Mode {
    Mode::from_raw_mode(node.stat.st_mode & 0o7777)
}

fn times(node: &Node<'_>) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        last_modification: Timespec { tv_sec: node.stat.st_mtime as _, tv_nsec: node.stat.st_mtime_nsec as _ },
    }
}

/// An owner who can't be had here stays whom the source has given it to: the copying user.
fn own(result: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match result {
        Err(Errno::INVAL | Errno::PERM) => Ok(()),
        other => other,
    }
}

/// Sets attributes; those that can't be had here are left out.
fn give(all: &[Xattr], mut set: impl FnMut(&[u8], &[u8]) -> rustix::io::Result<()>) -> rustix::io::Result<()> {
    for (name, value) in all {
        match set(name, value) {
            Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            other => other?,
        }
    }
    Ok(())
}
