//! Entries of an archive, made in the destination.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::io::BufRead;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, chmodat, chownat, fchmod,
    fchown, fsetxattr, futimens, makedev, mkdirat, mknodat, openat, setxattr, statat, symlinkat, utimensat,
};
use rustix::io::Errno;

use super::tree::{Tree, clean, split};
use super::{Options, Unpacked, data, whiteout};
use crate::digest::Digest;
use crate::tar::read::Reader;
use crate::tar::{Entry, Kind};
use nsrs_base::error::show;
use nsrs_base::error::{At, Code, Error, Result};
use nsrs_base::tree::marks::{is_mark, is_whiteout};
use nsrs_base::tree::open_directory;
use nsrs_base::tree::remove::remove;

/// So many bytes of attributes have room on ext4 in any case: its blocks have 4096 bytes, or 1024.
const MOST_XATTRS: usize = 900;

/// The destination and what is to be done at the end.
pub(super) struct Place<'a> {
    pub(super) options: &'a Options,
    pub(super) tree: Tree,
    /// The rights that new files don't get.
    umask: u32,
    /// Who makes files here: those needn't be given to them.
    own: (u32, u32),
    directories: BTreeMap<Vec<u8>, Entry>,
    /// Hard links to what hasn't come yet, by their own path.
    pub(super) links: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) opaque: bool,
    pub(super) xattr_whiteouts: bool,
    /// Directories that have whiteouts.
    pub(super) whiteouts: BTreeSet<Vec<u8>>,
    /// Devices that were left out, by path.
    pub(super) skipped: HashSet<Vec<u8>>,
    squashed: u64,
    dropped_xattrs: u64,
}

pub(super) fn invalid(why: impl Into<String>) -> Error {
    Error::new(Code::ImageInvalid, "unpack", why)
}

fn umask() -> Option<u32> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let field = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(field.trim(), 8).ok()
}

impl<'a> Place<'a> {
    pub(super) fn open(directory: &Path, options: &'a Options) -> Result<Place<'a>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(directory, flags, Mode::empty()).at("unpack into", directory.display())?;
        // Whatever the umask left, if the archive has no entry for it.
        fchmod(&root, Mode::from(0o755)).at("unpack into", directory.display())?;
        Ok(Place {
            options,
            tree: Tree::new(root, options.user_xattrs),
            // Unknown: as if it took everything.
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

    /// Makes one entry.
    pub(super) fn put<R: BufRead>(&mut self, entry: &Entry, reader: &mut Reader<R>) -> Result<()> {
        let path = clean(&entry.path)?;
        if path.is_empty() {
            if entry.kind != Kind::Directory {
                return Err(invalid("the root is no directory"));
            }
            self.directories.insert(path, entry.clone());
            return Ok(());
        }
        let (parent, name) = split(&path);
        if parent.split(|byte| *byte == b'/').any(|name| name.starts_with(whiteout::PREFIX)) {
            return Err(invalid("it is inside of a whiteout"));
        }
        if name.starts_with(whiteout::PREFIX) {
            return self.whiteout(parent, name);
        }
        if !self.links.is_empty() {
            self.links.remove(&path);
        }
        let directory = self.tree.directory(parent)?;
        match entry.kind {
            Kind::Directory => return self.directory(&directory, &path, name, entry),
            Kind::HardLink => return self.link(&directory, &path, name, entry),
            Kind::File => self.file(&directory, &path, name, entry, reader)?,
            Kind::Symlink => {
                if entry.link.is_empty() {
                    return Err(invalid("a link to nothing"));
                }
                self.replacing(&directory, &path, name, |directory| symlinkat(&entry.link[..], directory, name))
                    .map_err(|errno| failed("make the link", entry, errno))?;
                self.attributes(&directory, name, entry)?;
            }
            Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => self.special(&directory, &path, name, entry)?,
        }
        Ok(())
    }

    /// Makes something under a name, in the place of what may be there.
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
        self.tree.forget();
        // What was known of directories there concerns nobody any more.
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
        entry: &Entry,
        reader: &mut Reader<R>,
    ) -> Result<()> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Without set-user-ID until it is whole and has its owner.
        let mode = Mode::from(entry.mode & 0o777);
        let file = self
            .replacing(directory, path, name, |directory| openat(directory, name, flags, mode))
            .map_err(|errno| failed("make the file", entry, errno))?;
        let file = File::from(file);
        data::write(&file, entry, reader)?;
        self.owner(entry, |uid, gid| fchown(&file, Some(uid), Some(gid)))?;
        // It was made with its mode, as far as that goes.
        if entry.mode & (self.umask | 0o7000) != 0 {
            fchmod(&file, Mode::from(entry.mode)).map_err(|errno| failed("set the mode", entry, errno))?;
        }
        self.xattrs(entry, |name, value| fsetxattr(&file, name, value, XattrFlags::empty()))?;
        futimens(&file, &times(entry)).map_err(|errno| failed("set the time", entry, errno))
    }

    fn directory(&mut self, parent: &OwnedFd, path: &[u8], name: &[u8], entry: &Entry) -> Result<()> {
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
                        self.tree.mark_opaque(&made).map_err(failed)?;
                    }
                }
            }
            Err(errno) => return Err(failed(errno)),
        }
        // The rest at the end: it may take away the right to write, and what is written changes the time.
        self.directories.insert(path.to_vec(), entry.clone());
        Ok(())
    }

    fn special(&mut self, directory: &OwnedFd, path: &[u8], name: &[u8], entry: &Entry) -> Result<()> {
        let kind = match entry.kind {
            Kind::CharDevice => FileType::CharacterDevice,
            Kind::BlockDevice => FileType::BlockDevice,
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

    /// Owner, mode, extended attributes and time of what isn't opened: a link, a device, a FIFO. It was just made, so the
    /// name is still that.
    fn attributes(&mut self, directory: &OwnedFd, name: &[u8], entry: &Entry) -> Result<()> {
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        self.owner(entry, |uid, gid| chownat(directory, name, Some(uid), Some(gid), nofollow))?;
        if entry.kind != Kind::Symlink {
            chmodat(directory, name, Mode::from(entry.mode), AtFlags::empty())
                .map_err(|errno| failed("set the mode", entry, errno))?;
        }
        if !entry.xattrs.is_empty() {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = openat(directory, name, flags, Mode::empty()).map_err(|errno| failed("open", entry, errno))?;
            // An O_PATH descriptor takes no attributes but by this name, which leads to the link itself.
            let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
            self.xattrs(entry, |name, value| setxattr(&path[..], name, value, XattrFlags::empty()))?;
        }
        utimensat(directory, name, &times(entry), nofollow).map_err(|errno| failed("set the time", entry, errno))
    }

    /// Gives it to its owner.
    fn owner(&mut self, entry: &Entry, chown: impl FnOnce(Uid, Gid) -> rustix::io::Result<()>) -> Result<()> {
        let id = |id: u64, what: &str| {
            let id = u32::try_from(id).ok().filter(|id| *id != u32::MAX);
            id.ok_or_else(|| invalid(format!("its {what} is no id that there can be")))
        };
        let (uid, gid) = (id(entry.uid, "owner")?, id(entry.gid, "group")?);
        // Directories get their set-group-ID bit and their default ACL at the end: until then nothing is inherited.
        if (uid, gid) == self.own {
            return Ok(());
        }
        match chown(Uid::from_raw(uid), Gid::from_raw(gid)) {
            Ok(()) => Ok(()),
            Err(Errno::INVAL | Errno::PERM) if self.options.squash => {
                self.squashed += 1;
                Ok(())
            }
            Err(errno) => Err(failed("give it to its owner", entry, errno)),
        }
    }

    fn xattrs(&mut self, entry: &Entry, mut set: impl FnMut(&[u8], &[u8]) -> rustix::io::Result<()>) -> Result<()> {
        for (name, value) in &entry.xattrs {
            // An archive that could tell overlayfs where a directory "really" is would read other images.
            let known = [&b"user."[..], b"security.capability", b"system.posix_acl_", b"trusted."]
                .iter()
                .any(|prefix| name.starts_with(prefix));
            if is_mark(name) || !known || name.len() > 255 || name.contains(&0) {
                self.dropped_xattrs += 1;
                continue;
            }
            match set(name, value) {
                Ok(()) => {}
                // The file system has none of the kind; the kind of file has none; only the host's root has them.
                Err(Errno::OPNOTSUPP | Errno::PERM) => self.dropped_xattrs += 1,
                Err(errno) => {
                    let error = failed("set the attribute", entry, errno).because(show(name));
                    return Err(match errno {
                        Errno::NOSPC if value.len() > MOST_XATTRS => error.hint(
                            "ext4 has room for 4 kB of them in a file: set NSRS_IMAGE_DIR to a disk with XFS, say, or leave it out",
                        ),
                        _ => error,
                    });
                }
            }
        }
        Ok(())
    }

    /// Gives directories their attributes, the innermost first.
    pub(super) fn directories(&mut self) -> Result<()> {
        for (path, entry) in std::mem::take(&mut self.directories).into_iter().rev() {
            let fd = if path.is_empty() {
                self.tree.existing(b"").and_then(|root| open_directory(&root, b"."))
            } else {
                let (parent, name) = split(&path);
                self.tree.existing(parent).and_then(|parent| open_directory(&parent, name))
            };
            let fd = match fd {
                Ok(fd) => fd,
                // Something else has taken its place, by another path to it.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(errno) => return Err(failed("open the directory", &entry, errno)),
            };
            self.owner(&entry, |uid, gid| fchown(&fd, Some(uid), Some(gid)))?;
            fchmod(&fd, Mode::from(entry.mode)).map_err(|errno| failed("set the mode", &entry, errno))?;
            self.xattrs(&entry, |name, value| fsetxattr(&fd, name, value, XattrFlags::empty()))?;
            futimens(&fd, &times(&entry)).map_err(|errno| failed("set the time", &entry, errno))?;
            self.tree.implicit.remove(&path);
        }
        Ok(())
    }

    pub(super) fn finish(self, diff_id: Digest, size: u64, entries: u64) -> Result<Unpacked> {
        let mut implicit: Vec<&Vec<u8>> = self.tree.implicit.iter().collect();
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

pub(super) fn failed(step: &str, entry: &Entry, errno: Errno) -> Error {
    let error = Error::os(step, show(&entry.path), errno);
    match errno {
        Errno::INVAL if step == "give it to its owner" => error
            .because(format!("{}:{} isn't mapped here", entry.uid, entry.gid))
            .hint("give this user a larger range in /etc/subuid and /etc/subgid"),
        _ => error,
    }
}

fn times(entry: &Entry) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: entry.mtime.0, tv_nsec: entry.mtime.1.into() },
    }
}
