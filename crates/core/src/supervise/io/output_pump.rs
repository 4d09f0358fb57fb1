//! The command's output, where it goes into a pipe or socket of the caller.
//!
//! The kernel sends no `SIGPIPE` to the first process of a PID namespace that has no handler for it: `yes | head -1` would
//! not end. So the command writes into a pipe of ours, whose content is spliced on; when nobody reads any more, the
//! signal is given in the kernel's place. Files, terminals and devices are handed on as they are.
//!
//! A process of its own does that. Who splices from a socket into a pipe, as BusyBox's `cat` does, holds the pipe's lock
//! while it waits for more, and whoever looks into that pipe waits uninterruptibly for the lock: the supervisor has signals
//! and time limits to attend to.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
use rustix::process::Pid;

use crate::supervise::engine::Engine;
use crate::supervise::engine::token::Token;
use nsrs_base::error::{At, Result};
use nsrs_base::sys::child::{ChildProcess, dies_with, spawn};
use nsrs_base::sys::fds::{close_others, stdio};
use nsrs_base::sys::poll;
use nsrs_base::sys::wait::Status;

/// The number of that for standard input, if there were one, among the descriptors of the front.
const FIRST: u32 = 20;
/// What one splice moves at most: a pipe's usual capacity.
const CHUNK: usize = 64 * 1024;

/// How long a pump that can't go on may keep the end of the command from being told.
const PATIENCE: Duration = Duration::from_secs(1);
/// The exit code of a pump whose reader is gone.
const GONE: i32 = 1;

/// The output pump of one stream of the command: the process that moves on what the command writes.
pub struct OutputPump {
    /// The number of the caller's descriptor, 1 or 2.
    number: u32,
    process: ChildProcess,
    /// Kept open, never read: the command must not see the reader gone (EPIPE) before it was sent the signal.
    _from: OwnedFd,
    /// A byte here tells the pump that the command has ended.
    over: OwnedFd,
    has_ended: bool,
}

/// Whether the reader of a stream is still there.
#[derive(Debug, PartialEq, Eq)]
pub enum ReaderState {
    /// The reader has the stream open.
    Reads,
    /// The reader has closed the stream: a command that writes to it should get `SIGPIPE`.
    Gone,
}

/// The command's streams, and what is behind them.
pub struct PumpedOutput {
    /// Standard input, output and error.
    pub streams: [OwnedFd; 3],
    /// Which of them are pipes of ours.
    pub own_pipes: Vec<i32>,
    /// What moves on what is written into these.
    pub pumps: Vec<OutputPump>,
}

/// Opens the command's three streams, and starts the output pumps behind them. Two streams into one pipe share a pump, so that their order
/// stays.
///
/// # Errors
/// No descriptors are left.
pub fn open(engine: &Engine) -> Result<PumpedOutput> {
    let step = "pass standard output";
    let mut pumps: Vec<(OutputPump, OwnedFd, (u64, u64))> = Vec::new();
    let mut streams = Vec::new();
    let mut own_pipes = Vec::new();
    for (number, fd) in stdio().into_iter().enumerate() {
        let stat = fstat(fd).at(step, number)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let identity = (stat.st_dev, stat.st_ino);
        let is_socket = kind == FileType::Socket;
        if number == 0 || !(is_socket || kind == FileType::Fifo) {
            streams.push(fd.try_clone_to_owned().at(step, number)?);
            continue;
        }
        own_pipes.push(number as i32);
        if let Some((_, write, _)) = pumps.iter().find(|(.., other)| *other == identity) {
            streams.push(write.try_clone().at(step, number)?);
            continue;
        }
        let (from, write) = pipe_with(PipeFlags::CLOEXEC).at(step, number)?;
        rustix::io::ioctl_fionbio(&from, true).at(step, number)?;
        streams.push(write.try_clone().at(step, number)?);
        let mover = Mover { from, to: fd, is_socket, held: Vec::new(), closed: false };
        let pump = OutputPump::start(number as u32, mover)?;
        engine.watch(&pump.process.pidfd, Token::Front(pump.number()), EventFlags::IN)?;
        pumps.push((pump, write, identity));
    }
    let streams = <[OwnedFd; 3]>::try_from(streams).map_err(|_| Errno::BADF).at(step, "")?;
    Ok(PumpedOutput { streams, own_pipes, pumps: pumps.into_iter().map(|(pump, ..)| pump).collect() })
}

impl OutputPump {
    fn start(number: u32, mover: Mover) -> Result<OutputPump> {
        let step = "pass standard output";
        let (told, over) = pipe_with(PipeFlags::CLOEXEC).at(step, number)?;
        let own = rustix::process::getpid();
        let from = mover.from.try_clone().at(step, number)?;
        let process = spawn(0, || mover.run(&told, own)).at(step, number)?;
        Ok(OutputPump { number, process, _from: from, over, has_ended: false })
    }

    /// Its number among the descriptors of the front.
    #[must_use]
    pub fn number(&self) -> u32 {
        FIRST + self.number
    }

    /// Takes the end of the pump.
    pub fn ready(&mut self, engine: &Engine) -> ReaderState {
        let Some(status) = self.process.wait(Some(Duration::ZERO)) else { return ReaderState::Reads };
        engine.unwatch(&self.process.pidfd);
        self.has_ended = true;
        if status == Status::Exited(0) { ReaderState::Reads } else { ReaderState::Gone }
    }

    /// After the command's end: waits until everything that is left is moved, however slowly it is read.
    pub fn drain(&mut self) {
        let _ = rustix::io::write(&self.over, b".");
        let mut was_stuck = false;
        while !self.has_ended {
            self.has_ended = self.process.wait(Some(PATIENCE)).is_some();
            if self.has_ended {
                return;
            }
            // Somebody who outlived the command (--pid host) may hold the pipe for ever.
            let is_stuck = self.is_stuck();
            if is_stuck && was_stuck {
                return;
            }
            was_stuck = is_stuck;
        }
    }

    /// Does the pump wait uninterruptibly? (proc_pid_stat(5))
    fn is_stuck(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.pid)).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('D'))
    }
}

/// What the process of a pump does: it moves what comes out of one pipe of ours to where it belongs.
struct Mover {
    from: OwnedFd,
    to: BorrowedFd<'static>,
    is_socket: bool,
    /// Read and not yet sent, for a socket.
    held: Vec<u8>,
    /// Nothing more comes, or nobody reads.
    closed: bool,
}

impl Mover {
    /// Until nothing more comes, nobody reads, or it is told over `told` that the command has ended. Returns the exit code.
    fn run(mut self, told: &OwnedFd, supervisor: Pid) -> i32 {
        if !dies_with(supervisor) || close_others(&[self.from.as_fd(), told.as_fd()]).is_err() {
            return GONE;
        }
        let mut is_over = false;
        loop {
            match self.advance() {
                Moved::Refused => return GONE,
                _ if self.closed => return 0,
                Moved::Full => drop(poll::wait(&mut [PollFd::new(&self.to, PollFlags::OUT)], None)),
                Moved::Empty if is_over => return 0,
                Moved::Empty => {
                    // That the reader went is told by the next write, as outside.
                    let mut fds = [PollFd::new(&self.from, PollFlags::IN), PollFd::new(told, PollFlags::IN)];
                    let _ = poll::wait(&mut fds, None);
                    is_over = !fds[1].revents().is_empty();
                }
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
        !self.held.is_empty() || poll::is_readable(&self.from)
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
