//! Removing a tree, however deep it is and whatever it holds.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, chmod, fchmod, fstat, openat, renameat, unlinkat};
use rustix::io::{Errno, Result};

/// Removes what has this name in the directory: a file, a link (not what it points to) or a tree. That there is nothing
/// is no failure.
///
/// Subdirectories are moved up beside the first one before they are emptied, so that a tree of any depth needs two
/// descriptors and no long path.
///
/// # Errors
/// Fails as unlinkat(2), openat(2) and renameat(2) do.
pub fn remove(parent: impl AsFd, name: &CStr) -> Result<()> {
    remove_if(parent, name, |_| true)
}

/// As [`remove`], if this is true of a directory that isn't empty: whoever may write to the one that it is in could have put
/// another one there.
///
/// # Errors
/// Fails as [`remove`] does; `ESTALE`: it isn't.
pub fn remove_if(parent: impl AsFd, name: &CStr, is: impl FnOnce(&Stat) -> bool) -> Result<()> {
    let parent = parent.as_fd();
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // Linux says EISDIR for a directory; EPERM is what POSIX has for it.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    // Often it's empty.
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        Err(Errno::NOENT) => return Ok(()),
        other => return other,
    }
    let top = open(parent, name, is)?;
    let mut count = 0_u64;
    let mut moved: Vec<CString> = Vec::new();
    empty(&top, &top, &mut count, &mut moved)?;
    while let Some(inner) = moved.pop() {
        match unlinkat(&top, &inner, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            other => {
                other?;
                continue;
            }
        }
        let directory = open(top.as_fd(), &inner, |_| true)?;
        empty(&directory, &top, &mut count, &mut moved)?;
        drop(directory);
        unlinkat(&top, &inner, AtFlags::REMOVEDIR)?;
    }
    drop(top);
    unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// Opens a directory to be emptied, and gives its owner the right to if that is missing.
fn open(parent: impl AsFd, name: &CStr, is: impl FnOnce(&Stat) -> bool) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let parent = parent.as_fd();
    let fd = match openat(parent, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            open_up(parent, name)?;
            openat(parent, name, flags, Mode::empty())?
        }
        other => other?,
    };
    let stat = fstat(&fd)?;
    if !is(&stat) {
        return Err(Errno::STALE);
    }
    if !Mode::from_raw_mode(stat.st_mode).contains(Mode::RWXU) {
        // Somebody else's is none of ours to change; then the removal says what is wrong.
        let _ = fchmod(&fd, Mode::RWXU);
    }
    Ok(fd)
}

/// Gives the owner of a directory every right to it; through no link, whatever has taken its name.
fn open_up(parent: impl AsFd, name: &CStr) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(parent, name, flags, Mode::empty())?;
    chmod(format!("/proc/self/fd/{}", fd.as_raw_fd()), Mode::RWXU)
}

/// Removes the files of a directory and moves its directories to the top under new names.
fn empty(directory: &OwnedFd, top: &OwnedFd, count: &mut u64, moved: &mut Vec<CString>) -> Result<()> {
    let same = std::ptr::eq(directory, top);
    let mut again = true;
    // A directory that changes while it is read may be read incompletely: until nothing is found.
    while again {
        again = false;
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." || (same && moved.iter().any(|known| known.as_c_str() == name)) {
                continue;
            }
            again = true;
            let known = entry.file_type();
            if known != FileType::Directory {
                match unlinkat(directory, name, AtFlags::empty()) {
                    Err(Errno::ISDIR | Errno::PERM) => {}
                    Ok(()) | Err(Errno::NOENT) => continue,
                    Err(errno) => return Err(errno),
                }
            }
            if unlinkat(directory, name, AtFlags::REMOVEDIR).is_ok() {
                continue;
            }
            let mut opened = false;
            loop {
                *count += 1;
                let place = CString::new(format!(".nsrs-remove-{count}")).map_err(|_| Errno::INVAL)?;
                // A name that is taken (by a directory that isn't empty, or a file) is not a place.
                match rustix::fs::renameat_with(directory, name, top, &place, rustix::fs::RenameFlags::NOREPLACE) {
                    Ok(()) => {
                        moved.push(place);
                        break;
                    }
                    Err(Errno::EXIST | Errno::NOTEMPTY) => {}
                    Err(Errno::INVAL) => {
                        renameat(directory, name, top, &place)?;
                        moved.push(place);
                        break;
                    }
                    // Moving a directory writes its "..".
                    Err(Errno::ACCESS) if !opened => {
                        open_up(directory, name)?;
                        opened = true;
                    }
                    Err(errno) => return Err(errno),
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn removes_what_is_deeper_than_any_path_and_follows_no_link() {
        let base = std::env::temp_dir().join(format!("nsrs-remove-{}", std::process::id()));
        std::fs::create_dir_all(base.join("kept")).unwrap();
        std::fs::write(base.join("kept/canary"), "").unwrap();
        let parent = OwnedFd::from(std::fs::File::open(&base).unwrap());
        rustix::fs::mkdirat(&parent, c"tree", Mode::from(0o755)).unwrap();
        symlink("../kept", base.join("tree/link")).unwrap();
        std::fs::create_dir(base.join("tree/.nsrs-remove-2")).unwrap();
        std::fs::create_dir_all(base.join("tree/locked/in")).unwrap();
        std::fs::write(base.join("tree/locked/in/file"), "").unwrap();
        std::fs::create_dir(base.join("tree/read-only")).unwrap();
        std::fs::write(base.join("tree/read-only/file"), "").unwrap();
        std::fs::set_permissions(base.join("tree/read-only"), std::fs::Permissions::from_mode(0o500)).unwrap();
        std::fs::set_permissions(base.join("tree/locked"), std::fs::Permissions::from_mode(0o0)).unwrap();
        let mut fd = openat(&parent, c"tree", OFlags::PATH, Mode::empty()).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&fd, c"d", Mode::from(0o755)).unwrap();
            symlink("/etc", format!("/proc/self/fd/{}/link", std::os::fd::AsRawFd::as_raw_fd(&fd))).ok();
            fd = openat(&fd, c"d", OFlags::PATH, Mode::empty()).unwrap();
        }
        remove(&parent, c"tree").unwrap();
        assert!(!base.join("tree").exists());
        assert!(base.join("kept/canary").exists());
        remove(&parent, c"tree").unwrap();
        std::fs::remove_dir_all(&base).unwrap();
    }

    #[test]
    fn what_can_t_be_moved_away_ends_the_removal() {
        nsrs_testing::alone!();
        // In a user namespace its root is refused what belongs to others: another user's directory in one that's closed to us.
        use crate::sys::child;
        use crate::sys::wait::Status;
        if !rustix::process::geteuid().is_root() {
            nsrs_testing::skip!("needs root");
        }
        let base = std::env::temp_dir().join(format!("nsrs-remove-other-{}", std::process::id()));
        std::fs::create_dir_all(base.join("tree/mine/in")).unwrap();
        std::fs::write(base.join("tree/mine/in/file"), "").unwrap();
        // Somebody else's, that lets nobody move what is in it.
        std::os::unix::fs::chown(base.join("tree/mine"), Some(4242), Some(4242)).unwrap();
        std::os::unix::fs::chown(base.join("tree/mine/in"), Some(4242), Some(4242)).unwrap();
        let child = child::spawn(0, || {
            let become_user = || {
                nix::unistd::setgroups(&[]).ok()?;
                nix::unistd::setgid(4242.into()).ok()?;
                nix::unistd::setuid(4242.into()).ok()
            };
            let parent = std::fs::File::open(&base).ok();
            let removed = become_user().and(parent).map(|parent| remove(&parent, c"tree"));
            i32::from(!matches!(removed, Some(Err(Errno::ACCESS))))
        })
        .unwrap();
        let status = child.wait(Some(std::time::Duration::from_secs(10)));
        child.kill();
        assert_eq!(status, Some(Status::Exited(0)), "without a status it goes round in circles");
        std::fs::remove_dir_all(&base).unwrap();
    }
}
