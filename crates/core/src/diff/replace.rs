//! Replacing one name in the real tree by a file of a layer: completely or not at all.
//!
//! New files are made under a temporary name, and old ones are removed by way of it: an apply that is interrupted leaves
//! that name and nothing else.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::OwnedFd;

use rustix::fs::{
    Access, AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, Stat, XattrFlags, fstat, futimens, ioctl_ficlone,
    linkat, mkdirat, mknodat, openat, readlinkat, renameat_with, setxattr, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::{Errno, Result};
use rustix::process::geteuid;

use super::access_guard::{AccessGuard, path_of};
use super::attributes::{copy_to_directory, set_mode_and_xattrs, set_owner, times};
use super::file_stamp::{FileId, file_id};
use nsrs_base::tree::copy::copy;
use nsrs_base::tree::remove::{remove, remove_if};
use nsrs_base::tree::{xattrs, xattrs_of};

/// A name in a directory of the real tree.
#[derive(Clone, Copy)]
pub(super) struct TargetName<'a> {
    pub directory: &'a AccessGuard,
    pub name: &'a [u8],
    /// The temporary name in the same directory.
    pub temporary: &'a str,
    /// Nothing may have the name.
    pub must_be_new: bool,
    /// What had the name when it was looked at: nothing else is removed.
    pub old: Option<FileId>,
}

impl TargetName<'_> {
    /// Removes what had the name, by the name that it has now.
    fn remove_old(self, name: &[u8]) -> Result<()> {
        remove_if(self.directory, &c_name(name)?, |stat| Some(file_id(stat)) == self.old)
    }
}

/// Replaces whatever has the name by a file that isn't a directory, or by another name of the open file `link_to`.
///
/// # Errors
/// Whatever keeps the file from having the content, owner, mode and attributes of the layer's; nothing is left then.
pub(super) fn replace_by_file(
    from: &AccessGuard,
    stat: &Stat,
    target: TargetName<'_>,
    link_to: Option<&OwnedFd>,
) -> Result<()> {
    let TargetName { directory, name, temporary, .. } = target;
    clear_temporary(directory, temporary)?;
    let made = match link_to {
        // By descriptor: the name that it was opened by may be another file's by now.
        Some(file) => linkat(CWD, path_of(file), directory, temporary, AtFlags::SYMLINK_FOLLOW),
        None => make_file(from, name, stat, directory, temporary),
    };
    let done = made.and_then(|()| install(target));
    // If both are names of the same file, rename(2) does nothing and leaves both.
    let _ = unlinkat(directory, temporary, AtFlags::empty());
    done
}

/// Replaces whatever has the name by an empty directory with the owner, mode and attributes of the layer's; returns the
/// new one.
///
/// # Errors
/// Those of [`replace_by_file`].
pub(super) fn replace_by_directory(from: &AccessGuard, target: TargetName<'_>) -> Result<FileId> {
    let TargetName { directory, temporary, .. } = target;
    clear_temporary(directory, temporary)?;
    let make = || {
        mkdirat(directory, temporary, Mode::RWXU)?;
        let made = AccessGuard::beneath(directory, temporary.as_bytes(), Access::EXEC_OK)?;
        // Whoever may write to the directory could have replaced it by another one.
        if made.stat.st_uid != geteuid().as_raw() || !is_empty(&made)? {
            return Err(Errno::STALE);
        }
        copy_to_directory(&made, from, false)?;
        install(target)?;
        Ok(file_id(&made.stat))
    };
    let done = make();
    if done.is_err() {
        let _ = clear_temporary(directory, temporary);
    }
    done
}

fn is_empty(directory: &AccessGuard) -> Result<bool> {
    let entries: Vec<_> = Dir::read_from(openat(directory, ".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)?
        .collect::<Result<_>>()?;
    Ok(entries.iter().all(|entry| matches!(entry.file_name().to_bytes(), b"." | b"..")))
}

/// Moves what is complete from the temporary name to its own.
fn install(target: TargetName<'_>) -> Result<()> {
    let TargetName { directory, name, temporary, must_be_new, .. } = target;
    let rename = |flags| renameat_with(directory, temporary, directory, name, flags);
    if must_be_new {
        return rename(RenameFlags::NOREPLACE);
    }
    match rename(RenameFlags::empty()) {
        Err(Errno::ISDIR | Errno::NOTDIR | Errno::NOTEMPTY | Errno::EXIST) => {}
        other => return other,
    }
    match rename(RenameFlags::EXCHANGE) {
        // The new one has the name, the old one the temporary name.
        Ok(()) => target.remove_old(temporary.as_bytes()).inspect_err(|_| {
            let _ = rename(RenameFlags::EXCHANGE);
        }),
        // Not every file system supports it.
        Err(_) => target.remove_old(name).and_then(|()| rename(RenameFlags::NOREPLACE)),
    }
}

/// Removes a name, with everything in it.
///
/// # Errors
/// It can't be removed.
pub(super) fn remove_name(target: TargetName<'_>) -> Result<()> {
    let TargetName { directory, name, temporary, .. } = target;
    clear_temporary(directory, temporary)?;
    let stat = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    let is_file = FileType::from_raw_mode(stat.st_mode) != FileType::Directory;
    // A directory on an overlay can't be renamed.
    if is_file || renameat_with(directory, name, directory, temporary, RenameFlags::NOREPLACE).is_err() {
        return target.remove_old(name);
    }
    target.remove_old(temporary.as_bytes()).inspect_err(|_| {
        let _ = renameat_with(directory, temporary, directory, name, RenameFlags::NOREPLACE);
    })
}

/// Removes what an interrupted apply left under the temporary name.
///
/// # Errors
/// It can't be removed.
pub(super) fn clear_temporary(directory: &AccessGuard, temporary: &str) -> Result<()> {
    remove(directory, &c_name(temporary.as_bytes())?)
}

fn c_name(name: &[u8]) -> Result<CString> {
    CString::new(name).map_err(|_| Errno::INVAL)
}

fn make_file(from: &AccessGuard, name: &[u8], stat: &Stat, to: &AccessGuard, temporary: &str) -> Result<()> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => make_regular_file(from, name, stat, to, temporary),
        kind => make_special_file(kind, from, name, stat, to, temporary),
    }
}

fn make_regular_file(from: &AccessGuard, name: &[u8], stat: &Stat, to: &AccessGuard, temporary: &str) -> Result<()> {
    let opened = AccessGuard::file(from, name)?;
    let source = opened.read()?;
    if opened.stat.st_ino != stat.st_ino {
        return Err(Errno::STALE);
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(openat(to, temporary, flags, Mode::RUSR | Mode::WUSR)?);
    if ioctl_ficlone(&file, &source).is_err() {
        copy(&source, &file, stat.st_size as u64)?;
    }
    set_owner(&file, stat)?;
    set_mode_and_xattrs(&path_of(&file), &xattrs_of(&opened)?, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    futimens(&file, &times(stat))
}

/// Makes a link, a device, a pipe or a socket.
fn make_special_file(
    kind: FileType,
    from: &AccessGuard,
    name: &[u8],
    stat: &Stat,
    to: &AccessGuard,
    temporary: &str,
) -> Result<()> {
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
    // By descriptor: whoever may write to the directory could have replaced it by another file.
    set_owner(&made, stat)?;
    let (path, wanted) = (path_of(&made), xattrs(from, name)?);
    if kind == FileType::Symlink {
        // A link has no mode, and so no access list.
        for (key, value) in &wanted {
            setxattr(&path[..], &key[..], value, XattrFlags::empty())?;
        }
    } else {
        set_mode_and_xattrs(&path, &wanted, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    }
    utimensat(to, temporary, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
}
