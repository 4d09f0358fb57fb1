//! Bringing one file of a layer to its place in the real tree: whole or not at all.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, chmod,
    chownat, fstat, futimens, ioctl_ficlone, linkat, mknodat, openat, readlinkat, removexattr, renameat_with, setxattr,
    symlinkat, unlinkat, utimensat,
};
use rustix::io::{Errno, Result};

use super::open::{Open, link_to};
use crate::image::tree::copy::copy;
use crate::image::tree::{Xattr, xattrs, xattrs_at, xattrs_of};

/// The attribute that holds who has which rights besides the mode.
const ACCESS_LIST: &[u8] = b"system.posix_acl_access";

/// Puts a file that is no directory, or another name of the open file `twin`, in place of whatever has the name. `new`:
/// nothing may have it.
///
/// # Errors
/// Whatever keeps it from having content, owner, mode and attributes of the layer's; nothing is left then.
pub fn put(from: &Open, name: &[u8], stat: &Stat, to: &Open, twin: Option<&OwnedFd>, new: bool) -> Result<()> {
    let temporary = format!(".nsrs-apply-{}", std::process::id());
    let _ = unlinkat(to, temporary.as_str(), AtFlags::empty());
    let made = match twin {
        // By descriptor: the name that it was opened by may be another file's by now.
        Some(twin) => linkat(CWD, link_to(twin), to, temporary.as_str(), AtFlags::SYMLINK_FOLLOW),
        None => make(from, name, stat, to, &temporary),
    };
    let flags = if new { RenameFlags::NOREPLACE } else { RenameFlags::empty() };
    let done = made.and_then(|()| renameat_with(to, temporary.as_str(), to, name, flags));
    // Two names of the same file: then rename(2) does nothing, and leaves both.
    let _ = unlinkat(to, temporary.as_str(), AtFlags::empty());
    done
}

fn make(from: &Open, name: &[u8], stat: &Stat, to: &Open, temporary: &str) -> Result<()> {
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    let kind = FileType::from_raw_mode(stat.st_mode);
    let times = times(stat);
    if kind == FileType::RegularFile {
        let opened = Open::file(from, name)?;
        let source = opened.read()?;
        if opened.stat.st_ino != stat.st_ino {
            return Err(Errno::STALE);
        }
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(openat(to, temporary, flags, Mode::RUSR | Mode::WUSR)?);
        if ioctl_ficlone(&file, &source).is_err() {
            copy(&source, &file, stat.st_size as u64)?;
        }
        give(&file, stat)?;
        clothe(&link_to(&file), &xattrs_of(&opened)?, mode)?;
        return futimens(&file, &times);
    }
    match kind {
        FileType::Symlink => symlinkat(readlinkat(from, name, Vec::new())?, to, temporary)?,
        kind => mknodat(to, temporary, kind, Mode::RUSR | Mode::WUSR, stat.st_rdev)?,
    }
    let made = openat(to, temporary, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let now = fstat(&made)?;
    if FileType::from_raw_mode(now.st_mode) != kind || now.st_nlink != 1 {
        return Err(Errno::STALE);
    }
    // By descriptor: whoever may write to the directory could put another file in the name's place.
    give(&made, stat)?;
    let (path, wanted) = (link_to(&made), xattrs(from, name)?);
    if kind == FileType::Symlink {
        // It has no mode, and so no access list.
        for (key, value) in &wanted {
            setxattr(&path[..], &key[..], value, XattrFlags::empty())?;
        }
    } else {
        clothe(&path, &wanted, mode)?;
    }
    utimensat(to, temporary, &times, AtFlags::SYMLINK_NOFOLLOW)
}

/// Gives an open directory the owner, mode and attributes of the layer's; with `times`, its times too.
///
/// # Errors
/// Whatever keeps it from having them.
pub fn dress(directory: &Open, from: &Open, with_times: bool) -> Result<()> {
    give(directory, &from.stat)?;
    let path = link_to(directory);
    clothe(&path, &xattrs_of(from)?, Mode::from_raw_mode(from.stat.st_mode & 0o7777))?;
    if with_times { utimensat(CWD, path, &times(&from.stat), AtFlags::empty()) } else { Ok(()) }
}

/// Gives what is behind this path exactly these attributes, and this mode. In a directory with a default access list
/// (acl(5)) a new file has one by inheritance, which the mode alone would bring into force: it goes first, and while lists
/// are exchanged nobody but the owner has any rights.
fn clothe(path: &str, wanted: &[Xattr], mode: Mode) -> Result<()> {
    let has = |key: &[u8]| wanted.iter().any(|(other, _)| other == key);
    let now = xattrs_at(path)?;
    let lists = |all: &[Xattr]| all.iter().find(|(key, _)| key == ACCESS_LIST).cloned();
    if lists(&now) != lists(wanted) {
        chmod(path, Mode::RWXU)?;
    }
    // What the security modules label files with is theirs.
    let ours = |key: &[u8]| !key.starts_with(b"security.") || key == b"security.capability";
    for (key, _) in now.iter().filter(|(key, _)| !has(key) && ours(key)) {
        removexattr(path, &key[..])?;
    }
    for (key, value) in wanted.iter().filter(|pair| !now.contains(pair)) {
        setxattr(path, &key[..], value, XattrFlags::empty())?;
    }
    // Last: one may need the right to write for a file's attributes.
    chmod(path, mode)
}

fn give(file: impl AsFd, stat: &Stat) -> Result<()> {
    let now = fstat(&file)?;
    if (now.st_uid, now.st_gid) == (stat.st_uid, stat.st_gid) {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    chownat(file, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
}

fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        last_modification: Timespec { tv_sec: stat.st_mtime as _, tv_nsec: stat.st_mtime_nsec as _ },
    }
}
