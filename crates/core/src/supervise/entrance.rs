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

/// What the entrance has answered.
pub enum EntranceAnswer {
    /// An intermediate process is made; this is the channel to it.
    Made(Key, Child, Channel),
    /// It could not be made.
    Failed(Key, Error),
    /// An answer that nobody waits for.
    Late,
    /// The entrance is gone.
    Gone,
}

/// The entrance of one supervisor.
#[derive(Debug)]
pub struct Entrance {
    child: Child,
    channel: Channel,
    /// For whom it was asked and has not answered, by the numbers of the requests.
    pending: BTreeMap<u64, Key>,
    /// The next of these numbers.
    next: u64,
}

impl Entrance {
    /// Starts it.
    ///
    /// # Errors
    /// No process can be made.
    pub fn start(program: &OwnedFd) -> Result<Entrance> {
        let enter::EntranceProcess { pid, pidfd, channel } = enter::start(program)?;
        Ok(Entrance { child: Child::new(pid, pidfd), channel, pending: BTreeMap::new(), next: 1 })
    }

    /// Readable when it answers.
    #[must_use]
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Readable when it has ended.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.child.pidfd.as_fd()
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.child.pid
    }

    /// Asks for an intermediate process.
    ///
    /// # Errors
    /// The entrance is gone.
    pub fn ask(&mut self, key: Key) -> Result<()> {
        self.channel.send(&ToEntrance::Prepare(self.next), &[])?;
        self.pending.insert(self.next, key);
        self.next += 1;
        Ok(())
    }

    /// Takes one answer.
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
                _ => EntranceAnswer::Failed(key, lost()),
            },
            FromEntrance::Failed { error, .. } => EntranceAnswer::Failed(key, error),
        }
    }

    /// Ends it, and returns those for whom it will make none.
    pub fn end(self) -> impl Iterator<Item = Key> {
        self.child.end_now();
        self.pending.into_values()
    }
}

/// Why nobody can enter.
#[must_use]
pub fn lost() -> Error {
    Error::new(Code::SetupFailed, "enter the container", "the process that makes those who enter is gone")
}
