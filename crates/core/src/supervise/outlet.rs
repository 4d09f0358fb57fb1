//! The command's output, where it goes into a pipe or socket of the caller.
//!
//! The kernel sends no `SIGPIPE` to the first process of a PID namespace that has no handler for it: `yes | head -1` would
//! not end. So the command writes into a pipe of ours, whose content is spliced on; when nobody reads any more, the
//! signal is given in the kernel's place. Files, terminals and devices are handed on as they are.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::event::epoll::EventFlags;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};

use super::engine::Engine;
use super::token::Token;
use crate::error::{At, Result};
use crate::sys::fds::stdio;

/// What one splice moves at most: a pipe's usual capacity.
const CHUNK: usize = 64 * 1024;

/// One pipe of ours and where its content goes.
pub struct Outlet {
    /// The number of the caller's descriptor, 1 or 2.
    number: u64,
    from: OwnedFd,
    to: BorrowedFd<'static>,
    is_socket: bool,
    /// Read and not yet sent, for a socket.
    held: Vec<u8>,
    /// Nothing more comes, or nobody reads.
    closed: bool,
}

/// What became of the reader.
#[derive(Debug, PartialEq, Eq)]
pub enum Reader {
    /// It reads on.
    Reads,
    /// It is gone: the command's writing deserves `SIGPIPE`.
    Gone,
}

/// The command's three streams and the outlets among them. Two streams into one pipe share an outlet, so that their
/// order stays.
///
/// # Errors
/// No descriptors are left.
pub fn open(engine: &Engine) -> Result<([OwnedFd; 3], Vec<Outlet>)> {
    let step = "pass standard output";
    let mut outlets: Vec<(Outlet, OwnedFd, (u64, u64))> = Vec::new();
    let mut streams = Vec::new();
    for (number, fd) in stdio().into_iter().enumerate() {
        let stat = fstat(fd).at(step, number)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let identity = (stat.st_dev, stat.st_ino);
        let is_socket = kind == FileType::Socket;
        if number == 0 || !(is_socket || kind == FileType::Fifo) {
            streams.push(fd.try_clone_to_owned().at(step, number)?);
            continue;
        }
        if let Some((_, write, _)) = outlets.iter().find(|(.., other)| *other == identity) {
            streams.push(write.try_clone().at(step, number)?);
            continue;
        }
        let (from, write) = pipe_with(PipeFlags::CLOEXEC).at(step, number)?;
        rustix::io::ioctl_fionbio(&from, true).at(step, number)?;
        streams.push(write.try_clone().at(step, number)?);
        let outlet = Outlet { number: number as u64, from, to: fd, is_socket, held: Vec::new(), closed: false };
        engine.watch(&outlet.from, outlet.token(), EventFlags::IN)?;
        engine.watch(outlet.to, outlet.token(), EventFlags::empty())?;
        outlets.push((outlet, write, identity));
    }
    let streams = <[OwnedFd; 3]>::try_from(streams).map_err(|_| Errno::BADF).at(step, "")?;
    Ok((streams, outlets.into_iter().map(|(outlet, ..)| outlet).collect()))
}

impl Outlet {
    /// What its descriptors are watched as.
    #[must_use]
    pub fn token(&self) -> Token {
        Token::Own(20 + self.number)
    }

    /// Moves what can be moved.
    ///
    /// # Errors
    /// Those of the event loop.
    pub fn ready(&mut self, engine: &Engine) -> Result<Reader> {
        let moved = self.advance();
        if self.closed {
            engine.unwatch(&self.from);
            engine.unwatch(self.to);
        } else {
            let full = moved == Moved::Full;
            engine.rewatch(&self.from, self.token(), if full { EventFlags::empty() } else { EventFlags::IN })?;
            engine.rewatch(self.to, self.token(), if full { EventFlags::OUT } else { EventFlags::empty() })?;
        }
        Ok(if moved == Moved::Refused { Reader::Gone } else { Reader::Reads })
    }

    /// After the command's end: everything that is left, however slowly it is read.
    pub fn drain(&mut self) {
        while !self.closed {
            match self.advance() {
                Moved::Full => drop(poll(&mut [PollFd::new(&self.to, PollFlags::OUT)], None)),
                Moved::Empty => return,
                Moved::Refused => self.closed = true,
            }
        }
    }

    fn advance(&mut self) -> Moved {
        while !self.closed {
            let result = if self.is_socket { self.send() } else { self.splice() };
            match result {
                Ok(0) => self.closed = true,
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return if self.has_input() { Moved::Full } else { Moved::Empty },
                // EPIPE, ECONNRESET: whoever read is gone. The command's own end of the pipe is closed with it, so that
                // one that ignores the signal sees its writes fail.
                Err(_) => {
                    self.closed = true;
                    return Moved::Refused;
                }
            }
        }
        Moved::Empty
    }

    fn splice(&self) -> rustix::io::Result<usize> {
        splice(&self.from, None, self.to, None, CHUNK, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)
    }

    fn send(&mut self) -> rustix::io::Result<usize> {
        if self.held.is_empty() {
            let mut chunk = vec![0; CHUNK];
            let count = rustix::io::read(&self.from, &mut chunk)?;
            chunk.truncate(count);
            self.held = chunk;
            if count == 0 {
                return Ok(0);
            }
        }
        let sent = send(self.to, &self.held, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
        self.held.drain(..sent);
        Ok(sent)
    }

    fn has_input(&self) -> bool {
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        !self.held.is_empty()
            || poll(&mut [PollFd::new(&self.from, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moved {
    /// The command has written nothing more.
    Empty,
    /// The reader takes nothing more now.
    Full,
    /// The reader is gone.
    Refused,
}
