//! File descriptors by number: at the two borders of the program, where it starts and where it executes another.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// Takes a descriptor that this process was started with.
///
/// # Errors
/// `EBADF`: it is not open.
pub fn inherited(fd: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: only borrowed for a call that fails when the number is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    // SAFETY: open, as the call above has shown; callers name each number once, before anything else is opened.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Copies a descriptor to a number of at least `least`, closed on exec.
///
/// # Errors
/// `EMFILE`, `EINVAL`: no number that high is left.
pub fn duplicate_above(fd: impl std::os::fd::AsFd, least: RawFd) -> Result<OwnedFd, Errno> {
    let copy = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(least))?;
    // SAFETY: the kernel has just made it, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Puts a descriptor at exactly this number, open across exec. What was there is closed.
///
/// # Errors
/// Those of dup2(2).
pub fn place(fd: OwnedFd, number: RawFd) -> Result<(), Errno> {
    if fd.as_raw_fd() == number {
        fcntl(&fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
        // It stays open under its number for the program that is executed next.
        let _ = fd.into_raw_fd();
        return Ok(());
    }
    // SAFETY: dup2 touches no memory; the caller gives up whatever stood at the number.
    Errno::result(unsafe { libc::dup2(fd.as_raw_fd(), number) }).map(drop)
}

/// Marks every descriptor from `first` on to be closed on exec (close_range(2), Linux 5.11).
///
/// # Errors
/// Those of close_range(2).
pub fn close_on_exec_from(first: u32) -> Result<(), Errno> {
    // SAFETY: changes flags of descriptors only.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    Errno::result(result).map(drop)
}

/// Closes every descriptor from 3 on but these. The values that own the others are not to be used or dropped any more:
/// for a process that is a copy of another and never runs that one's code to its end.
///
/// # Errors
/// Those of close_range(2).
pub fn close_others(kept: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut kept: Vec<u32> = kept.iter().map(|fd| fd.as_raw_fd() as u32).collect();
    kept.sort_unstable();
    let mut first = 3;
    for number in kept.into_iter().chain([u32::MAX]) {
        if first < number {
            let last = number - u32::from(number != u32::MAX);
            // SAFETY: touches no memory; that nobody uses the closed ones is the caller's promise.
            Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })?;
        }
        first = number.saturating_add(1);
    }
    Ok(())
}

/// Lets go of the numbers 0 to 2 without closing them, for a process that hands them on as they are.
#[must_use]
pub fn stdio() -> [BorrowedFd<'static>; 3] {
    // SAFETY: 0 to 2 are open in every process of ours: the executable opens /dev/null for those that are missing before
    // anything else, and nothing ever closes them.
    [0, 1, 2].map(|fd| unsafe { BorrowedFd::borrow_raw(fd) })
}

/// A copy of a descriptor that a caller named by number, closed on exec.
///
/// # Errors
/// `EBADF`: it is not open.
pub fn duplicate(fd: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: only borrowed for a call that fails when the number is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    duplicate_above(borrowed, 3)
}
