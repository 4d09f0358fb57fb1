//! clone3(2).

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use rustix::process::Pid;

/// Which side of the call we are on.
pub enum Side {
    /// In the new process.
    Child,
    /// In the caller: the new process's number and a descriptor that stays bound to it.
    Parent(Pid, OwnedFd),
}

/// Makes a process like fork(2), in new namespaces (`CLONE_NEW*` in `flags`).
///
/// # Errors
/// Those of clone3(2). `ENOSYS` before Linux 5.3.
pub fn clone3(flags: u64) -> Result<Side, Errno> {
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
    // SAFETY: without CLONE_VM the child gets a copy of the memory, as after fork(2), and every process that calls this
    // is single-threaded, so no lock is held by a thread that the copy lacks. `args` lives across the call.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    match Errno::result(result)? {
        0 => Ok(Side::Child),
        pid => {
            // SAFETY: the kernel has just stored a new descriptor there, and nobody else owns it.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Pid::from_raw(pid as i32).map(|pid| Side::Parent(pid, pidfd)).ok_or(Errno::EINVAL)
        }
    }
}
