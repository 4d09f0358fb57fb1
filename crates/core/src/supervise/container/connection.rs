//! The channel to a process, and the one that takes its place.

use crate::steps::channel::Channel;

/// The channel to a process of a container.
#[derive(Debug)]
pub struct Connection {
    current: Channel,
    /// Takes its place when it closes: an intermediate process has one for the process that it makes.
    successor: Option<Channel>,
}

impl From<Channel> for Connection {
    fn from(current: Channel) -> Connection {
        Connection { current, successor: None }
    }
}

impl Connection {
    /// The channel in use.
    #[must_use]
    pub fn current(&self) -> &Channel {
        &self.current
    }

    /// The same connection, with the channel that follows when this one closes.
    #[must_use]
    pub fn with_successor(self, successor: Option<Channel>) -> Connection {
        Connection { successor, ..self }
    }

    /// Replaces the channel in use at once, and returns the old one.
    pub fn replace(&mut self, new: Channel) -> Channel {
        std::mem::replace(&mut self.current, new)
    }

    /// The channel in use has closed: the successor takes its place, if there is one. Returns the old channel.
    pub fn succeed(&mut self) -> Option<Channel> {
        self.successor.take().map(|successor| self.replace(successor))
    }
}
