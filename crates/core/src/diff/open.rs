//! Opening what its owner may have closed to himself.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    Access, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, accessat, chmod, fstat, openat, openat2,
};
use rustix::io::{Errno, Result, fcntl_dupfd_cloexec};
use rustix::process::geteuid;

/// Through no link, and into no other file system.
pub(super) const INSIDE: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_XDEV);
const PATH: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// An open file or directory that its owner may read, or whatever was wanted, for as long as this lives.
#[derive(Debug)]
pub(super) struct Open {
    fd: OwnedFd,
    /// What it was like before.
    pub stat: Stat,
    /// The mode that it gets back.
    closed: Option<Mode>,
}

impl Open {
    /// Takes an `O_PATH` descriptor, and lets its owner do what is wanted.
    ///
    /// # Errors
    /// It can't be looked at.
    pub fn hold(fd: OwnedFd, wanted: Access) -> Result<Open> {
        let stat = fstat(&fd)?;
        let mut open = Open { fd, stat, closed: None };
        let path = link_to(&open.fd);
        if accessat(CWD, &path, wanted, AtFlags::EACCESS) == Err(Errno::ACCESS) && stat.st_uid == geteuid().as_raw() {
            let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
            let more = [(Access::READ_OK, Mode::RUSR), (Access::WRITE_OK, Mode::WUSR), (Access::EXEC_OK, Mode::XUSR)];
            let more = more.into_iter().filter(|(access, _)| wanted.contains(*access)).map(|(_, mode)| mode);
            chmod(&path, more.fold(mode, Mode::union))?;
            open.closed = Some(mode);
        }
        Ok(open)
    }

    /// The directory at a path beneath another one, `.` for itself, whatever directories on the way are closed.
    ///
    /// # Errors
    /// Those of openat2(2): ELOOP is a link, EXDEV another file system.
    pub fn beneath(root: impl AsFd, path: &[u8], wanted: Access) -> Result<Open> {
        let flags = PATH | OFlags::DIRECTORY;
        match openat2(&root, path, flags, Mode::empty(), INSIDE) {
            Err(Errno::ACCESS) => {}
            other => return Open::hold(other?, wanted),
        }
        let mut open = Open::hold(fcntl_dupfd_cloexec(root, 0)?, Access::EXEC_OK)?;
        for part in path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")) {
            open = Open::hold(openat2(&open, part, flags, Mode::empty(), INSIDE)?, Access::EXEC_OK)?;
        }
        Open::hold(fcntl_dupfd_cloexec(&open, 0)?, wanted).map(|held| held.instead_of(open))
    }

    /// A directory whose entries are to be read.
    ///
    /// # Errors
    /// Those of openat2(2); EACCES if it is somebody else's.
    pub fn directory(parent: impl AsFd, name: &[u8], resolve: ResolveFlags) -> Result<Open> {
        let fd = openat2(parent, name, PATH | OFlags::DIRECTORY, Mode::empty(), resolve)?;
        let mut open = Open::hold(fd, Access::READ_OK | Access::EXEC_OK)?;
        open.fd = openat(&open.fd, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(open)
    }

    /// A regular file that is to be read.
    ///
    /// # Errors
    /// Those of openat(2); EACCES if it is somebody else's.
    pub fn file(parent: impl AsFd, name: &[u8]) -> Result<Open> {
        let mut open = Open::hold(openat(parent, name, PATH, Mode::empty())?, Access::READ_OK)?;
        if FileType::from_raw_mode(open.stat.st_mode) != FileType::RegularFile {
            return Err(Errno::STALE);
        }
        // By its descriptor, not by the name.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        open.fd = openat(CWD, link_to(&open.fd), flags, Mode::empty())?;
        Ok(open)
    }

    /// For reading, even when this is closed again.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn read(&self) -> Result<File> {
        fcntl_dupfd_cloexec(&self.fd, 0).map(File::from)
    }

    /// Leaves the mode as it is now.
    pub fn keep_mode(mut self) {
        self.closed = None;
    }

    /// Takes over what another one has opened.
    fn instead_of(mut self, mut other: Open) -> Open {
        if let Some(mode) = other.closed.take() {
            self.closed = Some(mode);
            self.stat = other.stat;
        }
        self
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(mode) = self.closed {
            let _ = chmod(link_to(&self.fd), mode);
        }
    }
}

impl AsFd for Open {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A path to an open file, whatever its names are.
pub(super) fn link_to(file: impl AsFd) -> String {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd())
}
