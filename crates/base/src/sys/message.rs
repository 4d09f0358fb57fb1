//! Bytes and file descriptors over a UNIX socket (unix(7), `SCM_RIGHTS`).

use std::cell::RefCell;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

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
/// Those of sendmsg(2); `EPIPE` without a signal when the other end is closed.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::INVAL);
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
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
/// Those of recvmsg(2).
pub fn receive<T>(socket: impl AsFd, fds: &mut Vec<OwnedFd>, act: impl FnOnce(&[u8]) -> T) -> Result<T, Errno> {
    receive_telling(socket, fds, |bytes, _| act(bytes))
}

/// As [`receive`], but `act` is told whether all descriptors have arrived.
///
/// # Errors
/// Those of recvmsg(2).
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
