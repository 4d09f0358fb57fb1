//! A process that is a copy of another: what it lets go of, and its end.

use std::fs::File;

use super::fds::replace_stdio;

/// Lets go of what is the caller's, in a copy that outlives the command: its session, its streams, whose reader must see
/// their end, and its current directory, whose file system somebody may want to unmount.
pub fn leave_caller() {
    let _ = rustix::process::setsid();
    let _ = rustix::process::chdir("/");
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        for number in 0..=2 {
            let _ = null.try_clone().map(|null| replace_stdio(null.into(), number));
        }
    }
}

/// Ends this process at once: no destructor and no exit handler of the process it was copied from runs.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) doesn't return and touches no memory.
    unsafe { libc::_exit(code) }
}

/// Sends a signal by number, real-time signals included, through a pidfd (pidfd_send_signal(2)). A process that has ended
/// needs none.
pub fn send_signal(pidfd: impl std::os::fd::AsFd, signal: i32) {
    let fd = std::os::fd::AsRawFd::as_raw_fd(&pidfd.as_fd());
    // SAFETY: a null siginfo lets the kernel fill it as kill(2) does.
    unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, std::ptr::null::<libc::siginfo_t>(), 0) };
}
