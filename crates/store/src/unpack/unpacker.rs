//! Makes the entries of an archive in the destination.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::io::BufRead;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, fchmod, makedev, mkdirat, mknodat, openat, statat, symlinkat};
use rustix::io::Errno;

use super::destination::{DestinationTree, clean, split};
use super::errors::{failed, invalid};
use super::{UnpackOptions, Unpacked, data};
use crate::digest::Digest;
use crate::tar::read::TarReader;
use crate::tar::{EntryKind, TarEntry};
use nsrs_base::error::{At, Result};
use nsrs_base::tree::marks::is_whiteout;
use nsrs_base::tree::open_directory;
use nsrs_base::tree::remove::remove;

/// The prefix of whiteouts, and of aufs' own files (OCI image specification, layer.md).
pub(super) const WHITEOUT_PREFIX: &[u8] = b".wh.";

/// The destination, and what is left to do when all entries are made.
pub(super) struct Unpacker<'a> {
    pub(super) options: &'a UnpackOptions,
    pub(super) destination: DestinationTree,
    /// Permission bits that new files don't get.
    pub(super) umask: u32,
    /// Who owns new files: user and group.
    pub(super) own: (u32, u32),
    /// By path. They get their attributes at the end.
    pub(super) directories: BTreeMap<Vec<u8>, TarEntry>,
    /// The targets of hard links that come before them, by the path of the link.
    pub(super) links: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) opaque: bool,
    pub(super) xattr_whiteouts: bool,
    /// The directories that have whiteouts, by path.
    pub(super) whiteouts: BTreeSet<Vec<u8>>,
    /// Devices that were left out, by path.
    pub(super) skipped: HashSet<Vec<u8>>,
    /// Entries whose owner couldn't be had, see [`Unpacked::squashed`].
    pub(super) squashed: u64,
    /// Extended attributes that were left out, see [`Unpacked::dropped_xattrs`].
    pub(super) dropped_xattrs: u64,
}

fn umask() -> Option<u32> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let field = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(field.trim(), 8).ok()
}

impl<'a> Unpacker<'a> {
    pub(super) fn open(directory: &Path, options: &'a UnpackOptions) -> Result<Unpacker<'a>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(directory, flags, Mode::empty()).at("unpack into", directory.display())?;
        // Independent of the umask, if the archive has no entry for it.
        fchmod(&root, Mode::from(0o755)).at("unpack into", directory.display())?;
        Ok(Unpacker {
            options,
            destination: DestinationTree::new(root, options.user_xattrs),
            // If unknown, as if it removed all.
            umask: umask().unwrap_or(0o777),
            own: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
            directories: BTreeMap::new(),
            links: BTreeMap::new(),
            opaque: false,
            xattr_whiteouts: false,
            whiteouts: BTreeSet::new(),
            skipped: HashSet::new(),
            squashed: 0,
            dropped_xattrs: 0,
        })
    }

    /// Makes what one entry of the archive says, with the file's data from `reader`, or refuses it.
    pub(super) fn put<R: BufRead>(&mut self, entry: &TarEntry, reader: &mut TarReader<R>) -> Result<()> {
        let path = clean(&entry.path)?;
        if path.is_empty() {
            if entry.kind != EntryKind::Directory {
                return Err(invalid("the root is not a directory"));
            }
            self.directories.insert(path, entry.clone());
            return Ok(());
        }
        let (parent, name) = split(&path);
        if parent.split(|byte| *byte == b'/').any(|name| name.starts_with(WHITEOUT_PREFIX)) {
            return Err(invalid("it is inside a whiteout"));
        }
        if name.starts_with(WHITEOUT_PREFIX) {
            return self.whiteout(parent, name);
        }
        if !self.links.is_empty() {
            self.links.remove(&path);
        }
        let directory = self.destination.directory(parent)?;
        match entry.kind {
            EntryKind::Directory => return self.directory(&directory, &path, name, entry),
            EntryKind::HardLink => return self.link(&directory, &path, name, entry),
            EntryKind::File => self.file(&directory, &path, name, entry, reader)?,
            EntryKind::Symlink => {
                if entry.link.is_empty() {
                    return Err(invalid("a link to nothing"));
                }
                self.replacing(&directory, &path, name, |directory| symlinkat(&entry.link[..], directory, name))
                    .map_err(|errno| failed("make the link", entry, errno))?;
                self.attributes(&directory, name, entry)?;
            }
            EntryKind::CharDevice | EntryKind::BlockDevice | EntryKind::Fifo => {
                self.special(&directory, &path, name, entry)?
            }
        }
        Ok(())
    }

    /// Makes something under a name, in place of what may be there.
    pub(super) fn replacing<T>(
        &mut self,
        directory: &OwnedFd,
        path: &[u8],
        name: &[u8],
        mut make: impl FnMut(&OwnedFd) -> rustix::io::Result<T>,
    ) -> rustix::io::Result<T> {
        match make(directory) {
            Err(Errno::EXIST) => {}
            other => return other,
        }
        let name = std::ffi::CString::new(name).map_err(|_| Errno::INVAL)?;
        remove(directory, &name)?;
        self.destination.forget();
        // The directories there are gone.
        self.directories.remove(path);
        let (first, last) = ([path, b"/"].concat(), [path, b"0"].concat());
        let below: Vec<Vec<u8>> = self.directories.range(first..last).map(|(gone, _)| gone.clone()).collect();
        for gone in below {
            self.directories.remove(&gone);
        }
        make(directory)
    }

    fn file<R: BufRead>(
        &mut self,
        directory: &OwnedFd,
        path: &[u8],
        name: &[u8],
        entry: &TarEntry,
        reader: &mut TarReader<R>,
    ) -> Result<()> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Without set-user-ID until it is complete and has its owner.
        let mode = Mode::from(entry.mode & 0o777);
        let file = self
            .replacing(directory, path, name, |directory| openat(directory, name, flags, mode))
            .map_err(|errno| failed("make the file", entry, errno))?;
        let file = File::from(file);
        data::write(&file, entry, reader)?;
        self.file_attributes(&file, entry)
    }

    fn directory(&mut self, parent: &OwnedFd, path: &[u8], name: &[u8], entry: &TarEntry) -> Result<()> {
        let failed = |errno| failed("make the directory", entry, errno);
        match mkdirat(parent, name, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                    let hidden = is_whiteout(parent, name, &stat);
                    self.replacing(parent, path, name, |parent| mkdirat(parent, name, Mode::RWXU)).map_err(failed)?;
                    if hidden {
                        // The whiteout hid what is below; the directory still does.
                        let made = open_directory(parent, name).map_err(failed)?;
                        self.destination.mark_opaque(&made).map_err(failed)?;
                    }
                }
            }
            Err(errno) => return Err(failed(errno)),
        }
        // Its attributes are set at the end: they may remove the right to write, and entries change the time.
        self.directories.insert(path.to_vec(), entry.clone());
        Ok(())
    }

    fn special(&mut self, directory: &OwnedFd, path: &[u8], name: &[u8], entry: &TarEntry) -> Result<()> {
        let kind = match entry.kind {
            EntryKind::CharDevice => FileType::CharacterDevice,
            EntryKind::BlockDevice => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        if kind != FileType::Fifo && !self.options.devices {
            self.skip(path);
            return Ok(());
        }
        let device = makedev(entry.device.0, entry.device.1);
        let made = self.replacing(directory, path, name, |directory| {
            mknodat(directory, name, kind, Mode::from(entry.mode & 0o777), device)
        });
        match made {
            Ok(()) => self.attributes(directory, name, entry),
            Err(Errno::PERM) if kind != FileType::Fifo => {
                self.skip(path);
                Ok(())
            }
            Err(errno) => Err(failed("make the device", entry, errno)),
        }
    }

    /// Leaves out a device, or another name of one.
    pub(super) fn skip(&mut self, path: &[u8]) {
        self.skipped.insert(path.to_vec());
    }

    pub(super) fn finish(self, diff_id: Digest, size: u64, entries: u64) -> Result<Unpacked> {
        let mut implicit: Vec<&Vec<u8>> = self.destination.implicit.iter().collect();
        implicit.sort_unstable();
        Ok(Unpacked {
            diff_id,
            size,
            entries,
            opaque: self.opaque,
            user_xattrs: self.options.user_xattrs,
            xattr_whiteouts: self.xattr_whiteouts,
            skipped_devices: self.skipped.len() as u64,
            squashed: self.squashed,
            dropped_xattrs: self.dropped_xattrs,
            implicit: implicit.into_iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect(),
            whiteouts: self.whiteouts.iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect(),
        })
    }
}
