//! A process of the supervisor's own.

use std::os::fd::OwnedFd;

use nsrs_base::sys::poll::readable_within;
use nsrs_base::sys::process::send_signal;
use nsrs_base::sys::wait::reap;
use rustix::process::Pid;

use crate::state::journal::EntryId;

/// A process that the supervisor is the parent of, and its pidfd.
#[derive(Debug)]
pub struct Child {
    /// Its process id, which is not reused before it is reaped.
    pub pid: Pid,
    /// Readable when it has ended.
    pub pidfd: OwnedFd,
    /// Its entry in the journal; `None` before it is recorded.
    pub slot: Option<EntryId>,
}

impl Child {
    /// A process that is in no journal yet.
    #[must_use]
    pub fn new(pid: Pid, pidfd: OwnedFd) -> Child {
        Child { pid, pidfd, slot: None }
    }

    /// Kills it. Its end comes as an event.
    pub fn kill(&self) {
        send_signal(&self.pidfd, libc::SIGKILL);
    }

    /// It has ended, or is about to: the first process of a PID namespace stays until all others in it are gone
    /// (`PF_EXITING` among the flags, proc_pid_stat(5)).
    #[must_use]
    pub fn is_exiting(&self) -> bool {
        const PF_EXITING: u64 = 0x4;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid.as_raw_nonzero())).unwrap_or_default();
        let flags = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(6)?.parse().ok());
        flags.is_none_or(|flags: u64| flags & PF_EXITING != 0)
    }

    /// Ends a process that nobody watches, and waits for that.
    pub fn end_now(&self) {
        self.kill();
        readable_within(&self.pidfd, None);
        let _ = reap(self.pid);
    }
}
