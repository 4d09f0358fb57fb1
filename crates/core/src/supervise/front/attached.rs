//! The supervisor of a Node process: requests and events over a socket, and when that closes, for whatever reason, the
//! end of every container.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;

use crate::spec;
use crate::steps::exec::forget_ignored_signals;
use crate::supervise::engine::enter::EnterRequest;
use crate::supervise::engine::token::Token;
use crate::supervise::engine::{Engine, RunRequest};
use crate::supervise::protocol::{self, Event, Filled, FrameReader, ProcessAddress, Request};
use nsrs_base::error::{At, Code, Error, Result};
use nsrs_base::sys::message;
use nsrs_base::version::VERSION;

/// The socket's number among the descriptors of this front.
const SOCKET: u32 = 0;

/// Frames on their way to Node, which may be slow to read.
#[derive(Default)]
struct Outbox {
    frames: VecDeque<(Vec<u8>, usize, Option<OwnedFd>)>,
}

impl Outbox {
    fn push(&mut self, event: &Event, fd: Option<OwnedFd>) {
        self.frames.push_back((protocol::encode_event(event, usize::from(fd.is_some())), 0, fd));
    }

    /// Sends what the socket takes; `false` when the other end is gone.
    fn flush(&mut self, socket: &OwnedFd) -> bool {
        while let Some((bytes, sent, fd)) = self.frames.front_mut() {
            let fds: Vec<_> = fd.iter().filter(|_| *sent == 0).map(AsFd::as_fd).collect();
            match message::send(socket, &bytes[*sent..], &fds) {
                Ok(count) => *sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return true,
                Err(_) => return false,
            }
            if *sent == bytes.len() {
                self.frames.pop_front();
            }
        }
        true
    }
}

/// Serves a socket until it closes and the last container is gone.
///
/// # Errors
/// The event loop itself fails.
pub fn serve(socket: OwnedFd, program: OwnedFd) -> Result<()> {
    rustix::io::ioctl_fionbio(&socket, true).at("set up the socket", "")?;
    forget_ignored_signals()?;
    let mut engine = Engine::new(program)?;
    engine.keep_pool()?;
    let mut reader = FrameReader::default();
    let mut outbox = Outbox::default();
    engine.watch(&socket, Token::Front(SOCKET), EventFlags::IN)?;
    outbox.push(&Event::Hello { version: VERSION.into() }, None);
    let mut open = outbox.flush(&socket);
    let mut waiting = false;
    while open || !engine.is_idle() {
        if engine.wait()?.contains(&SOCKET) && open {
            open = read(&socket, &mut reader, &mut engine);
        }
        for (event, fd) in engine.take_events() {
            outbox.push(&event, fd);
        }
        if open {
            open = outbox.flush(&socket);
            if waiting == outbox.frames.is_empty() {
                waiting = !waiting;
                let out = if waiting { EventFlags::OUT } else { EventFlags::empty() };
                engine.rewatch(&socket, Token::Front(SOCKET), EventFlags::IN | out)?;
            }
            if !open {
                // Node is gone: so is every reason for its containers.
                engine.unwatch(&socket);
                engine.kill_all();
            }
        }
    }
    engine.sweep();
    engine.release()
}

/// Takes what has arrived; `false` when the other end is gone or speaks nonsense.
fn read(socket: &OwnedFd, reader: &mut FrameReader, engine: &mut Engine) -> bool {
    match reader.fill(socket) {
        Ok(Filled::Some) => {}
        Ok(Filled::Empty) => return true,
        Ok(Filled::End) | Err(_) => return stop(engine, socket),
    }
    loop {
        match reader.take::<Request>() {
            Ok(Some((request, fds))) => serve_request(engine, request, fds),
            Ok(None) => return true,
            Err(_) => return stop(engine, socket),
        }
    }
}

fn stop(engine: &mut Engine, socket: &OwnedFd) -> bool {
    engine.unwatch(socket);
    engine.kill_all();
    false
}

fn serve_request(engine: &mut Engine, request: Request, fds: Vec<OwnedFd>) {
    match request {
        Request::Run { id, spec, announce } => {
            let address = ProcessAddress::of_container(id);
            match streams(fds).and_then(|streams| Ok((streams, spec::parse(spec.get())?))) {
                Ok(((stdio, fds), spec)) => {
                    engine.start(RunRequest { address, spec: &spec, stdio: Some(stdio), fds, announce });
                }
                Err(error) => engine.fail(address, error),
            }
        }
        Request::Enter { address, spec, announce } => {
            match streams(fds).and_then(|streams| Ok((streams, spec::parse(spec.get())?))) {
                Ok(((stdio, fds), spec)) => {
                    engine.enter(EnterRequest { address, spec: &spec, stdio, fds, announce });
                }
                Err(error) => engine.fail(address, error),
            }
        }
        Request::Kill { address, signal: Some(signal) } => engine.kill(address, signal),
        Request::Kill { address, signal: None } => engine.stop(address),
        Request::Examine { id } => engine.examine(id),
    }
}

/// The three streams of a process, and its further descriptors.
fn streams(mut fds: Vec<OwnedFd>) -> Result<([OwnedFd; 3], Vec<OwnedFd>)> {
    let rest = fds.split_off(fds.len().min(3));
    let missing = |_| {
        let why = "standard input, output and error are missing";
        Error::new(Code::InvalidArgument, "start the command", why)
    };
    <[OwnedFd; 3]>::try_from(fds).map(|stdio| (stdio, rest)).map_err(missing)
}
