//! The entrance, as the supervisor holds it: the process that makes those which enter containers. What it does and why it
//! is a process of its own stands in [`crate::steps::enter`].

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nsrs_base::error::{Code, Error, Result};
use rustix::process::Pid;

use super::container::child::Child;
use super::engine::token::Key;
use crate::steps::channel::{Channel, FromEntrance, ToEntrance};
use crate::steps::enter;

/// An answer of the entrance, or its end.
pub enum EntranceAnswer {
    /// An intermediate process was made for this member, with the channel to it.
    Made(Key, Child, Channel),
    /// The intermediate process for this member could not be made.
    Failed(Key, Error),
    /// An answer that nobody waits for.
    Late,
    /// The entrance has ended, or sent what is not an answer.
    Gone,
}

/// The entrance of one supervisor: the process that makes those that enter containers.
#[derive(Debug)]
pub struct Entrance {
    child: Child,
    channel: Channel,
    /// Members that wait for an answer, by the numbers of the requests.
    pending: BTreeMap<u64, Key>,
    /// The next of these numbers.
    next: u64,
}

impl Entrance {
    /// Starts the entrance from our own executable in sealed memory.
    ///
    /// # Errors
    /// No process can be made.
    pub fn start(program: &OwnedFd) -> Result<Entrance> {
        let enter::EntranceProcess { pid, pidfd, channel } = enter::start(program)?;
        Ok(Entrance { child: Child::new(pid, pidfd), channel, pending: BTreeMap::new(), next: 1 })
    }

    /// The channel to the entrance, readable when it answers.
    #[must_use]
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// The pidfd of the entrance, readable when it has ended.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.child.pidfd.as_fd()
    }

    /// The process id of the entrance.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.child.pid
    }

    /// Asks for an intermediate process that will make the process of this member.
    ///
    /// # Errors
    /// The entrance is gone.
    pub fn ask(&mut self, key: Key) -> Result<()> {
        self.channel.send(&ToEntrance::Prepare(self.next), &[])?;
        self.pending.insert(self.next, key);
        self.next += 1;
        Ok(())
    }

    /// Reads one answer from the channel.
    pub fn answer(&mut self) -> EntranceAnswer {
        let (message, fds) = match self.channel.receive::<FromEntrance>() {
            Ok(Some(received)) => received,
            Ok(None) | Err(_) => return EntranceAnswer::Gone,
        };
        let request = match &message {
            FromEntrance::Made { request, .. } => Some(*request),
            FromEntrance::Failed { request, .. } => *request,
        };
        let Some(request) = request.or_else(|| self.pending.keys().next().copied()) else {
            return EntranceAnswer::Gone;
        };
        let Some(key) = self.pending.remove(&request) else { return EntranceAnswer::Late };
        let mut fds = fds.into_iter();
        match message {
            FromEntrance::Made { pid, .. } => match (Pid::from_raw(pid), fds.next(), fds.next()) {
                (Some(pid), Some(pidfd), Some(channel)) => {
                    EntranceAnswer::Made(key, Child::new(pid, pidfd), Channel::from_fd(channel))
                }
                _ => EntranceAnswer::Failed(key, entrance_lost()),
            },
            FromEntrance::Failed { error, .. } => EntranceAnswer::Failed(key, error),
        }
    }

    /// Ends the entrance, and returns the members whose intermediate process will not be made.
    pub fn end(self) -> impl Iterator<Item = Key> {
        self.child.end_now();
        self.pending.into_values()
    }
}

/// The error of a request to enter whose entrance is gone.
#[must_use]
pub fn entrance_lost() -> Error {
    Error::new(Code::SetupFailed, "enter the container", "the process that makes those who enter is gone")
}
