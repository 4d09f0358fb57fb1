//! Owner, mode, extended attributes and times of unpacked entries.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, chmodat, chownat, fchmod, fchown,
    fsetxattr, futimens, openat, setxattr, utimensat,
};
use rustix::io::Errno;

use super::destination::split;
use super::errors::{failed, invalid};
use super::unpacker::Unpacker;
use crate::tar::{EntryKind, TarEntry};
use nsrs_base::error::Result;
use nsrs_base::error::show;
use nsrs_base::tree::marks::is_mark;
use nsrs_base::tree::open_directory;

/// Attributes of this size, in bytes, fit on ext4 in any case: its blocks have 4096 bytes, or 1024.
const SURE_XATTRS: usize = 900;

impl Unpacker<'_> {
    /// Sets owner, mode, extended attributes and time of a new file.
    pub(super) fn file_attributes(&mut self, file: &File, entry: &TarEntry) -> Result<()> {
        self.owner(entry, |uid, gid| fchown(file, Some(uid), Some(gid)))?;
        // It was made with its mode, except for these bits.
        if entry.mode & (self.umask | 0o7000) != 0 {
            fchmod(file, Mode::from(entry.mode)).map_err(|errno| failed("set the mode", entry, errno))?;
        }
        self.xattrs(entry, |name, value| fsetxattr(file, name, value, XattrFlags::empty()))?;
        futimens(file, &times(entry)).map_err(|errno| failed("set the time", entry, errno))
    }

    /// Sets them for what can't be opened: a link, a device, a FIFO. It was just made, so the name still leads to it.
    pub(super) fn attributes(&mut self, directory: &OwnedFd, name: &[u8], entry: &TarEntry) -> Result<()> {
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        self.owner(entry, |uid, gid| chownat(directory, name, Some(uid), Some(gid), nofollow))?;
        if entry.kind != EntryKind::Symlink {
            chmodat(directory, name, Mode::from(entry.mode), AtFlags::empty())
                .map_err(|errno| failed("set the mode", entry, errno))?;
        }
        if !entry.xattrs.is_empty() {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = openat(directory, name, flags, Mode::empty()).map_err(|errno| failed("open", entry, errno))?;
            // An O_PATH descriptor takes attributes only by this path, which leads to the link itself.
            let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
            self.xattrs(entry, |name, value| setxattr(&path[..], name, value, XattrFlags::empty()))?;
        }
        utimensat(directory, name, &times(entry), nofollow).map_err(|errno| failed("set the time", entry, errno))
    }

    fn owner(&mut self, entry: &TarEntry, chown: impl FnOnce(Uid, Gid) -> rustix::io::Result<()>) -> Result<()> {
        let id = |id: u64, what: &str| {
            let id = u32::try_from(id).ok().filter(|id| *id != u32::MAX);
            id.ok_or_else(|| invalid(format!("its {what} is not a valid id")))
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
            Err(errno) => {
                let error = failed("set the owner", entry, errno);
                Err(match errno {
                    Errno::INVAL => error
                        .because(format!("{uid}:{gid} isn't mapped here"))
                        .hint("give this user a larger range in /etc/subuid and /etc/subgid"),
                    _ => error,
                })
            }
        }
    }

    fn xattrs(&mut self, entry: &TarEntry, mut set: impl FnMut(&[u8], &[u8]) -> rustix::io::Result<()>) -> Result<()> {
        for (name, value) in &entry.xattrs {
            // Attributes of overlayfs could redirect a directory to another image.
            let known = [&b"user."[..], b"security.capability", b"system.posix_acl_", b"trusted."]
                .iter()
                .any(|prefix| name.starts_with(prefix));
            if is_mark(name) || !known || name.len() > 255 || name.contains(&0) {
                self.dropped_xattrs += 1;
                continue;
            }
            match set(name, value) {
                Ok(()) => {}
                // Unsupported by the file system or for this type of file, or reserved for the host's root.
                Err(Errno::OPNOTSUPP | Errno::PERM) => self.dropped_xattrs += 1,
                Err(errno) => {
                    let error = failed("set the attribute", entry, errno).because(show(name));
                    return Err(match errno {
                        Errno::NOSPC if value.len() > SURE_XATTRS => error.hint(
                            "ext4 stores at most 4 kB of attributes for a file: set NSRS_IMAGE_DIR to a disk with XFS, or leave it out",
                        ),
                        _ => error,
                    });
                }
            }
        }
        Ok(())
    }

    /// Sets the attributes of directories, the innermost first.
    pub(super) fn directories(&mut self) -> Result<()> {
        for (path, entry) in std::mem::take(&mut self.directories).into_iter().rev() {
            let fd = if path.is_empty() {
                self.destination.existing(b"").and_then(|root| open_directory(&root, b"."))
            } else {
                let (parent, name) = split(&path);
                self.destination.existing(parent).and_then(|parent| open_directory(&parent, name))
            };
            let fd = match fd {
                Ok(fd) => fd,
                // Something else has replaced it, through another path.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(errno) => return Err(failed("open the directory", &entry, errno)),
            };
            self.owner(&entry, |uid, gid| fchown(&fd, Some(uid), Some(gid)))?;
            fchmod(&fd, Mode::from(entry.mode)).map_err(|errno| failed("set the mode", &entry, errno))?;
            self.xattrs(&entry, |name, value| fsetxattr(&fd, name, value, XattrFlags::empty()))?;
            futimens(&fd, &times(&entry)).map_err(|errno| failed("set the time", &entry, errno))?;
            self.destination.implicit.remove(&path);
        }
        Ok(())
    }
}

fn times(entry: &TarEntry) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: entry.mtime.0, tv_nsec: entry.mtime.1.into() },
    }
}
