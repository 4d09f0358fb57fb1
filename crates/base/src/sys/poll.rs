//! Waiting for descriptors (poll(2)).

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Waits until one of these is ready, for no longer than `limit`, through signals. `false`: none was ready in time.
///
/// # Errors
/// Fails as poll(2) does, but never with `EINTR`.
pub fn wait(fds: &mut [PollFd<'_>], limit: Option<Duration>) -> Result<bool, Errno> {
    let deadline = limit.map(|limit| Instant::now() + limit);
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        // A time too long for the kernel is none.
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(fds, left.as_ref()) {
            Err(Errno::INTR) => {}
            ready => return ready.map(|count| count > 0),
        }
    }
}

/// Waits until something can be read from this, or its end is reached; a pidfd is readable when its process has ended.
/// `false`: not in time, or the kernel has no memory to wait with.
pub fn readable_within(fd: impl AsFd, limit: Option<Duration>) -> bool {
    wait(&mut [PollFd::new(&fd, PollFlags::IN)], limit).unwrap_or(false)
}

/// Whether something can be read from this now, or its end is reached.
pub fn is_readable(fd: impl AsFd) -> bool {
    readable_within(fd, Some(Duration::ZERO))
}
