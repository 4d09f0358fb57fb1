//! Bringing one file of a layer to its place in the real tree: whole or not at all.
//!
//! What is made is made under a temporary name, and what is removed goes by it: an apply that is ended in between leaves
//! that name and nothing else.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    Access, AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, RenameFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
    chmod, chownat, fstat, futimens, ioctl_ficlone, linkat, mkdirat, mknodat, openat, readlinkat, removexattr,
    renameat_with, setxattr, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::{Errno, Result};
use rustix::process::geteuid;

use super::open::{Open, link_to};
use nsrs_base::tree::copy::copy;
use nsrs_base::tree::remove::{remove, remove_if};
use nsrs_base::tree::{Xattr, xattrs, xattrs_at, xattrs_of};

/// The attribute that holds who has which rights besides the mode.
const ACCESS_LIST: &[u8] = b"system.posix_acl_access";

/// A name in a directory of the real tree.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The directory.
    pub to: &'a Open,
    /// The name.
    pub name: &'a [u8],
    /// The temporary name beside it.
    pub temporary: &'a str,
    /// Nothing may have the name.
    pub new: bool,
    /// What had the name when it was looked at: nothing else is removed.
    pub old: Option<Id>,
}

/// Which file or directory it is: its file system and its inode.
pub type Id = (u64, u64);

/// That of what was looked at.
pub fn id(stat: &Stat) -> Id {
    (stat.st_dev, stat.st_ino)
}

impl Place<'_> {
    /// Removes what had the name, by the name that it has now.
    fn remove_old(self, name: &[u8]) -> Result<()> {
        remove_if(self.to, &c_name(name)?, |stat| Some(id(stat)) == self.old)
    }
}

/// Puts a file that is no directory, or another name of the open file `twin`, in place of whatever has the name.
///
/// # Errors
/// Whatever keeps it from having content, owner, mode and attributes of the layer's; nothing is left then.
pub fn put(from: &Open, stat: &Stat, place: Place<'_>, twin: Option<&OwnedFd>) -> Result<()> {
    let Place { to, name, temporary, .. } = place;
    clear(to, temporary)?;
    let made = match twin {
        // By descriptor: the name that it was opened by may be another file's by now.
        Some(twin) => linkat(CWD, link_to(twin), to, temporary, AtFlags::SYMLINK_FOLLOW),
        None => make(from, name, stat, to, temporary),
    };
    let done = made.and_then(|()| install(place));
    // Two names of the same file: then rename(2) does nothing, and leaves both.
    let _ = unlinkat(to, temporary, AtFlags::empty());
    done
}

/// Puts an empty directory with the owner, mode and attributes of the layer's in place of whatever has the name; returns
/// which one it is.
///
/// # Errors
/// Those of [`put`].
pub fn put_directory(from: &Open, place: Place<'_>) -> Result<Stat> {
    let Place { to, temporary, .. } = place;
    clear(to, temporary)?;
    let make = || {
        mkdirat(to, temporary, Mode::RWXU)?;
        let made = Open::beneath(to, temporary.as_bytes(), Access::EXEC_OK)?;
        // Whoever may write to the directory could put another one in the name's place.
        if made.stat.st_uid != geteuid().as_raw() || !is_empty(&made)? {
            return Err(Errno::STALE);
        }
        dress(&made, from, false)?;
        install(place)?;
        Ok(made.stat)
    };
    let done = make();
    if done.is_err() {
        let _ = clear(to, temporary);
    }
    done
}

fn is_empty(directory: &Open) -> Result<bool> {
    let entries: Vec<_> = Dir::read_from(openat(directory, ".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)?
        .collect::<Result<_>>()?;
    Ok(entries.iter().all(|entry| matches!(entry.file_name().to_bytes(), b"." | b"..")))
}

/// Gives what is ready under the temporary name its own.
fn install(place: Place<'_>) -> Result<()> {
    let Place { to, name, temporary, new, .. } = place;
    let rename = |flags| renameat_with(to, temporary, to, name, flags);
    if new {
        return rename(RenameFlags::NOREPLACE);
    }
    match rename(RenameFlags::empty()) {
        Err(Errno::ISDIR | Errno::NOTDIR | Errno::NOTEMPTY | Errno::EXIST) => {}
        other => return other,
    }
    match rename(RenameFlags::EXCHANGE) {
        // The name is the new one's; the temporary one the old one's.
        Ok(()) => place.remove_old(temporary.as_bytes()).inspect_err(|_| {
            let _ = rename(RenameFlags::EXCHANGE);
        }),
        // Not every file system can.
        Err(_) => place.remove_old(name).and_then(|()| rename(RenameFlags::NOREPLACE)),
    }
}

/// Takes a name away, with everything in it.
///
/// # Errors
/// It can't be removed.
pub fn take_away(place: Place<'_>) -> Result<()> {
    let Place { to, name, temporary, .. } = place;
    clear(to, temporary)?;
    let stat = match statat(to, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    let whole = FileType::from_raw_mode(stat.st_mode) != FileType::Directory;
    // A directory on an overlay can't be renamed.
    if whole || renameat_with(to, name, to, temporary, RenameFlags::NOREPLACE).is_err() {
        return place.remove_old(name);
    }
    place.remove_old(temporary.as_bytes()).inspect_err(|_| {
        let _ = renameat_with(to, temporary, to, name, RenameFlags::NOREPLACE);
    })
}

/// Removes what an earlier apply has left under the temporary name.
///
/// # Errors
/// It can't be removed.
pub fn clear(to: &Open, temporary: &str) -> Result<()> {
    remove(to, &c_name(temporary.as_bytes())?)
}

fn c_name(name: &[u8]) -> Result<CString> {
    CString::new(name).map_err(|_| Errno::INVAL)
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
    let is_device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
    let is_other = FileType::from_raw_mode(now.st_mode) != kind || (is_device && now.st_rdev != stat.st_rdev);
    if is_other || now.st_nlink != 1 || now.st_uid != geteuid().as_raw() {
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
