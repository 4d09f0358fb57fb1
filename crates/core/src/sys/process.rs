//! The end of a process that is a copy of another.

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
