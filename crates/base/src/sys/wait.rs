//! wait4(2): the end of a child with what it used.

use nix::errno::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use serde::{Deserialize, Serialize};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Status {
    /// It exited with this code.
    Exited(i32),
    /// A signal of this number killed it.
    Signaled(i32),
}

impl Status {
    /// The exit code of a shell for this end: the code, or 128 and the signal's number.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Status::Exited(code) => code,
            Status::Signaled(signal) => 128 + signal,
        }
    }

    /// Reads the status word of wait(2).
    #[must_use]
    pub fn from_raw(status: i32) -> Status {
        if libc::WIFSIGNALED(status) {
            Status::Signaled(libc::WTERMSIG(status))
        } else {
            Status::Exited(libc::WEXITSTATUS(status))
        }
    }
}

/// What a process and the descendants it waited for used (getrusage(2)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Microseconds of processor time in the program.
    pub user_us: u64,
    /// Microseconds of processor time in the kernel.
    pub system_us: u64,
    /// Most memory one process held, in bytes.
    pub max_rss: u64,
}

/// Is this a child of this process, whether it has ended or not? Its number stays its own until it is reaped.
#[must_use]
pub fn is_child(pid: Pid) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    waitid(WaitId::Pid(pid), options).is_ok()
}

/// Has this process a child in the process group of this leader that has not ended (waitid(2), `P_PGID`)?
#[must_use]
pub fn has_child_in_group(leader: Pid) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    matches!(waitid(WaitId::Pgid(Some(leader)), options), Ok(None))
}

/// The status of a child that has ended and can't be reaped yet, as somebody else traces it (proc_pid_stat(5), `exit_code`).
#[must_use]
pub fn hidden_status(pid: Pid) -> Option<Status> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    stat.trim_end().rsplit(' ').next()?.parse().ok().map(Status::from_raw)
}

/// Takes the status of a child that has ended; `None` while it has not.
///
/// # Errors
/// `ECHILD`: this process has no such child.
pub fn reap(pid: Pid) -> Result<Option<(Status, Usage)>, Errno> {
    let mut status = 0;
    // SAFETY: rusage is plain numbers, for which all zeroes are a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers live across the call.
    let result = unsafe { libc::wait4(pid.as_raw_nonzero().get(), &raw mut status, libc::WNOHANG, &raw mut usage) };
    if Errno::result(result)? == 0 {
        return Ok(None);
    }
    let micros = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
    let usage = Usage {
        user_us: micros(usage.ru_utime),
        system_us: micros(usage.ru_stime),
        max_rss: usage.ru_maxrss as u64 * 1024,
    };
    Ok(Some((Status::from_raw(status), usage)))
}
