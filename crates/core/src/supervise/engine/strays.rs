//! Processes of which nobody could tell any more.
//!
//! An intermediate process can be killed between the birth of a process and the word of it. What it has made then ends by
//! itself, or with its container; but until it is reaped the kernel holds the end of its PID namespace back
//! (pid_namespaces(7)). It is found by its process group, which is that of the intermediate process until it may go on.

use std::time::{Duration, Instant};

use nsrs_base::sys::signal::send_to_group;
use nsrs_base::sys::wait::{GroupEnd, reap_group};
use rustix::process::Pid;

/// How long one that has not ended is left alone.
const AGAIN: Duration = Duration::from_millis(2);

/// The process groups of intermediate processes that were killed.
#[derive(Debug, Default)]
pub struct Strays(Vec<Pid>);

impl Strays {
    /// An intermediate process was killed, and reaped: it may have left one.
    pub fn look_for(&mut self, leader: Pid) {
        self.0.push(leader);
        self.reap();
    }

    /// When there is something to do.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        (!self.0.is_empty()).then(|| Instant::now() + AGAIN)
    }

    /// Reaps what has ended, and ends what has not.
    pub fn reap(&mut self) {
        self.0.retain(|leader| match reap_group(*leader) {
            GroupEnd::Ended | GroupEnd::NoChild => false,
            GroupEnd::Running => {
                // A child that is not reaped keeps the number.
                send_to_group(*leader, libc::SIGKILL);
                true
            }
        });
    }
}
