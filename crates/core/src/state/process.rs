//! Processes that are known by more than their number, which passes on to another when they have ended.

use std::fs;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// When a process was started, in ticks since boot: field 22 of /proc/PID/stat (proc_pid_stat(5)), counted after the name
/// in parentheses. `None` for one that is gone.
#[must_use]
pub fn started(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

/// A pidfd of the process with this number, if what is wanted of its start, in ticks since boot, is true of it.
pub fn hold(pid: i32, is_start: impl FnOnce(u64) -> bool) -> Option<OwnedFd> {
    // The descriptor is taken first: from here on the number can't pass to another process unnoticed.
    pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok().filter(|_| started(pid).is_some_and(is_start))
}
