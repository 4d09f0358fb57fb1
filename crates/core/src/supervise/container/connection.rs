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
    /// The channel that is spoken over now.
    #[must_use]
    pub fn current(&self) -> &Channel {
        &self.current
    }

    /// With another one to come.
    #[must_use]
    pub fn with_successor(self, successor: Option<Channel>) -> Connection {
        Connection { successor, ..self }
    }

    /// Another one takes its place, now. The old one comes back.
    pub fn replace(&mut self, new: Channel) -> Channel {
        std::mem::replace(&mut self.current, new)
    }

    /// It has closed: the one to come takes its place, if there is one. The old one comes back.
    pub fn succeed(&mut self) -> Option<Channel> {
        self.successor.take().map(|successor| self.replace(successor))
    }
}
