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
use crate::supervise::protocol::{self, Event, Filled, FrameDescriptors, FrameReader, ProcessAddress, Request};
use nsrs_base::error::{Act, At, Code, Error, Result};
use nsrs_base::options::FDS;
use nsrs_base::sys::message;
use nsrs_base::version::VERSION;

/// The socket's number among the descriptors of this front.
const SOCKET: u32 = 0;

/// A frame on its way to Node.
struct OutgoingFrame {
    bytes: Vec<u8>,
    sent: usize,
    /// The descriptor that goes along, with the event to send if it can't.
    fd: Option<(OwnedFd, Event)>,
}

impl OutgoingFrame {
    fn new(event: Event, fd: Option<OwnedFd>) -> OutgoingFrame {
        let bytes = protocol::encode_event(&event, usize::from(fd.is_some()));
        OutgoingFrame { bytes, sent: 0, fd: fd.map(|fd| (fd, without_descriptor(event))) }
    }
}

/// The event where its descriptor can't be sent. A terminal that comes without one is lost, as Node can tell; a result without
/// its list would look like one without changes.
fn without_descriptor(event: Event) -> Event {
    match event {
        Event::Exited { address, .. } => {
            let error = Error::os("send the list of changes", "", Errno::TOOMANYREFS).during(Act::Changes);
            Event::Failed { address, errors: vec![error] }
        }
        other => other,
    }
}

/// Frames on their way to Node, which may be slow to read.
#[derive(Default)]
struct Outbox {
    frames: VecDeque<OutgoingFrame>,
}

impl Outbox {
    fn push(&mut self, event: Event, fd: Option<OwnedFd>) {
        self.frames.push_back(OutgoingFrame::new(event, fd));
    }

    /// Sends what the socket takes; `false` when the other end is gone.
    fn flush(&mut self, socket: &OwnedFd) -> bool {
        while let Some(frame) = self.frames.front_mut() {
            let fds: Vec<_> = frame.fd.iter().filter(|_| frame.sent == 0).map(|(fd, _)| fd.as_fd()).collect();
            match message::send(socket, &frame.bytes[frame.sent..], &fds) {
                Ok(count) => frame.sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return true,
                // So many descriptors of this user are on their way, to whomever (unix(7)).
                Err(Errno::TOOMANYREFS) => match frame.fd.take() {
                    Some((_, event)) => *frame = OutgoingFrame::new(event, None),
                    None => return false,
                },
                Err(_) => return false,
            }
            if frame.sent == frame.bytes.len() {
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
    outbox.push(Event::Hello { version: VERSION.into() }, None);
    let mut open = outbox.flush(&socket);
    let mut waiting = false;
    while open || !engine.is_idle() {
        if engine.wait()?.contains(&SOCKET) && open {
            open = read(&socket, &mut reader, &mut engine);
        }
        for (event, fd) in engine.take_events() {
            outbox.push(event, fd);
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

fn serve_request(engine: &mut Engine, request: Request, fds: FrameDescriptors) {
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
fn streams(fds: FrameDescriptors) -> Result<([OwnedFd; 3], Vec<OwnedFd>)> {
    let mut fds = fds.map_err(|lost| {
        let hint =
            format!("raise the limit of open files (ulimit -n) of the process that calls nsrs, or pass fewer {FDS}");
        lost.error("take the file descriptors of the command", "the supervisor").hint(hint).during(Act::Descriptors)
    })?;
    let rest = fds.split_off(fds.len().min(3));
    let missing = |_| {
        let why = "standard input, output and error are missing";
        Error::new(Code::InvalidArgument, "start the command", why)
    };
    <[OwnedFd; 3]>::try_from(fds).map(|stdio| (stdio, rest)).map_err(missing)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use nsrs_base::sys::wait::{Status, Usage};
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use rustix::process::{Resource, Rlimit, setrlimit};

    use super::*;
    use crate::supervise::protocol::Exit;

    #[test]
    fn a_descriptor_that_cannot_be_sent_ends_no_conversation() {
        nsrs_testing::alone!(1000);
        let pair = || socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        let (ours, theirs) = pair();
        let (elsewhere, _nobody_reads) = pair();
        let file = File::open("/dev/null").unwrap();
        let few = Rlimit { current: Some(32), maximum: Some(32) };
        setrlimit(Resource::Nofile, few).unwrap();
        while message::send(&elsewhere, b"x", &[file.as_fd()]).is_ok() {}
        let address = ProcessAddress::of_container(1);
        let exit = Exit { status: Status::Exited(0), usage: Usage::default(), timed_out: false, duration_us: 1 };
        let mut outbox = Outbox::default();
        outbox.push(Event::Exited { address, exit, report: None }, Some(file.try_clone().unwrap().into()));
        outbox.push(Event::Terminal { address }, Some(file.into()));
        assert!(outbox.flush(&ours));
        let mut reader = FrameReader::default();
        reader.fill(&theirs).unwrap();
        let events: Vec<_> = std::iter::from_fn(|| reader.take::<Event>().unwrap()).collect();
        let [(Event::Failed { errors, .. }, Ok(none)), (Event::Terminal { .. }, Ok(no_terminal))] = &events[..] else {
            panic!("{events:?}")
        };
        assert_eq!(errors[0].errno, Some(Errno::TOOMANYREFS.raw_os_error()));
        assert!(none.is_empty() && no_terminal.is_empty());
    }
}
