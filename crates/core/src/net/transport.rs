//! A small blocking netlink transport: several requests in one `sendmsg`, one acknowledgement.
//!
//! The kernel works through all requests of a datagram before `sendmsg` returns, and reports a failing request whether
//! or not it asked for an acknowledgement. So only the last request asks for one: a batch of any size costs two system
//! calls when all is well, and every failure still comes back with its own sequence number, which names the request.
//! See netlink(7) and rtnetlink(7).

use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{
    Socket,
    protocols::{NETLINK_NETFILTER, NETLINK_ROUTE},
};
use nix::errno::Errno;

use nsrs_base::error::{At, Code, Error, Result};

/// The size of `struct nlmsghdr`.
const NETLINK_HEADER_LEN: usize = 16;

/// `NLMSGERR_ATTR_MSG`: the kernel's reason in words.
const EXTACK_MESSAGE: u16 = 1;

/// Acknowledgements and single replies fit; `NETLINK_CAP_ACK` keeps the request out of an error.
const REPLY_SPACE: usize = 8 << 10;

/// The kernel fills a dump in pieces as large as the reader's buffer, up to this size.
const DUMP_SPACE: usize = 32 << 10;

/// How often a dump is started again when the table changed while it was read.
const DUMP_ATTEMPTS: usize = 8;

/// Requests for one `sendmsg`, each with the words that describe its failure.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    requests: Vec<BatchRequest>,
}

#[derive(Debug)]
struct BatchRequest {
    offset: usize,
    asks: bool,
    step: &'static str,
    subject: String,
}

impl Batch {
    /// A batch without requests.
    #[must_use]
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Adds a routing request. `flags` beside `NLM_F_REQUEST`; `step` and `subject` name it in an error.
    pub fn route(&mut self, message: RouteNetlinkMessage, flags: u16, step: &'static str, subject: &str) {
        let mut message = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(message));
        message.header.flags = flags | NLM_F_REQUEST;
        message.finalize();
        let offset = self.bytes.len();
        self.bytes.resize(offset + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut self.bytes[offset..offset + message.buffer_len()]);
        self.requests.push(BatchRequest { offset, asks: true, step, subject: subject.to_owned() });
    }

    /// Adds a request whose body (all after `nlmsghdr`) `write` appends.
    pub fn raw(&mut self, kind: u16, flags: u16, step: &'static str, subject: &str, write: impl FnOnce(&mut Vec<u8>)) {
        self.frame(kind, flags, true, step, subject, write);
    }

    /// Adds a frame that the kernel doesn't acknowledge: the begin and end of a netfilter batch.
    pub fn bracket(&mut self, kind: u16, step: &'static str, subject: &str, write: impl FnOnce(&mut Vec<u8>)) {
        self.frame(kind, 0, false, step, subject, write);
    }

    fn frame(
        &mut self,
        kind: u16,
        flags: u16,
        asks: bool,
        step: &'static str,
        subject: &str,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let offset = self.bytes.len();
        self.bytes.extend([0; NETLINK_HEADER_LEN]);
        write(&mut self.bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        let length = u32::try_from(self.bytes.len() - offset).expect("a request is smaller than 4 GiB");
        self.bytes[offset..offset + 4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[offset + 4..offset + 6].copy_from_slice(&kind.to_ne_bytes());
        self.bytes[offset + 6..offset + 8].copy_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        self.requests.push(BatchRequest { offset, asks, step, subject: subject.to_owned() });
    }

    /// Numbers the requests from `first` and lets the last one that can ask for an acknowledgement do so; returns
    /// that one's number.
    fn number(&mut self, first: u32) -> Option<u32> {
        let last = self.requests.iter().rposition(|request| request.asks)?;
        for (sequence, request) in (first..).zip(&self.requests) {
            self.bytes[request.offset + 8..request.offset + 12].copy_from_slice(&sequence.to_ne_bytes());
        }
        let flags = &mut self.bytes[self.requests[last].offset + 6..][..2];
        flags.copy_from_slice(&(u16::from_ne_bytes([flags[0], flags[1]]) | NLM_F_ACK).to_ne_bytes());
        Some(first + u32::try_from(last).expect("a batch has few requests"))
    }
}

/// A blocking netlink socket, closed on exec.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
    inbox: Vec<u8>,
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Netlink {
    /// A socket for links, addresses and routes of this thread's network namespace.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn route() -> Result<Netlink> {
        Netlink::open(NETLINK_ROUTE, "NETLINK_ROUTE")
    }

    /// A socket for nftables in this thread's network namespace.
    ///
    /// # Errors
    /// The kernel's refusal; `EPROTONOSUPPORT` without netfilter.
    pub fn netfilter() -> Result<Netlink> {
        Netlink::open(NETLINK_NETFILTER, "NETLINK_NETFILTER")
    }

    fn open(protocol: isize, name: &str) -> Result<Netlink> {
        let socket = Socket::new(protocol).at("open a netlink socket", name)?;
        socket.set_ext_ack(true).at("set NETLINK_EXT_ACK on a socket of", name)?;
        socket.set_cap_ack(true).at("set NETLINK_CAP_ACK on a socket of", name)?;
        Ok(Netlink { socket, sequence: 1, inbox: Vec::new() })
    }

    /// Sends all requests and waits until the kernel has done them.
    ///
    /// The kernel goes on after a failing routing request; a netfilter batch is all or nothing.
    ///
    /// # Errors
    /// The first failure, by its request's step and subject, with the kernel's own words where it gave some.
    pub fn send(&mut self, batch: Batch) -> Result<()> {
        self.exchange(batch, |_| ())
    }

    /// Like [`Netlink::send`], for a batch that asks the kernel something: `reply` gets each answer.
    ///
    /// # Errors
    /// As [`Netlink::send`].
    pub fn ask(&mut self, batch: Batch, mut reply: impl FnMut(RouteNetlinkMessage)) -> Result<()> {
        self.exchange(batch, |frame| frame.route().into_iter().for_each(&mut reply))
    }

    fn exchange(&mut self, mut batch: Batch, mut reply: impl FnMut(&Frame)) -> Result<()> {
        let first = self.sequence;
        let Some(last) = batch.number(first) else { return Ok(()) };
        self.sequence = first.wrapping_add(u32::try_from(batch.requests.len()).unwrap_or(u32::MAX));
        let subject = |request: &BatchRequest| (request.step, request.subject.clone());
        let (step, on) = subject(&batch.requests[0]);
        self.transmit(&batch.bytes).at(step, &on)?;

        let mut failure: Option<Error> = None;
        loop {
            self.receive(REPLY_SPACE).at("read the kernel's answer to", step)?;
            for frame in Frames(&self.inbox) {
                // Answers to an earlier batch that was given up at its first error may still lie here.
                let Some(request) = frame.sequence.checked_sub(first).and_then(|n| batch.requests.get(n as usize))
                else {
                    continue;
                };
                match frame.outcome() {
                    None => reply(&frame),
                    Some(Err(refusal)) => {
                        let (step, on) = subject(request);
                        failure.get_or_insert_with(|| refusal.describe(step, on));
                    }
                    Some(Ok(())) => (),
                }
                let refused_whole = !request.asks && frame.kind == NLMSG_ERROR && failure.is_some();
                if frame.kind == NLMSG_ERROR && (frame.sequence == last || refused_whole) {
                    return failure.map_or(Ok(()), Err);
                }
            }
        }
    }

    /// Reads a whole table: `request` is `GetLink`, `GetAddress` or `GetRoute`.
    ///
    /// An entry that netlink-packet-route can't read is left out: one odd route must not stop a container.
    ///
    /// # Errors
    /// The kernel's refusal; `EAGAIN` when the table changed each time it was read.
    pub fn dump(&mut self, request: &RouteNetlinkMessage, step: &'static str) -> Result<Vec<RouteNetlinkMessage>> {
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(entries) = self.dump_once(request, step)? {
                return Ok(entries);
            }
        }
        Err(Error::os(step, "", Errno::EAGAIN).because("the table changed each time it was read"))
    }

    /// One pass; `None` when the kernel says that the table changed in the meantime.
    fn dump_once(
        &mut self,
        request: &RouteNetlinkMessage,
        step: &'static str,
    ) -> Result<Option<Vec<RouteNetlinkMessage>>> {
        let mut batch = Batch::new();
        batch.raw(request.message_type(), NLM_F_DUMP, step, "", |bytes| {
            let start = bytes.len();
            bytes.resize(start + request.buffer_len(), 0);
            request.serialize(&mut bytes[start..]);
        });
        let sequence = self.sequence;
        batch.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.sequence = self.sequence.wrapping_add(1);
        self.transmit(&batch.bytes).at(step, "")?;

        let (mut entries, mut changed) = (Vec::new(), false);
        loop {
            self.receive(DUMP_SPACE).at(step, "")?;
            for frame in Frames(&self.inbox).filter(|frame| frame.sequence == sequence) {
                changed |= frame.flags & NLM_F_DUMP_INTR != 0;
                match frame.kind {
                    NLMSG_DONE => return Ok((!changed).then_some(entries)),
                    NLMSG_ERROR => frame.outcome().unwrap_or(Ok(())).map_err(|refusal| refusal.describe(step, ""))?,
                    _ => entries.extend(frame.route()),
                }
            }
        }
    }

    fn transmit(&self, bytes: &[u8]) -> std::io::Result<()> {
        uninterrupted(|| self.socket.send(bytes, 0)).map(|_| ())
    }

    fn receive(&mut self, space: usize) -> std::io::Result<()> {
        self.inbox.clear();
        self.inbox.reserve(space);
        uninterrupted(|| self.socket.recv(&mut self.inbox, 0)).map(|_| ())
    }
}

fn uninterrupted<T>(mut call: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => (),
            result => return result,
        }
    }
}

/// One message of a datagram from the kernel.
struct Frame<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    bytes: &'a [u8],
}

/// Why the kernel refused a request.
#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    errno: i32,
    words: String,
}

impl Refusal {
    fn describe(self, step: &str, subject: impl Into<String>) -> Error {
        let error = Error::os(step, subject, self.errno).because(self.words);
        match self.errno {
            // The two ways in which a kernel says that it was built without something.
            libc::EOPNOTSUPP | libc::EPROTONOSUPPORT => error.code(Code::Unsupported),
            _ => error,
        }
    }
}

impl Frame<'_> {
    fn route(&self) -> Option<RouteNetlinkMessage> {
        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(self.bytes).ok()?.payload {
            NetlinkPayload::InnerMessage(message) => Some(message),
            _ => None,
        }
    }

    /// `None` for a message that isn't an acknowledgement.
    fn outcome(&self) -> Option<std::result::Result<(), Refusal>> {
        if self.kind != NLMSG_ERROR {
            return None;
        }
        let body = &self.bytes[NETLINK_HEADER_LEN..];
        let errno = body.first_chunk().map_or(0, |code| -i32::from_ne_bytes(*code));
        if errno == 0 {
            return Some(Ok(()));
        }
        Some(Err(Refusal { errno, words: self.extack(body).unwrap_or_default() }))
    }

    fn extack(&self, body: &[u8]) -> Option<String> {
        if self.flags & NLM_F_ACK_TLVS == 0 {
            return None;
        }
        // After the error number: the request's header, and the request itself unless the kernel cut it off.
        let request = u32::from_ne_bytes(*body.get(4..8)?.first_chunk()?) as usize;
        let echoed = if self.flags & NLM_F_CAPPED == 0 { request } else { NETLINK_HEADER_LEN };
        let attributes = body.get(4 + echoed.next_multiple_of(4)..)?;
        let message = NlasIterator::new(attributes).flatten().find(|attribute| attribute.kind() == EXTACK_MESSAGE)?;
        let text = String::from_utf8_lossy(message.value());
        Some(text.trim_end_matches(['\0', '.']).to_owned())
    }
}

/// The messages of a datagram.
struct Frames<'a>(&'a [u8]);

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        let header = self.0.get(..NETLINK_HEADER_LEN)?;
        let word = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let half = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let length = (word(0) as usize).max(NETLINK_HEADER_LEN);
        let bytes = self.0.get(..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Frame { kind: half(4), flags: half(6), sequence: word(8), bytes })
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::{LinkAttribute, LinkMessage};
    use rtnetlink::LinkUnspec;

    use super::*;
    use crate::net::testing::in_new_netns;

    #[test]
    fn reads_the_links_of_a_new_namespace() {
        in_new_netns(|| {
            let mut netlink = Netlink::route().unwrap();
            let links = netlink.dump(&RouteNetlinkMessage::GetLink(LinkMessage::default()), "list links").unwrap();
            let has_lo = links.iter().any(|link| match link {
                RouteNetlinkMessage::NewLink(link) => {
                    link.attributes.iter().any(|a| matches!(a, LinkAttribute::IfName(name) if name == "lo"))
                }
                _ => false,
            });
            assert!(has_lo, "{links:?}");
        });
    }

    #[test]
    fn names_the_failing_request_of_a_batch_and_does_the_others() {
        in_new_netns(|| {
            let mut netlink = Netlink::route().unwrap();
            let mut batch = Batch::new();
            let set = |name: &str| RouteNetlinkMessage::SetLink(LinkUnspec::new_with_name(name).up().build());
            batch.route(set("absent0"), 0, "switch on", "absent0");
            batch.route(set("lo"), 0, "switch on", "lo");
            let error = netlink.send(batch).unwrap_err();
            assert_eq!(error.to_string(), "switch on absent0: no such device (ENODEV)");

            // Nothing of the failed batch is taken for an answer to the next one.
            let mut batch = Batch::new();
            batch.route(set("lo"), 0, "switch on", "lo");
            netlink.send(batch).unwrap();
        });
    }

    #[test]
    fn passes_on_the_words_of_the_kernel() {
        in_new_netns(|| {
            let mut netlink = Netlink::route().unwrap();
            let mut batch = Batch::new();
            let mtu = LinkUnspec::new_with_name("lo").mtu(u32::MAX).build();
            batch.route(RouteNetlinkMessage::SetLink(mtu), 0, "set the MTU of", "lo");
            let error = netlink.send(batch).unwrap_err();
            assert_eq!((error.errno, error.reason.as_str()), (Some(libc::EINVAL), "mtu less than device minimum"));
        });
    }
}
