//! The messages between Node and the supervisor: length-bounded JSON frames over a socketpair, descriptors by
//! `SCM_RIGHTS`.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use nsrs_base::error::{At, Code, Error, Result};
use nsrs_base::sys::message::{self, Descriptors};
use nsrs_base::sys::wait::{Status, Usage};

/// The container and process that a request or an event is about, by numbers that the caller chose. The first process of
/// a container has the container's own number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessAddress {
    /// The caller's number for the container.
    pub container: u64,
    /// The caller's number for the process.
    pub process: u64,
}

impl ProcessAddress {
    /// A container, or its first process.
    #[must_use]
    pub fn of_container(number: u64) -> ProcessAddress {
        ProcessAddress { container: number, process: number }
    }
}

/// From Node to the supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Start a container. Its descriptors: standard input, output and error, then those of `preserve_fds`.
    Run {
        /// The caller's number for it.
        id: u64,
        /// The options: a [`Spec`](crate::spec::Spec), as JavaScript wrote it.
        spec: Box<RawValue>,
        /// Send [`Event::Started`] when the command starts. Otherwise the report comes with [`Event::Exited`], and the
        /// supervisor wakes up once less.
        announce: bool,
    },
    /// Start a process in a container that runs. Its descriptors as those of [`Request::Run`].
    Enter {
        /// The container, and the caller's number for the process.
        address: ProcessAddress,
        /// The options: an [`EnterSpec`](crate::spec::EnterSpec).
        spec: Box<RawValue>,
        /// Send [`Event::Started`] when the command starts, as for [`Request::Run`].
        announce: bool,
    },
    /// Send a signal to a process.
    Kill {
        /// The process that gets the signal.
        address: ProcessAddress,
        /// The signal's number; `None` is the stop signal of the command, by default `SIGTERM`.
        signal: Option<i32>,
    },
    /// Find out what this host can do, by doing it.
    Examine {
        /// The caller's number for the answer.
        id: u64,
    },
}

/// What a running container was given; the caller's handle shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Process id of the container's first process, as the host sees it.
    pub pid: i32,
    /// `none`, `host`, `bridge`, `pasta` or `joined`.
    pub network: String,
    /// Addresses of the container on the bridge.
    pub addresses: Vec<String>,
    /// Published ports, as `HOST:PORT -> PORT/PROTOCOL`.
    pub ports: Vec<String>,
    /// What was switched on for it on the host, in words.
    pub notes: Vec<String>,
    /// What was done in another way than usual, with the reason.
    #[serde(default)]
    pub fallbacks: Vec<String>,
}

/// The end of a command, as the caller sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exit {
    /// Its exit code, or the signal that killed it.
    pub status: Status,
    /// CPU time and memory that it used (wait4(2)).
    pub usage: Usage,
    /// It was killed for its time limit.
    pub timed_out: bool,
    /// Microseconds from the request to the end.
    pub duration_us: u64,
}

/// From the supervisor to Node.
#[derive(Debug, Serialize, Deserialize)]
pub enum Event {
    /// The first event on every connection: the version of the supervisor.
    Hello {
        /// [`nsrs_base::version::VERSION`] of the executable.
        version: String,
    },
    /// The command has started.
    Started {
        /// The process that runs the command.
        address: ProcessAddress,
        /// What its container was given.
        report: Report,
    },
    /// The process's terminal; its descriptor comes with the frame.
    Terminal {
        /// The process that has the terminal.
        address: ProcessAddress,
    },
    /// The command has ended. If it was the container's first process, nothing of the container is left. If the caller
    /// asked for a list of changes, a file with the list comes with the frame.
    Exited {
        /// The process that ran the command.
        address: ProcessAddress,
        /// How it ended, and what it used.
        exit: Exit,
        /// What its container was given; `None` if [`Event::Started`] said so already.
        report: Option<Report>,
    },
    /// The request failed, and nothing of its process is left.
    Failed {
        /// The process that was requested, or the number of an [`Request::Examine`].
        address: ProcessAddress,
        /// Every problem that was found, at least one.
        errors: Vec<Error>,
    },
    /// What the host can do.
    Examined {
        /// The number of the [`Request::Examine`].
        id: u64,
        /// One verdict for each feature that was tried.
        findings: Vec<crate::doctor::Finding>,
    },
}

/// Largest frame: the kernel's 6 MiB of arguments, escaped, with room to spare.
pub const MOST: usize = 64 << 20;
/// A frame's head: length of the body and number of descriptors, both little-endian.
const HEAD: usize = 8;

/// Encodes a message as a frame that `fds` descriptors go with.
#[must_use]
pub fn encode(message: &impl Serialize, fds: usize) -> Vec<u8> {
    let mut bytes = vec![0; HEAD];
    serde_json::to_writer(&mut bytes, message).expect("messages are plain data");
    let length = (bytes.len() - HEAD) as u32;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes[4..HEAD].copy_from_slice(&(fds as u32).to_le_bytes());
    bytes
}

/// Encodes an event as a frame of at most [`MOST`] bytes: lists and texts that are too long are shortened.
#[must_use]
pub fn encode_event(event: &Event, fds: usize) -> Vec<u8> {
    let bytes = encode(event, fds);
    match event {
        Event::Failed { address, errors } if bytes.len() > MOST_OF_ERRORS => {
            encode(&Event::Failed { address: *address, errors: first_of(errors) }, fds)
        }
        Event::Started { address, report } if bytes.len() > MOST => {
            encode(&Event::Started { address: *address, report: report.shortened() }, fds)
        }
        Event::Exited { address, exit, report } if bytes.len() > MOST => {
            let report = report.as_ref().map(Report::shortened);
            encode(&Event::Exited { address: *address, exit: *exit, report }, fds)
        }
        _ => bytes,
    }
}

/// Most bytes of a list of errors: some thousands of them.
const MOST_OF_ERRORS: usize = 1 << 20;
/// Most characters of a text, and most items of a list of texts, where there is too much of them.
const MOST_OF_TEXT: usize = 4096;
/// Most suggestions of an error in such a list.
const MOST_SUGGESTIONS: usize = 10;

/// The first of too many errors, or of too long ones, and how many more there are.
fn first_of(errors: &[Error]) -> Vec<Error> {
    let mut left = MOST_OF_ERRORS;
    let shortened = errors.iter().map(|error| {
        let Error { code, id, step, subject, option, errno, reason, hint, suggestions } = error;
        let [step, subject, reason, hint] = [step, subject, reason, hint].map(|text| beginning(text));
        let suggestions = suggestions.iter().take(MOST_SUGGESTIONS).map(|text| beginning(text)).collect();
        Error { code: *code, id: *id, step, subject, option: *option, errno: *errno, reason, hint, suggestions }
    });
    let fits = |error: &Error| {
        let rest = left.checked_sub(encode(error, 0).len());
        left = rest.unwrap_or(left);
        rest.is_some()
    };
    let mut first: Vec<Error> = shortened.take_while(fits).collect();
    if let Some(next) = errors.get(first.len()) {
        let why = format!("there are {} more", errors.len() - first.len());
        first.push(Error { id: next.id, ..Error::new(next.code, "list every problem", why) });
    }
    first
}

fn beginning(text: &str) -> String {
    match text.char_indices().nth(MOST_OF_TEXT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl Report {
    /// The report with its lists and texts cut to [`MOST_OF_TEXT`].
    fn shortened(&self) -> Report {
        let Report { pid, network, addresses, ports, notes, fallbacks } = self;
        let [addresses, ports, notes, fallbacks] = [addresses, ports, notes, fallbacks].map(|texts| {
            let mut first: Vec<String> = texts.iter().take(MOST_OF_TEXT).map(|text| beginning(text)).collect();
            if texts.len() > first.len() {
                first.push(format!("… and {} more", texts.len() - first.len()));
            }
            first
        });
        Report { pid: *pid, network: network.clone(), addresses, ports, notes, fallbacks }
    }
}

/// Sends a whole frame; `wait` is called where the socket takes no more for now, and returns when it does.
///
/// # Errors
/// The other end is gone, or the frame is larger than [`MOST`].
pub fn send(socket: impl AsFd, message: &impl Serialize, fds: &[BorrowedFd<'_>], mut wait: impl FnMut()) -> Result<()> {
    let bytes = encode(message, fds.len());
    let step = "talk to the supervisor";
    if bytes.len() > MOST {
        return Err(Error::os(step, "", Errno::TOOBIG).code(Code::InvalidArgument).because("the request is too large"));
    }
    let mut sent = 0;
    while sent < bytes.len() {
        let first = if sent == 0 { fds } else { &[] };
        match message::send(&socket, &bytes[sent..], first) {
            Ok(count) => sent += count,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait(),
            Err(errno) => return Err(Error::os(step, "", errno).code(Code::SupervisorLost)),
        }
    }
    Ok(())
}

/// Not all descriptors of a frame have arrived, because the reader may open no more; those that did are closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostDescriptors;

impl LostDescriptors {
    /// The failure of what needed them.
    #[must_use]
    pub fn error(self, step: &str, reader: &str) -> Error {
        Error::os(step, "", Errno::MFILE).because(format!("{reader} has no file descriptors left"))
    }
}

/// The descriptors of a frame, or that some were lost.
pub type FrameDescriptors = Result<Vec<OwnedFd>, LostDescriptors>;

/// Assembles frames from the bytes and descriptors that arrive.
#[derive(Debug, Default)]
pub struct FrameReader {
    bytes: Vec<u8>,
    /// Those of frames to come, one entry for each frame that has any.
    fds: VecDeque<FrameDescriptors>,
}

/// The result of one [`FrameReader::fill`].
#[derive(Debug, PartialEq, Eq)]
pub enum Filled {
    /// Bytes arrived; there may be whole frames to take.
    Some,
    /// There is nothing to read now.
    Empty,
    /// The other end is closed; nothing more will arrive.
    End,
}

impl FrameReader {
    /// Reads once what the socket has.
    ///
    /// # Errors
    /// Fails as recvmsg(2) does.
    pub fn fill(&mut self, socket: impl AsFd) -> Result<Filled> {
        let bytes = &mut self.bytes;
        let mut fds = Vec::new();
        let received = message::receive_telling(socket, &mut fds, |chunk, descriptors| {
            bytes.extend_from_slice(chunk);
            (if chunk.is_empty() { Filled::End } else { Filled::Some }, descriptors)
        });
        match received {
            Ok((filled, descriptors)) => {
                // A read ends with the first message that has any (unix(7)), so all of them are of one frame.
                match descriptors {
                    Descriptors::Truncated => self.fds.push_back(Err(LostDescriptors)),
                    Descriptors::Whole if !fds.is_empty() => self.fds.push_back(Ok(fds)),
                    Descriptors::Whole => {}
                }
                Ok(filled)
            }
            // After a reset, which is told once, what the other end sent before can still be read.
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNRESET) => Ok(Filled::Empty),
            Err(errno) => Err(errno).at("read a request", ""),
        }
    }

    /// The next whole frame with its descriptors.
    ///
    /// # Errors
    /// The frame is too long, is not one of this program's, or was sent without its descriptors.
    pub fn take<T: DeserializeOwned>(&mut self) -> Result<Option<(T, FrameDescriptors)>> {
        let bad = |why: String| Error::new(Code::SupervisorLost, "read a frame", why);
        let Some(head) = self.bytes.get(..HEAD) else { return Ok(None) };
        let number = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
        let (length, count) = (number(&head[..4]), number(&head[4..]));
        if length > MOST || count > message::MOST_FDS {
            return Err(bad(format!("{length} bytes with {count} descriptors are more than a frame may have")));
        }
        let Some(body) = self.bytes.get(HEAD..HEAD + length) else { return Ok(None) };
        let message = serde_json::from_slice(body).map_err(|error| bad(error.to_string()))?;
        let fds = if count == 0 { Some(Ok(Vec::new())) } else { self.fds.pop_front() };
        let is_complete = |fds: &FrameDescriptors| fds.as_ref().map_or(true, |fds| fds.len() == count);
        let Some(fds) = fds.filter(is_complete) else {
            return Err(bad("its file descriptors did not arrive".into()));
        };
        self.bytes.drain(..HEAD + length);
        // A large request must not stay in memory for good.
        if self.bytes.is_empty() && self.bytes.capacity() > 64 * 1024 {
            self.bytes = Vec::new();
        }
        Ok(Some((message, fds)))
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn frames_arrive_whole_with_their_descriptors() {
        let (a, b) = pair();
        let file = std::fs::File::open("/dev/null").unwrap();
        send(&a, &Request::Kill { address: ProcessAddress::of_container(7), signal: Some(15) }, &[file.as_fd()], || {})
            .unwrap();
        send(&a, &Request::Examine { id: 8 }, &[], || {}).unwrap();
        let mut reader = FrameReader::default();
        let mut got = Vec::new();
        while got.len() < 2 {
            reader.fill(&b).unwrap();
            while let Some(frame) = reader.take::<Request>().unwrap() {
                got.push(frame);
            }
        }
        assert!(
            matches!(got[0].0, Request::Kill { address, signal: Some(15) } if address == ProcessAddress::of_container(7))
        );
        let counts: Vec<_> = got.iter().map(|(_, fds)| fds.as_ref().unwrap().len()).collect();
        assert_eq!(counts, [1, 0]);
    }

    #[test]
    fn descriptors_that_find_no_room_are_lost_to_their_frame_alone() {
        nsrs_testing::alone!();
        let (a, b) = pair();
        let file = std::fs::File::open("/dev/null").unwrap();
        for (id, count) in [(1, 0), (2, 200), (3, 0), (4, 1), (5, 0), (6, 253), (7, 2)] {
            send(&a, &Request::Examine { id }, &vec![file.as_fd(); count], || {}).unwrap();
        }
        let few = rustix::process::Rlimit { current: Some(32), maximum: Some(32) };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, few).unwrap();
        let open_files = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let before = open_files();
        let mut reader = FrameReader::default();
        let mut got = Vec::new();
        while got.len() < 7 {
            assert_eq!(reader.fill(&b).unwrap(), Filled::Some);
            while let Some((Request::Examine { id }, fds)) = reader.take::<Request>().unwrap() {
                got.push((id, fds.map(|fds| fds.len())));
            }
        }
        let lost = Err(LostDescriptors);
        assert_eq!(got, [(1, Ok(0)), (2, lost), (3, Ok(0)), (4, Ok(1)), (5, Ok(0)), (6, lost), (7, Ok(2))]);
        assert_eq!(open_files(), before, "those that did arrive are not kept");
    }

    #[test]
    fn a_frame_of_another_program_is_an_error() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            &[255; 32][..],
            &[2, 0, 0, 0, 0, 0, 0, 0, b'{', b'}'][..],
            &[2, 0, 0, 0, 1, 0, 0, 0, b'{', b'}'][..],
        ] {
            let (a, b) = pair();
            rustix::io::write(&a, bytes).unwrap();
            let mut reader = FrameReader::default();
            reader.fill(&b).unwrap();
            assert!(reader.take::<Request>().is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn half_a_frame_waits() {
        let (a, b) = pair();
        let bytes = encode(&Request::Examine { id: 1 }, 0);
        rustix::io::write(&a, &bytes[..10]).unwrap();
        let mut reader = FrameReader::default();
        reader.fill(&b).unwrap();
        assert!(reader.take::<Request>().unwrap().is_none());
        rustix::io::write(&a, &bytes[10..]).unwrap();
        reader.fill(&b).unwrap();
        assert!(reader.take::<Request>().unwrap().is_some());
    }

    #[test]
    fn a_stream_that_is_cut_anywhere_gives_the_same_frames() {
        let frames = [
            encode(&Request::Examine { id: 1 }, 0),
            encode(&Request::Kill { address: ProcessAddress::of_container(2), signal: None }, 0),
        ]
        .concat();
        for cut in 1..frames.len() {
            let (a, b) = pair();
            let (mut reader, mut ids) = (FrameReader::default(), Vec::new());
            for part in [&frames[..cut], &frames[cut..]] {
                rustix::io::write(&a, part).unwrap();
                assert_eq!(reader.fill(&b).unwrap(), Filled::Some);
                while let Some((request, _)) = reader.take::<Request>().unwrap() {
                    ids.push(match request {
                        Request::Examine { id } => id,
                        Request::Kill { address, signal: None } => address.process,
                        other => panic!("{other:?}"),
                    });
                }
            }
            assert_eq!(ids, [1, 2], "cut after {cut} bytes");
        }
    }

    #[test]
    fn the_length_is_checked_before_the_body_arrives() {
        for (length, count, is_taken) in
            [(MOST as u32, 0, true), (MOST as u32 + 1, 0, false), (2, message::MOST_FDS as u32 + 1, false)]
        {
            let (a, b) = pair();
            rustix::io::write(&a, &[length.to_le_bytes(), u32::to_le_bytes(count)].concat()).unwrap();
            let mut reader = FrameReader::default();
            reader.fill(&b).unwrap();
            assert_eq!(reader.take::<Request>().is_ok(), is_taken, "{length} bytes, {count} descriptors");
        }
    }

    #[test]
    fn a_record_of_an_error_arrives_with_all_its_fields() {
        let error = Error::os("mount", "odd\n\u{1b}\"name", 13).because("why").hint("do this").code(Code::SetupFailed);
        let (a, b) = pair();
        send(&a, &Event::Failed { address: ProcessAddress::of_container(3), errors: vec![error.clone()] }, &[], || {})
            .unwrap();
        let mut reader = FrameReader::default();
        reader.fill(&b).unwrap();
        let Some((Event::Failed { errors, .. }, _)) = reader.take::<Event>().unwrap() else { panic!() };
        assert_eq!(errors, [error]);
    }

    #[test]
    fn too_many_errors_are_the_first_ones_and_a_count() {
        let address = ProcessAddress::of_container(3);
        let read = |bytes: &[u8]| match serde_json::from_slice(&bytes[HEAD..]).unwrap() {
            Event::Failed { errors, .. } => errors,
            other => panic!("{other:?}"),
        };
        let error = |number: usize| Error::new(Code::InvalidArgument, "invalid", number.to_string().repeat(9));
        let errors: Vec<Error> = (0..50_000).map(error).collect();
        let bytes = encode_event(&Event::Failed { address, errors: errors.clone() }, 0);
        assert!(bytes.len() < 2 * MOST_OF_ERRORS, "{}", bytes.len());
        let told = read(&bytes);
        let (last, first) = told.split_last().unwrap();
        assert!(first.len() > 1000 && *first == errors[..first.len()]);
        assert_eq!(last.line(), format!("list every problem: there are {} more", errors.len() - first.len()));

        let few = vec![error(1); 100];
        assert_eq!(read(&encode_event(&Event::Failed { address, errors: few.clone() }, 0)), few);

        let long = "\u{1}".repeat(64 << 10);
        let one = Error::new(Code::SetupFailed, "mount", &*long).on(&*long).did_you_mean(vec![long.clone(); 20]);
        let told = read(&encode_event(&Event::Failed { address, errors: vec![one.clone(), one] }, 0));
        assert_eq!(told.len(), 2, "both fit, shortened");
        assert_eq!(told[0].reason.chars().count(), MOST_OF_TEXT + 1);
    }

    #[test]
    fn a_report_that_is_too_long_is_shortened() {
        let port = "127.0.0.1:65535 -> 65535/tcp".to_owned();
        let report = Report { pid: 7, ports: vec![port.clone(); 2_200_000], ..Report::default() };
        let bytes = encode_event(&Event::Started { address: ProcessAddress::of_container(3), report }, 0);
        let Ok(Event::Started { report, .. }) = serde_json::from_slice(&bytes[HEAD..]) else { panic!() };
        assert_eq!((report.pid, &report.ports[0], report.ports.len()), (7, &port, MOST_OF_TEXT + 1));
        assert!(report.ports[MOST_OF_TEXT].ends_with(" more"));
    }

    #[test]
    fn the_end_is_the_end() {
        let (a, b) = pair();
        drop(a);
        assert_eq!(FrameReader::default().fill(&b).unwrap(), Filled::End);
    }
}
