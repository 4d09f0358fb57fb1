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
    /// Its number, ours until it is reaped.
    pub pid: Pid,
    /// Readable when it has ended.
    pub pidfd: OwnedFd,
    /// Its entry in the journal.
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

    /// Ends a process that nobody watches, and waits for that.
    pub fn end_now(&self) {
        self.kill();
        readable_within(&self.pidfd, None);
        let _ = reap(self.pid);
    }
}
