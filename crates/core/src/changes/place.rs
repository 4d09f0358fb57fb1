//! Bringing one file of a layer to its place in the real tree: whole or not at all.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, chmod, chownat,
    fchmod, fchown, fsetxattr, fstat, futimens, ioctl_ficlone, linkat, mknodat, openat, readlinkat, removexattr,
    renameat_with, setxattr, symlinkat, unlinkat, utimensat,
};
use rustix::io::{Errno, Result};

use super::walk::open_own;
use crate::image::tree::copy::copy;
use crate::image::tree::xattrs;

/// Puts a file that is no directory, or another name of one that was put before, in place of whatever has the name.
/// `new`: nothing may have it.
///
/// # Errors
/// Whatever keeps it from having content, owner, mode and attributes of the layer's; nothing is left then.
pub fn put(
    from: impl AsFd,
    name: &[u8],
    stat: &Stat,
    to: &OwnedFd,
    first: Option<(&OwnedFd, &[u8])>,
    new: bool,
) -> Result<()> {
    let temporary = format!(".nsrs-apply-{}", std::process::id());
    let _ = unlinkat(to, temporary.as_str(), AtFlags::empty());
    let made = match first {
        Some((directory, first)) => linkat(directory, first, to, temporary.as_str(), AtFlags::empty()),
        None => make(from.as_fd(), name, stat, to, &temporary),
    };
    let flags = if new { RenameFlags::NOREPLACE } else { RenameFlags::empty() };
    let done = made.and_then(|()| renameat_with(to, temporary.as_str(), to, name, flags));
    // Two names of the same file: then rename(2) does nothing, and leaves both.
    let _ = unlinkat(to, temporary.as_str(), AtFlags::empty());
    done
}

fn make(from: rustix::fd::BorrowedFd<'_>, name: &[u8], stat: &Stat, to: &OwnedFd, temporary: &str) -> Result<()> {
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    let kind = FileType::from_raw_mode(stat.st_mode);
    let times = times(stat);
    if kind == FileType::RegularFile {
        let source = File::from(open_own(from, name, OFlags::empty())?);
        if fstat(&source)?.st_ino != stat.st_ino {
            return Err(Errno::STALE);
        }
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(openat(to, temporary, flags, Mode::RUSR | Mode::WUSR)?);
        if ioctl_ficlone(&file, &source).is_err() {
            copy(&source, &file, stat.st_size as u64)?;
        }
        give(&file, stat)?;
        fchmod(&file, mode)?;
        for (key, value) in xattrs(from, name)? {
            fsetxattr(&file, &key[..], &value, XattrFlags::empty())?;
        }
        return futimens(&file, &times);
    }
    match kind {
        FileType::Symlink => symlinkat(readlinkat(from, name, Vec::new())?, to, temporary)?,
        kind => mknodat(to, temporary, kind, Mode::RUSR | Mode::WUSR, stat.st_rdev)?,
    }
    let made = openat(to, temporary, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let now = fstat(&made)?;
    if FileType::from_raw_mode(now.st_mode) != kind {
        return Err(Errno::STALE);
    }
    // By descriptor: whoever may write to the directory could put another file in the name's place.
    if (now.st_uid, now.st_gid) != (stat.st_uid, stat.st_gid) {
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        chownat(&made, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
    }
    let path = format!("/proc/self/fd/{}", made.as_raw_fd());
    if kind != FileType::Symlink {
        chmod(&path[..], mode)?;
    }
    for (key, value) in xattrs(from, name)? {
        setxattr(&path[..], &key[..], &value, XattrFlags::empty())?;
    }
    utimensat(to, temporary, &times, AtFlags::SYMLINK_NOFOLLOW)
}

/// Gives an open directory the owner, mode and attributes of the layer's; with `times`, its times too.
///
/// # Errors
/// Whatever keeps it from having them.
pub fn dress(directory: &OwnedFd, from: impl AsFd, name: &[u8], stat: &Stat, with_times: bool) -> Result<()> {
    give(directory, stat)?;
    fchmod(directory, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let wanted = xattrs(&from, name)?;
    let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
    for (key, _) in xattrs(directory, b".")?.iter().filter(|(key, _)| wanted.iter().all(|(other, _)| other != key)) {
        removexattr(&path[..], &key[..])?;
    }
    for (key, value) in wanted {
        fsetxattr(directory, &key[..], &value, XattrFlags::empty())?;
    }
    if with_times { futimens(directory, &times(stat)) } else { Ok(()) }
}

fn give(file: impl AsFd, stat: &Stat) -> Result<()> {
    let now = fstat(&file)?;
    if (now.st_uid, now.st_gid) == (stat.st_uid, stat.st_gid) {
        return Ok(());
    }
    fchown(file, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
}

fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        last_modification: Timespec { tv_sec: stat.st_mtime as _, tv_nsec: stat.st_mtime_nsec as _ },
    }
}
