//! Bytes and file descriptors over a UNIX socket (unix(7), `SCM_RIGHTS`).

use std::cell::RefCell;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// Most descriptors in one message: the kernel's `SCM_MAX_FD`.
pub const MOST_FDS: usize = 253;

/// Sends bytes with descriptors; returns how many bytes went.
///
/// # Errors
/// Fails as sendmsg(2) does; `EPIPE` without a signal when the other end is closed.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::INVAL);
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
}

/// As [`send`], without waiting for a receiver that is behind.
///
/// # Errors
/// `EAGAIN`: it is.
pub fn send_at_once(socket: impl AsFd, bytes: &[u8]) -> Result<usize, Errno> {
    rustix::net::send(socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
}

/// Has the kernel throw away whatever is sent to this socket of datagrams or packets. That happens in the sender's system
/// call, and so does the closing of the descriptors that came along, which can take as long as whoever made them likes. The
/// socket's end, and what is sent from it, stay as they are.
///
/// # Errors
/// Fails as setsockopt(2) does for `SO_ATTACH_FILTER` (socket(7)).
pub fn refuse_all(socket: impl AsFd) -> Result<(), Errno> {
    let mut keep_nothing = libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 };
    let program = libc::sock_fprog { len: 1, filter: &raw mut keep_nothing };
    // SAFETY: the program and its one instruction live across the call, and the kernel copies them.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)) }
}

/// Most bytes that are received at once.
pub const MOST_BYTES: usize = 16 * 1024;

thread_local! {
    /// Where all is received: only what arrives is written there. A new buffer would be filled with zeroes before, and a
    /// page that is written to is copied once for each process that was made meanwhile.
    static RECEIVED: RefCell<Box<[u8]>> = RefCell::new(vec![0; MOST_BYTES].into());
}

/// What became of the descriptors of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descriptors {
    /// All of them have arrived.
    Whole,
    /// The kernel has dropped some, most likely as this process may have no more (`MSG_CTRUNC`, recvmsg(2)).
    Truncated,
}

/// Receives bytes, for `act` to look at, and appends the descriptors that came with them, closed on exec; no bytes are the
/// end. Descriptors that the kernel has dropped are just not there.
///
/// # Errors
/// Fails as recvmsg(2) does.
pub fn receive<T>(socket: impl AsFd, fds: &mut Vec<OwnedFd>, act: impl FnOnce(&[u8]) -> T) -> Result<T, Errno> {
    receive_telling(socket, fds, |bytes, _| act(bytes))
}

/// As [`receive`], but `act` is told whether all descriptors have arrived.
///
/// # Errors
/// Fails as recvmsg(2) does.
pub fn receive_telling<T>(
    socket: impl AsFd,
    fds: &mut Vec<OwnedFd>,
    act: impl FnOnce(&[u8], Descriptors) -> T,
) -> Result<T, Errno> {
    RECEIVED.with_borrow_mut(|bytes| {
        receive_into(socket, bytes, fds).map(|(length, descriptors)| act(&bytes[..length], descriptors))
    })
}

fn receive_into(socket: impl AsFd, bytes: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<(usize, Descriptors), Errno> {
    let mut space = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(new) = message {
            fds.extend(new);
        }
    }
    let is_truncated = received.flags.contains(ReturnFlags::CTRUNC);
    Ok((received.bytes, if is_truncated { Descriptors::Truncated } else { Descriptors::Whole }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, recv, socketpair};
    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;
    use crate::sys::poll::{is_readable, readable_within};

    #[test]
    fn a_socket_that_refuses_all_gets_nothing_but_the_end() {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        refuse_all(&ours).unwrap();
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        send(&theirs, b"bytes", &[write.as_fd()]).unwrap();
        drop(write);
        // The descriptor is closed already: nobody holds the pipe any more.
        assert!(readable_within(&read, Some(Duration::from_secs(5))));
        assert!(!is_readable(&ours));
        send_at_once(&ours, b"other way").unwrap();
        let mut bytes = [0; 16];
        assert_eq!(recv(&theirs, &mut bytes, RecvFlags::DONTWAIT).unwrap().0, 9);
        drop(theirs);
        assert!(readable_within(&ours, Some(Duration::from_secs(5))));
    }
}
