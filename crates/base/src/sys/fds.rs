//! File descriptors by number: at the two borders of the program, where it starts and where it executes another.
//!
//! Everything that this program opens is closed on exec. So a descriptor that isn't was left to it by whoever executed it,
//! or is left by it to whatever it executes, and no value of this program owns it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::clone::is_copy;

/// Takes a descriptor that this process was started with. From here on it is closed on exec.
///
/// # Errors
/// `EBADF`: it is not open. `EBUSY`: it was taken before, or is this program's own. `EINVAL`: it is a standard stream.
pub fn inherited(fd: RawFd) -> Result<OwnedFd, Errno> {
    if fd <= 2 {
        return Err(Errno::EINVAL);
    }
    if flags(fd)?.contains(FdFlag::FD_CLOEXEC) {
        return Err(Errno::EBUSY);
    }
    set_flags(fd, FdFlag::FD_CLOEXEC)?;
    // SAFETY: it is open, and nothing owned it: it wasn't closed on exec until the call above.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn flags(fd: RawFd) -> Result<FdFlag, Errno> {
    // SAFETY: touches no memory; fails for a number that is not open.
    Errno::result(unsafe { libc::fcntl(fd, libc::F_GETFD) }).map(FdFlag::from_bits_retain)
}

fn set_flags(fd: RawFd, flags: FdFlag) -> Result<(), Errno> {
    // SAFETY: touches no memory; fails for a number that is not open.
    Errno::result(unsafe { libc::fcntl(fd, libc::F_SETFD, flags.bits()) }).map(drop)
}

/// Copies a descriptor to a number of at least `least`, closed on exec.
///
/// # Errors
/// `EMFILE`, `EINVAL`: no number that high is left.
pub fn duplicate_above(fd: impl AsFd, least: RawFd) -> Result<OwnedFd, Errno> {
    let copy = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(least))?;
    // SAFETY: the kernel has just made it, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// A copy of a descriptor that a caller named by number, closed on exec.
///
/// # Errors
/// `EBADF`: it is not open.
pub fn duplicate(fd: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: touches no memory; fails for a number that is not open.
    let copy = Errno::result(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) })?;
    // SAFETY: the kernel has just made it, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Leaves a descriptor, under its number, to the program that is executed next. Returns the number.
///
/// # Errors
/// Never in practice.
pub fn leave(fd: OwnedFd) -> Result<RawFd, Errno> {
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(fd.into_raw_fd())
}

/// Has a descriptor that a caller named by number stay open for the program that is executed next.
///
/// # Errors
/// `EBADF`: it is not open.
pub fn keep_on_exec(fd: RawFd) -> Result<(), Errno> {
    set_flags(fd, FdFlag::empty())
}

/// Makes a descriptor the standard input (0), output (1) or error (2), open across exec.
///
/// # Errors
/// Fails as dup2(2) does. `EINVAL`: another number.
pub fn replace_stdio(fd: OwnedFd, number: RawFd) -> Result<(), Errno> {
    if !(0..=2).contains(&number) {
        return Err(Errno::EINVAL);
    }
    if fd.as_raw_fd() == number {
        return leave(fd).map(drop);
    }
    // SAFETY: touches no memory. The number stays open, and no value owns it.
    Errno::result(unsafe { libc::dup2(fd.as_raw_fd(), number) }).map(drop)
}

/// Puts a descriptor at exactly this number, which nothing else has, open across exec.
///
/// # Errors
/// Fails as dup2(2) does. `EBUSY`: the number is another descriptor's.
pub fn place(fd: OwnedFd, number: RawFd) -> Result<(), Errno> {
    if fd.as_raw_fd() == number {
        return leave(fd).map(drop);
    }
    if flags(number).is_ok() {
        return Err(Errno::EBUSY);
    }
    // SAFETY: touches no memory. Nothing is open at the number, so no value owns it.
    Errno::result(unsafe { libc::dup2(fd.as_raw_fd(), number) }).map(drop)
}

/// Marks every descriptor from `first` on to be closed on exec (close_range(2), Linux 5.11).
///
/// # Errors
/// Fails as close_range(2) does.
pub fn close_on_exec_from(first: u32) -> Result<(), Errno> {
    // SAFETY: changes flags of descriptors only.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    Errno::result(result).map(drop)
}

/// In a copy of another process, which runs none of that one's code to its end: closes every descriptor from 3 on but these.
/// The values that own the others are not to be used any more.
///
/// # Errors
/// Fails as close_range(2) does. `EBUSY`: this process is not a copy.
pub fn close_others(kept: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    if !is_copy() {
        return Err(Errno::EBUSY);
    }
    let mut kept: Vec<u32> = kept.iter().map(|fd| fd.as_raw_fd() as u32).collect();
    kept.sort_unstable();
    let mut first = 3;
    for number in kept.into_iter().chain([u32::MAX]) {
        if first < number {
            let last = number - u32::from(number != u32::MAX);
            // SAFETY: touches no memory. A copy never drops what belongs to the process it was copied from.
            Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })?;
        }
        first = number.saturating_add(1);
    }
    Ok(())
}

/// At the start of this program: closes what was left to it besides these, which is not closed on exec.
///
/// # Errors
/// /proc is not mounted.
pub fn close_leftovers(kept: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let error = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
    for entry in std::fs::read_dir("/proc/self/fd").map_err(error)? {
        let name = entry.map_err(error)?.file_name();
        let number: Option<RawFd> = name.to_str().and_then(|name| name.parse().ok());
        let is_kept = |number: RawFd| kept.iter().any(|fd| fd.as_raw_fd() == number);
        // What is this program's, as the directory that is read here, is not taken.
        if let Some(number) = number.filter(|number| !is_kept(*number)) {
            drop(inherited(number));
        }
    }
    Ok(())
}

/// Standard input, output and error of this process.
#[must_use]
pub fn stdio() -> [BorrowedFd<'static>; 3] {
    // SAFETY: 0 to 2 are open in every process of ours: the standard library opens /dev/null for those that are missing before
    // anything else, and nothing here closes them.
    [0, 1, 2].map(|fd| unsafe { BorrowedFd::borrow_raw(fd) })
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn what_was_not_inherited_is_not_taken() {
        let own = File::open("/dev/null").unwrap();
        assert_eq!(inherited(own.as_raw_fd()).unwrap_err(), Errno::EBUSY);
        assert_eq!(inherited(1).unwrap_err(), Errno::EINVAL);
        assert_eq!(inherited(1 << 20).unwrap_err(), Errno::EBADF);
        let left = leave(own.into()).unwrap();
        let taken = inherited(left).unwrap();
        assert_eq!((taken.as_raw_fd(), inherited(left).unwrap_err()), (left, Errno::EBUSY));
    }

    #[test]
    fn what_others_own_is_closed_in_a_copy_only_and_never_replaced() {
        assert_eq!(close_others(&[]), Err(Errno::EBUSY));
        nsrs_testing::alone!();
        let child = crate::sys::child::spawn(0, || {
            let open = || duplicate_above(File::open("/dev/null").unwrap(), 100).unwrap();
            let (kept, other, left) = (open(), open().into_raw_fd(), leave(open()).unwrap());
            close_leftovers(&[]).unwrap();
            assert_eq!((flags(left), flags(other)), (Err(Errno::EBADF), Ok(FdFlag::FD_CLOEXEC)));
            close_others(&[kept.as_fd()]).unwrap();
            assert_eq!((flags(other), flags(kept.as_raw_fd())), (Err(Errno::EBADF), Ok(FdFlag::FD_CLOEXEC)));
            assert_eq!(place(open(), kept.as_raw_fd()), Err(Errno::EBUSY));
            place(open(), other).unwrap();
            assert_eq!(flags(other), Ok(FdFlag::empty()));
            0
        });
        assert_eq!(child.unwrap().wait(None), Some(crate::sys::wait::Status::Exited(0)));
    }
}
