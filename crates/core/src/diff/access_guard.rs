//! Opening files whose owner has taken the right to do so from himself: he gets it back for as long as they are open.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    Access, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, accessat, chmod, fstat, openat, openat2,
};
use rustix::io::{Errno, Result, fcntl_dupfd_cloexec};
use rustix::process::geteuid;

/// Neither through a link nor into another file system.
pub(super) const INSIDE: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_XDEV);
const PATH: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// An open file or directory. Its owner has the wanted access as long as this lives.
#[derive(Debug)]
pub(super) struct AccessGuard {
    fd: OwnedFd,
    /// As it was before its mode was changed.
    pub stat: Stat,
    /// The mode to restore, if it was changed.
    restore: Option<Mode>,
}

impl AccessGuard {
    /// Takes an `O_PATH` descriptor, and gives its owner the wanted access.
    ///
    /// # Errors
    /// The mode can't be read or changed.
    pub fn grant(fd: OwnedFd, wanted: Access) -> Result<AccessGuard> {
        let stat = fstat(&fd)?;
        let mut open = AccessGuard { fd, stat, restore: None };
        let path = path_of(&open.fd);
        if accessat(CWD, &path, wanted, AtFlags::EACCESS) == Err(Errno::ACCESS) && stat.st_uid == geteuid().as_raw() {
            let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
            let more = [(Access::READ_OK, Mode::RUSR), (Access::WRITE_OK, Mode::WUSR), (Access::EXEC_OK, Mode::XUSR)];
            let more = more.into_iter().filter(|(access, _)| wanted.contains(*access)).map(|(_, mode)| mode);
            chmod(&path, more.fold(mode, Mode::union))?;
            open.restore = Some(mode);
        }
        Ok(open)
    }

    /// The directory at a path beneath another one, `.` for itself, also if directories on the way are closed.
    ///
    /// # Errors
    /// Those of openat2(2): ELOOP for a link, EXDEV for another file system.
    pub fn beneath(root: impl AsFd, path: &[u8], wanted: Access) -> Result<AccessGuard> {
        let flags = PATH | OFlags::DIRECTORY;
        match openat2(&root, path, flags, Mode::empty(), INSIDE) {
            Err(Errno::ACCESS) => {}
            other => return AccessGuard::grant(other?, wanted),
        }
        let mut open = AccessGuard::grant(fcntl_dupfd_cloexec(root, 0)?, Access::EXEC_OK)?;
        for part in path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")) {
            open = AccessGuard::grant(openat2(&open, part, flags, Mode::empty(), INSIDE)?, Access::EXEC_OK)?;
        }
        AccessGuard::grant(fcntl_dupfd_cloexec(&open, 0)?, wanted).map(|guard| guard.take_over_from(open))
    }

    /// Opens a directory to read its entries.
    ///
    /// # Errors
    /// Those of openat2(2); EACCES if it belongs to another user.
    pub fn directory(parent: impl AsFd, name: &[u8], resolve: ResolveFlags) -> Result<AccessGuard> {
        let fd = openat2(parent, name, PATH | OFlags::DIRECTORY, Mode::empty(), resolve)?;
        let mut open = AccessGuard::grant(fd, Access::READ_OK | Access::EXEC_OK)?;
        open.fd = openat(&open.fd, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(open)
    }

    /// Opens a regular file to read it.
    ///
    /// # Errors
    /// Those of openat(2); EACCES if it belongs to another user; ESTALE if it isn't a regular file.
    pub fn file(parent: impl AsFd, name: &[u8]) -> Result<AccessGuard> {
        let mut open = AccessGuard::grant(openat(parent, name, PATH, Mode::empty())?, Access::READ_OK)?;
        if FileType::from_raw_mode(open.stat.st_mode) != FileType::RegularFile {
            return Err(Errno::STALE);
        }
        // By its descriptor, not by the name.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        open.fd = openat(CWD, path_of(&open.fd), flags, Mode::empty())?;
        Ok(open)
    }

    /// A descriptor that stays readable when this is dropped.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn read(&self) -> Result<File> {
        fcntl_dupfd_cloexec(&self.fd, 0).map(File::from)
    }

    /// Keeps the mode as it is now.
    pub fn keep_mode(mut self) {
        self.restore = None;
    }

    /// Takes over the mode that another guard has to restore.
    fn take_over_from(mut self, mut other: AccessGuard) -> AccessGuard {
        if let Some(mode) = other.restore.take() {
            self.restore = Some(mode);
            self.stat = other.stat;
        }
        self
    }
}

impl Drop for AccessGuard {
    fn drop(&mut self) {
        if let Some(mode) = self.restore {
            let _ = chmod(path_of(&self.fd), mode);
        }
    }
}

impl AsFd for AccessGuard {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A path to an open file, independent of its names (proc_pid_fd(5)).
pub(super) fn path_of(file: impl AsFd) -> String {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd())
}
