//! The ends of this process's children, whoever made them (signalfd(2), waitid(2)).

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::process::Pid;

/// Readable when a child has ended. `SIGCHLD` is blocked from its making on, also in processes that are made here: what
/// they execute has to unblock it. Only for a process of one thread: another would be sent the signal.
#[derive(Debug)]
pub struct ChildEnds(SignalFd);

impl ChildEnds {
    /// Tells of the children that end from now on.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn watch() -> Result<ChildEnds, Errno> {
        let set = SigSet::from(Signal::SIGCHLD);
        let ends = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        set.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        Ok(ChildEnds(ends))
    }

    /// Not readable any more, until another child ends.
    pub fn clear(&self) {
        while let Ok(Some(_)) = self.0.read_signal() {}
    }
}

impl AsFd for ChildEnds {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A child that has ended and is not reaped, if there is one: the first that the kernel finds. One that somebody else traces
/// is hidden until that ends (ptrace(2)).
#[must_use]
pub fn ended_child() -> Option<Pid> {
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: siginfo is plain numbers, for which all zeroes are a value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer lives across the call, which only writes it.
    let asked = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, options) };
    // SAFETY: the kernel has written the fields of SIGCHLD, or the zeroes are as they were.
    if asked == 0 { Pid::from_raw(unsafe { info.si_pid() }) } else { None }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sys::child::spawn;
    use crate::sys::poll::{is_readable, readable_within};
    use crate::sys::wait::{Status, reap};

    /// In a process of one thread, a child of its own; whether all was so.
    fn is_told_and_found_until_reaped() -> bool {
        let Ok(ends) = ChildEnds::watch() else { return false };
        let before = ended_child().is_none() && !is_readable(&ends);
        let Ok(child) = spawn(0, || 7) else { return false };
        let told = readable_within(&ends, Some(Duration::from_secs(60))) && ended_child() == Some(child.pid);
        ends.clear();
        let found = !is_readable(&ends) && ended_child() == Some(child.pid);
        before && told && found && reap(child.pid).is_ok_and(|end| end.is_some()) && ended_child().is_none()
    }

    #[test]
    fn a_child_that_ends_is_told_and_found_until_it_is_reaped() {
        nsrs_testing::alone!();
        let process = spawn(0, || i32::from(is_told_and_found_until_reaped())).unwrap();
        readable_within(&process.pidfd, None);
        assert_eq!(reap(process.pid).unwrap().unwrap().0, Status::Exited(1));
    }
}
