//! The channel of a process that is in reach of its container: who may trace that one can take its end (pidfd_getfd(2)) and
//! do with it what they like. It can't hold the supervisor up.
//!
//! - **To the supervisor** messages go through memory, where they lie one behind the other, each behind its length. A counter
//!   (eventfd(2)) tells of them. A socket would carry descriptors, and the supervisor, which gets them with the message,
//!   would sleep in close(2) for as long as the sender likes: a TCP socket lingers, a file of FUSE waits for its file system.
//!   In a pipe the sender holds a lock that the supervisor needs ([`shared_memory`]). And here nobody can send without end:
//!   when the memory is full, that was all.
//! - **To the process** messages go through a socket, which the supervisor never waits for either. It throws away what it is
//!   sent, so that all it tells the supervisor is its end.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd};
use rustix::io::{Errno, ReadWriteFlags, pread, preadv2, write};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::{MOST, READ, Received, TALK};
use nsrs_base::error::{At, Code, Error, Result};
use nsrs_base::sys::message::{refuse_all, send_at_once};
use nsrs_base::sys::poll::{self, is_readable};
use nsrs_base::sys::shared_memory;

/// Size of the memory: for two of the largest messages. A process sends no more than three small ones and a large one.
const SIZE: NonZeroUsize = NonZeroUsize::new(2 * MOST + 4096).unwrap();
/// Size of a number in the memory, in the order of this machine's bytes: at the start that of the bytes that follow it, and
/// before each message that of its bytes.
const NUMBER: usize = size_of::<u32>();

const OPEN: &str = "open the channel to the container";

/// What both ends have: three descriptors, in this order.
#[derive(Debug)]
struct Parts {
    socket: OwnedFd,
    memory: OwnedFd,
    counter: OwnedFd,
}

impl Parts {
    fn fds(&self) -> [BorrowedFd<'_>; 3] {
        [self.socket.as_fd(), self.memory.as_fd(), self.counter.as_fd()]
    }

    fn of(fds: [OwnedFd; 3]) -> Parts {
        let [socket, memory, counter] = fds;
        Parts { socket, memory, counter }
    }

    fn number_at(&self, offset: usize) -> Result<usize> {
        let mut bytes = [0; NUMBER];
        pread(&self.memory, &mut bytes, offset as u64).at(READ, "")?;
        Ok(u32::from_ne_bytes(bytes) as usize)
    }
}

/// A new mailbox: the supervisor's end and the process's.
///
/// # Errors
/// No descriptors or no memory are left.
pub fn pair() -> Result<(SupervisorEnd, ProcessEnd)> {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).at(OPEN, "")?;
    refuse_all(&ours).at(OPEN, "")?;
    let memory = shared_memory::create("nsrs-messages", SIZE).at(OPEN, "")?;
    let counter = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).at(OPEN, "")?;
    let copies = [memory.try_clone().at(OPEN, "")?, counter.try_clone().at(OPEN, "")?];
    let [their_memory, their_counter] = copies;
    Ok((
        SupervisorEnd::from_fds([ours, memory, counter]),
        ProcessEnd(Parts { socket: theirs, memory: their_memory, counter: their_counter }),
    ))
}

/// The end of the supervisor, to which everything that comes from the other may be hostile.
#[derive(Debug)]
pub struct SupervisorEnd {
    parts: Parts,
    /// How many messages the counter told of that were not received.
    announced: Cell<u64>,
    /// Where the next one lies.
    next: Cell<usize>,
}

impl SupervisorEnd {
    /// Takes over the memory, the counter and the socket of this end.
    pub fn from_fds(fds: [OwnedFd; 3]) -> SupervisorEnd {
        SupervisorEnd { parts: Parts::of(fds), announced: Cell::new(0), next: Cell::new(NUMBER) }
    }

    /// The memory, the counter and the socket of this end.
    pub fn fds(&self) -> [BorrowedFd<'_>; 3] {
        self.parts.fds()
    }

    /// The socket, for what is sent.
    pub fn socket(&self) -> &OwnedFd {
        &self.parts.socket
    }

    /// Readable when there is something to receive.
    pub fn sources(&self) -> [BorrowedFd<'_>; 2] {
        [self.parts.counter.as_fd(), self.parts.socket.as_fd()]
    }

    /// Whether there is something to receive.
    pub fn is_readable(&self) -> bool {
        self.announced.get() > 0 || self.sources().iter().any(is_readable)
    }

    /// Waits until there is something to receive.
    pub fn wait(&self) -> Result<()> {
        if self.announced.get() > 0 {
            return Ok(());
        }
        let sources = self.sources();
        let mut fds = sources.each_ref().map(|fd| PollFd::new(fd, PollFlags::IN));
        poll::wait(&mut fds, None).at(READ, "").map(drop)
    }

    /// The next message's bytes, as `act` makes of them. Never waits.
    ///
    /// # Errors
    /// What was announced isn't there.
    pub fn receive<T>(&self, act: impl FnOnce(&[u8]) -> T) -> Result<Received<T>> {
        // Looked at first: whoever closes the other end has sent all before.
        let is_over = is_readable(&self.parts.socket);
        if self.announced.get() == 0 {
            self.announced.set(self.count()?);
        }
        let Some(left) = self.announced.get().checked_sub(1) else {
            return Ok(if is_over { Received::End } else { Received::Nothing });
        };
        self.announced.set(left);
        let start = self.next.get();
        let length = if start + NUMBER <= SIZE.get() { self.parts.number_at(start)? } else { 0 };
        let end = start + NUMBER + length;
        if length == 0 || length > MOST || end > SIZE.get() {
            return Err(Error::new(Code::SetupFailed, READ, "a message was announced that isn't there"));
        }
        let mut bytes = vec![0; length];
        pread(&self.parts.memory, &mut bytes[..], (start + NUMBER) as u64).at(READ, "")?;
        self.next.set(end);
        Ok(Received::Message(act(&bytes)))
    }

    /// How many messages were announced since the last look.
    fn count(&self) -> Result<u64> {
        let mut bytes = [0; size_of::<u64>()];
        // NOWAIT, and not by the descriptor's flag: the other end's is the same file, and that flag is the file's. An offset of
        // -1 is that of read(2).
        let read =
            preadv2(&self.parts.counter, &mut [std::io::IoSliceMut::new(&mut bytes)], u64::MAX, ReadWriteFlags::NOWAIT);
        match read {
            Ok(_) => Ok(u64::from_ne_bytes(bytes)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(errno) => Err(errno).at(READ, ""),
        }
    }

    /// Sends one message over the socket, without waiting.
    ///
    /// # Errors
    /// The other end is gone, or takes nothing.
    pub fn send(&self, bytes: &[u8]) -> Result<()> {
        send_at_once(&self.parts.socket, bytes).at(TALK, "").map(drop)
    }
}

/// The end of the process. What has a copy of it can send and receive as well; not two at the same time.
#[derive(Debug)]
pub struct ProcessEnd(Parts);

impl ProcessEnd {
    /// Takes over the memory, the counter and the socket of this end.
    pub fn from_fds(fds: [OwnedFd; 3]) -> ProcessEnd {
        ProcessEnd(Parts::of(fds))
    }

    /// The memory, the counter and the socket of this end.
    pub fn fds(&self) -> [BorrowedFd<'_>; 3] {
        self.0.fds()
    }

    /// The socket, for what is received.
    pub fn socket(&self) -> &OwnedFd {
        &self.0.socket
    }

    /// Appends one message to the shared memory, and announces it by the counter.
    ///
    /// # Errors
    /// The memory is full.
    pub fn send(&self, bytes: &[u8]) -> Result<()> {
        let used = self.0.number_at(0)?;
        let message = [&(bytes.len() as u32).to_ne_bytes()[..], bytes].concat();
        self.write(NUMBER + used, &message)?;
        self.write(0, &((used + message.len()) as u32).to_ne_bytes())?;
        write(&self.0.counter, &1_u64.to_ne_bytes()).at(TALK, "").map(drop)
    }

    fn write(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        shared_memory::write(&self.0.memory, SIZE, offset, bytes).at(TALK, "")
    }
}

#[cfg(test)]
#[path = "mailbox_tests.rs"]
mod tests;
