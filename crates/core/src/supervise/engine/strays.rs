//! Children that the supervisor has and nobody told it of.
//!
//! A command that is not PID 1 can make siblings (`CLONE_PARENT`, clone(2)). And an intermediate process can be killed between
//! the birth of a process and the word of it. Until such a child is reaped, the kernel holds the end of its PID namespace back
//! (pid_namespaces(7)). `SIGCHLD` tells of all: from the first container on in which there may be any, so that the starts of
//! others don't pay for it.

use std::time::{Duration, Instant};

use nsrs_base::error::{At, Result};
use nsrs_base::sys::child_ends::{ChildEnds, ended_child};
use nsrs_base::sys::signal::send_to_group;
use nsrs_base::sys::wait::{has_child_in_group, reap};
use rustix::event::epoll::EventFlags;
use rustix::process::Pid;

use super::Engine;
use super::token::{Key, Token};
use crate::supervise::container::member::Member;
use crate::supervise::container::{Container, ListingState};

/// How long a child is left to whoever waits for it, where it hides others from us.
const AGAIN: Duration = Duration::from_millis(2);

/// What is known of the supervisor's children as a whole.
#[derive(Debug, Default)]
pub struct Strays {
    /// Tells of the end of each; none before there may be strays.
    ends: Option<ChildEnds>,
    /// There may be more behind one that is somebody's.
    again: bool,
}

impl Strays {
    /// When there is something to do.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.again.then(|| Instant::now() + AGAIN)
    }
}

impl Engine {
    /// Looks for strays from now on. Not where this engine serves one request only: what it leaves ends with it.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(super) fn watch_for_strays(&mut self) -> Result<()> {
        if self.pool.is_some() && self.strays.ends.is_none() {
            let ends = ChildEnds::watch().at("watch the children", "")?;
            self.events.watch(&ends, Token::Children, EventFlags::IN)?;
            self.strays.ends = Some(ends);
        }
        Ok(())
    }

    /// Reaps the strays that have ended. After everything else that was ready: then the others are reaped already.
    pub(super) fn reap_strays(&mut self) {
        let Some(ends) = &self.strays.ends else { return };
        ends.clear();
        // A process whose report has not been read yet is not a stray.
        for key in self.expecting() {
            self.drain(key);
        }
        self.strays.again = false;
        while let Some(pid) = ended_child() {
            if self.has_child(pid) {
                self.strays.again = true;
                return;
            }
            let _ = reap(pid);
        }
    }

    /// An intermediate process was killed, and reaped: what it may have made is in its process group until it may go on. That
    /// ends by itself, unless somebody stops it.
    pub(super) fn end_stray_of(&self, leader: Pid) {
        if has_child_in_group(leader) {
            send_to_group(leader, libc::SIGKILL);
        }
    }

    /// The members whose intermediate process may have reported its process, in a message that was not read yet.
    fn expecting(&self) -> Vec<Key> {
        let all = self.containers.iter().flat_map(|(number, container)| container.members(*number));
        all.filter(|(_, member)| member.phase.expects_process()).map(|(key, _)| key).collect()
    }

    /// Somebody here waits for the end of the process of this number.
    pub(super) fn has_child(&self, pid: Pid) -> bool {
        self.containers.values().any(|container| container.has_child(pid))
            || self.entrance.as_ref().is_some_and(|entrance| entrance.pid() == pid)
            || self.janitor.has_child(pid)
    }
}

impl Container {
    /// The process of this number is one of its own, or works for it.
    fn has_child(&self, pid: Pid) -> bool {
        let is_member = |member: &Member| {
            member.phase.child().into_iter().chain(&member.intermediate).any(|child| child.pid == pid)
        };
        self.members(0).any(|(_, member)| is_member(member))
            || self.user_network.as_ref().is_some_and(|network| network.process.pid == pid)
            || matches!(&self.listing, ListingState::Running(collector) if collector.pid == pid)
    }
}
