//! Copies of this process: clone3(2).

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use rustix::process::Pid;

/// True in every child that this module has made.
static IS_COPY: AtomicBool = AtomicBool::new(false);

/// Which side of the call we are on.
pub enum Side {
    /// This is the new process.
    Child,
    /// This is the caller: the new process's id and its pidfd.
    Parent(Pid, OwnedFd),
}

/// Makes a process like fork(2), in new namespaces (`CLONE_NEW*` in `flags`). Only in a process of one thread: in a copy of
/// another, a lock that one of the missing threads held is held for ever.
///
/// # Errors
/// Fails as clone3(2) does; `ENOSYS` before Linux 5.3. `EBUSY`: this process has several threads.
pub fn clone3(flags: u64) -> Result<Side, Errno> {
    if !is_single_threaded() {
        return Err(Errno::EBUSY);
    }
    // SAFETY: there is one thread, and it is here.
    unsafe { copy(flags) }
}

/// Whether this process was made by [`clone3`], and executed nothing since.
#[must_use]
pub fn is_copy() -> bool {
    IS_COPY.load(Ordering::Relaxed)
}

/// Whether this process has one thread: the kernel refuses to unshare signal handlers where there is another, and does
/// nothing where there is none (unshare(2)).
fn is_single_threaded() -> bool {
    // SAFETY: touches no memory, and has no effect.
    match Errno::result(unsafe { libc::unshare(libc::CLONE_SIGHAND) }) {
        Ok(_) => true,
        Err(Errno::EINVAL) => is_alone_in_harness(),
        // A filter around us may refuse the call as such.
        Err(_) => std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1),
    }
}

/// Whether this is a test that runs alone: the harness's main thread sleeps in the kernel until it is over, outside of every
/// lock. It may be on its way there still. There are no such processes but those of tests.
fn is_alone_in_harness() -> bool {
    // Ten seconds at most.
    #[cfg(any(test, feature = "testing"))]
    for _ in 0..2000 {
        if std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count) != 2 {
            return false;
        }
        let main = std::fs::read_to_string(format!("/proc/self/task/{}/stat", std::process::id()));
        if main.is_ok_and(|main| main.contains(") S ")) {
            return true;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    false
}

/// # Safety
/// No other thread of this process holds a lock that the child will want.
unsafe fn copy(flags: u64) -> Result<Side, Errno> {
    let mut pidfd: RawFd = -1;
    let siblings = flags & libc::CLONE_PARENT as u64 != 0;
    let args = libc::clone_args {
        flags: flags | libc::CLONE_PIDFD as u64,
        pidfd: (&raw mut pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        // A sibling inherits the signal of the process that makes it, and the kernel refuses another.
        exit_signal: if siblings { 0 } else { libc::SIGCHLD as u64 },
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: 0,
    };
    // SAFETY: without CLONE_VM the child gets a copy of the memory, as after fork(2), in which the caller's promise holds.
    // `args` lives across the call.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    match Errno::result(result)? {
        0 => {
            IS_COPY.store(true, Ordering::Relaxed);
            Ok(Side::Child)
        }
        pid => {
            // SAFETY: the kernel has just stored a new descriptor there, and nobody else owns it.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Pid::from_raw(pid as i32).map(|pid| Side::Parent(pid, pidfd)).ok_or(Errno::EINVAL)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_several_threads_is_not_copied() {
        std::thread::scope(|scope| {
            // Beside the harness's own two, of which a test that runs alone may be copied.
            let other = scope.spawn(std::thread::park);
            assert!(matches!(clone3(0), Err(Errno::EBUSY)));
            other.thread().unpark();
        });
    }

    #[test]
    fn a_copy_knows_that_it_is_one() {
        nsrs_testing::alone!();
        let child = crate::sys::child::spawn(0, || i32::from(is_copy() && is_single_threaded()));
        assert_eq!(child.unwrap().wait(None), Some(crate::sys::wait::Status::Exited(1)));
        assert!(!is_copy());
    }
}
