//! The messages between a container's process and the supervisor until the command is executed.
//!
//! The channel is closed on exec: its end tells the supervisor that the command runs, or, after a [`FromChild::Failed`],
//! that it never will. An init keeps its own while the command runs.
//!
//! It is a socket, which carries descriptors, as long as nobody in the container can reach the process's end, and a
//! [`mailbox`] from then on.

mod mailbox;

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use self::mailbox::{ProcessEnd, SupervisorEnd};
use super::enter::Destination;
use crate::plan::process::Process;
use nsrs_base::error::{At, Code, Error, Result};
use nsrs_base::sys::message;
use nsrs_base::sys::poll::is_readable;

/// From the container to the supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromChild {
    /// A step failed; nothing was executed.
    Failed(Error),
    /// The intermediate process has made the container's first process, or one that enters: the number of that process,
    /// which is a child of the supervisor's.
    ProcessMade(i32),
    /// The intermediate process is in a new user namespace and waits for [`ToChild::Mapped`].
    NeedMaps,
    /// Everything but the network stands; the process waits for [`ToChild::Connected`].
    NeedNetwork,
    /// Something that whoever asked for the container should know.
    Note(String),
    /// The container's terminal, with its descriptor.
    Terminal,
    /// With the supervisor's end of the mailbox that takes the place of this channel: nothing more comes over this one.
    Channel,
    /// The init of a container in a shared PID namespace has taken charge of the command's descendants, and waits for
    /// [`ToChild::Start`].
    InCharge,
    /// The init executed the command.
    Executed,
    /// The init saw the command end; the status word of wait(2).
    Ended(i32),
    /// The command's changes will be wanted: with the directory of the writable layers, the record of what they are, and
    /// the user namespace, where there is one of its own.
    Layers,
    /// A prewarmed container stands and waits for [`ToChild::Process`]; with its mount namespace, unless something of the
    /// caller's is mounted there. Or an intermediate process has entered its container, and waits for the same; with the
    /// supervisor's end of the mailbox that takes the place of its channel when that closes, shortly before it makes the process.
    Ready,
}

/// From the supervisor to the entrance ([`super::enter`]).
#[derive(Debug, Serialize, Deserialize)]
pub enum ToEntrance {
    /// Make an intermediate process. The number is the supervisor's for the answer.
    Prepare(u64),
}

/// From the entrance to the supervisor: at least one answer to each [`ToEntrance::Prepare`]. Of two the first counts: an
/// intermediate process can be ended before the entrance hears that it has answered.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromEntrance {
    /// The intermediate process was made; with its pidfd and the supervisor's end of its channel.
    Made {
        /// The number of the [`ToEntrance::Prepare`] that is answered.
        request: u64,
        /// The number of the intermediate process, a child of the supervisor's.
        pid: i32,
    },
    /// The intermediate process could not be made.
    Failed {
        /// The number of the [`ToEntrance::Prepare`] that is answered; `None` if the entrance itself failed to start.
        request: Option<u64>,
        /// The reason, for whoever requested the process.
        error: Error,
    },
}

/// From the supervisor to the container.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToChild {
    /// To a first process that an intermediate process made: the supervisor watches it, and it may go on.
    Known,
    /// The id maps are written.
    Mapped,
    /// The host's side of the network is there.
    Connected,
    /// To an init that is in charge: go on. From now on the supervisor asks it to end, and doesn't kill it.
    Start,
    /// To an intermediate process: the container to enter, with the pidfd of its first process.
    Enter(Box<Destination>),
    /// To a prewarmed container, and to an intermediate process: what to execute. Its descriptors: standard input, output
    /// and error, unless the process has a terminal of its own, then those of `preserve_fds`.
    Process(Box<Process>),
}

/// Largest message: an error with its texts, a command with an environment of the usual size.
const MOST: usize = message::MOST_BYTES;

const TALK: &str = "talk over the channel of the container";
const READ: &str = "read from the channel of the container";

/// Stands for a message that is too large for the socket, and lies in the memory behind the first descriptor.
const IN_MEMORY: &[u8] = b"+";

fn serialize(message: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(message).expect("messages are plain data")
}

/// Encodes a message for the channel.
///
/// # Errors
/// It is too large.
pub fn encode(message: &impl Serialize) -> Result<Vec<u8>> {
    let bytes = serialize(message);
    if bytes.len() > MOST { Err(Error::os(TALK, "", Errno::MSGSIZE)) } else { Ok(bytes) }
}

/// Decodes a message from the channel.
///
/// # Errors
/// It is not one of this program's.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| Error::new(Code::SetupFailed, READ, error.to_string()))
}

/// The result of one attempt of the supervisor to receive a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<T> {
    /// A message arrived.
    Message(T),
    /// Nothing is there now: another process has taken it.
    Nothing,
    /// The other end is gone, and nothing more comes.
    End,
}

/// One end of the channel between a process and the supervisor. It carries whole messages.
#[derive(Debug)]
pub struct Channel(Medium);

#[derive(Debug)]
enum Medium {
    /// Either end of a pair of sockets (`SOCK_SEQPACKET`).
    Socket(OwnedFd),
    SupervisorEnd(SupervisorEnd),
    ProcessEnd(ProcessEnd),
}

impl Channel {
    /// A new channel of sockets: the supervisor's end and the process's.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn pair() -> Result<(Channel, Channel)> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .at("open the channel to the container", "")?;
        Ok((Channel::from_fd(ours), Channel::from_fd(theirs)))
    }

    /// A new channel whose process's end may get into anybody's hands: the supervisor's end and the process's. It carries no
    /// descriptors.
    ///
    /// # Errors
    /// No descriptors or no memory are left.
    pub fn mailbox() -> Result<(Channel, Channel)> {
        let (ours, theirs) = mailbox::pair()?;
        Ok((Channel(Medium::SupervisorEnd(ours)), Channel(Medium::ProcessEnd(theirs))))
    }

    /// Sends a message with its descriptors.
    ///
    /// # Errors
    /// The other end is gone, the message is too large for it, or it takes no descriptors.
    pub fn send(&self, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> Result<()> {
        self.send_bytes(&encode(message)?, fds)
    }

    fn send_bytes(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        match &self.0 {
            Medium::Socket(socket) => message::send(socket, bytes, fds).at(TALK, "").map(drop),
            _ if !fds.is_empty() => Err(Error::new(Code::SetupFailed, TALK, "it carries no file descriptors")),
            Medium::SupervisorEnd(end) => end.send(bytes),
            Medium::ProcessEnd(end) => end.send(bytes),
        }
    }

    /// Waits for a message; `None` when the other end is gone.
    ///
    /// # Errors
    /// The message is not one of this program's.
    pub fn receive<T: DeserializeOwned>(&self) -> Result<Option<(T, Vec<OwnedFd>)>> {
        loop {
            if let Medium::SupervisorEnd(end) = &self.0 {
                end.wait()?;
            }
            match self.next()? {
                Received::Message(received) => return Ok(Some(received)),
                Received::Nothing => {}
                Received::End => return Ok(None),
            }
        }
    }

    /// As [`Channel::receive`], for the supervisor, which never waits for what may be in reach of a container.
    ///
    /// # Errors
    /// The message is not one of this program's.
    pub fn next<T: DeserializeOwned>(&self) -> Result<Received<(T, Vec<OwnedFd>)>> {
        let mut fds = Vec::new();
        let message = match &self.0 {
            Medium::SupervisorEnd(end) => match end.receive(decode)? {
                Received::Message(message) => message?,
                Received::Nothing => return Ok(Received::Nothing),
                Received::End => return Ok(Received::End),
            },
            Medium::Socket(_) | Medium::ProcessEnd(_) => {
                let read = |bytes: &[u8]| if bytes.is_empty() { Ok(None) } else { decode(bytes).map(Some) };
                let Some(message) = self.receive_with(&mut fds, read)?? else { return Ok(Received::End) };
                message
            }
        };
        Ok(Received::Message((message, fds)))
    }

    /// As [`Channel::send`], but of any size, for a process of our own that takes it by [`Channel::receive_any_size`].
    ///
    /// # Errors
    /// The other end is gone; no memory is left.
    pub fn send_any_size(&self, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> Result<()> {
        let bytes = serialize(message);
        if bytes.len() <= MOST {
            return self.send_bytes(&bytes, fds);
        }
        let mut memory = File::from(memfd_create("nsrs-message", MemfdFlags::CLOEXEC).at(TALK, "")?);
        memory.write_all(&bytes).and_then(|()| memory.rewind()).at(TALK, "")?;
        let fds: Vec<_> = std::iter::once(memory.as_fd()).chain(fds.iter().copied()).collect();
        self.send_bytes(IN_MEMORY, &fds)
    }

    /// As [`Channel::receive`], for what was sent by [`Channel::send_any_size`]. It reads a descriptor that the other end
    /// chose, so only from the supervisor.
    ///
    /// # Errors
    /// The message is not one of this program's.
    pub fn receive_any_size<T: DeserializeOwned>(&self) -> Result<Option<(T, Vec<OwnedFd>)>> {
        let mut fds = Vec::new();
        let bytes = self.receive_with(&mut fds, <[u8]>::to_vec)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        if bytes != IN_MEMORY || fds.is_empty() {
            return decode(&bytes).map(|message| Some((message, fds)));
        }
        let mut bytes = Vec::new();
        File::from(fds.remove(0)).read_to_end(&mut bytes).at(READ, "")?;
        decode(&bytes).map(|message| Some((message, fds)))
    }

    /// The bytes of the socket's next message, none at the end, as `act` makes of them.
    fn receive_with<T>(&self, fds: &mut Vec<OwnedFd>, act: impl Fn(&[u8]) -> T) -> Result<T> {
        loop {
            match message::receive(self.socket(), fds, &act) {
                // The other end closed without having read all of ours: reported once, and what it sent can still be read.
                Err(Errno::INTR | Errno::CONNRESET) => {}
                other => return other.at(READ, ""),
            }
        }
    }

    /// The socket, which is all that one of [`Channel::pair`] has.
    #[must_use]
    pub fn socket(&self) -> &OwnedFd {
        match &self.0 {
            Medium::Socket(socket) => socket,
            Medium::SupervisorEnd(end) => end.socket(),
            Medium::ProcessEnd(end) => end.socket(),
        }
    }

    /// Whether something can be received, or the other end is gone or says nothing more.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        match &self.0 {
            Medium::SupervisorEnd(end) => end.is_readable(),
            Medium::Socket(socket) => is_readable(socket),
            Medium::ProcessEnd(end) => is_readable(end.socket()),
        }
    }

    /// What to watch: one of these is readable when the channel is.
    #[must_use]
    pub fn sources(&self) -> Vec<BorrowedFd<'_>> {
        match &self.0 {
            Medium::SupervisorEnd(end) => end.sources().into(),
            Medium::Socket(_) | Medium::ProcessEnd(_) => vec![self.socket().as_fd()],
        }
    }

    /// Says nothing more: for the other end that is the end.
    ///
    /// # Errors
    /// The other end is gone.
    pub fn shut_down(&self) -> Result<()> {
        shutdown(self.socket(), Shutdown::Write).at(TALK, "")
    }

    /// A copy of the process's end.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn try_clone(&self) -> Result<Channel> {
        let copies = self.fds().into_iter().map(|fd| fd.try_clone_to_owned());
        let copies: Vec<_> = copies.collect::<Result<_, _>>().at("hold the channel of the container", "")?;
        Channel::of_process(copies)
    }

    /// The descriptors of this end: one for a socket, three for a mailbox.
    #[must_use]
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        match &self.0 {
            Medium::Socket(socket) => vec![socket.as_fd()],
            Medium::SupervisorEnd(end) => end.fds().into(),
            Medium::ProcessEnd(end) => end.fds().into(),
        }
    }

    /// The end of a process, from copies of its [`Channel::fds`].
    ///
    /// # Errors
    /// There are neither one nor three descriptors.
    pub fn of_process(fds: Vec<OwnedFd>) -> Result<Channel> {
        match <[OwnedFd; 1]>::try_from(fds) {
            Ok([socket]) => Ok(Channel::from_fd(socket)),
            Err(fds) => three(fds).map(|fds| Channel(Medium::ProcessEnd(ProcessEnd::from_fds(fds)))),
        }
    }

    /// The supervisor's end of a [`Channel::mailbox`], from its [`Channel::fds`].
    ///
    /// # Errors
    /// There are neither one nor three descriptors.
    pub fn of_supervisor(fds: Vec<OwnedFd>) -> Result<Channel> {
        three(fds).map(|fds| Channel(Medium::SupervisorEnd(SupervisorEnd::from_fds(fds))))
    }

    /// Wraps a socket that was handed over.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Channel {
        Channel(Medium::Socket(fd))
    }
}

fn three(fds: Vec<OwnedFd>) -> Result<[OwnedFd; 3]> {
    fds.try_into()
        .map_err(|_| Error::new(Code::SetupFailed, "take over the channel", "these are not its file descriptors"))
}
