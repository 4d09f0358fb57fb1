//! The event loop: epoll(7), with a [`Token`] for each descriptor.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use nsrs_base::error::{At, Result};
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use super::token::Token;
use crate::steps::channel::Channel;

/// Most events that are taken at once.
const MOST: usize = 64;

/// Descriptors that are watched, each with its token.
#[derive(Debug)]
pub struct EventLoop(OwnedFd);

impl EventLoop {
    /// An event loop that watches nothing yet.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn new() -> Result<EventLoop> {
        epoll::create(epoll::CreateFlags::CLOEXEC).at("make the event loop", "").map(EventLoop)
    }

    /// Watches a descriptor; [`EventLoop::wait`] returns `token` when one of `flags` is true of it.
    ///
    /// # Errors
    /// Fails as epoll_ctl(2) does.
    pub fn watch(&self, fd: impl AsFd, token: Token, flags: epoll::EventFlags) -> Result<()> {
        epoll::add(&self.0, fd, token.data(), flags).at("watch a file descriptor", "")
    }

    /// Changes what a watched descriptor is watched for.
    ///
    /// # Errors
    /// Fails as epoll_ctl(2) does.
    pub fn rewatch(&self, fd: impl AsFd, token: Token, flags: epoll::EventFlags) -> Result<()> {
        epoll::modify(&self.0, fd, token.data(), flags).at("watch a file descriptor", "")
    }

    /// Stops watching a descriptor. To close it isn't enough: processes that are just being made have copies, and epoll
    /// reports on a descriptor until the last copy is closed.
    pub fn unwatch(&self, fd: impl AsFd) {
        let _ = epoll::delete(&self.0, fd);
    }

    /// Watches a channel for what can be received.
    ///
    /// # Errors
    /// Fails as epoll_ctl(2) does.
    pub fn listen(&self, channel: &Channel, token: Token) -> Result<()> {
        channel.sources().into_iter().try_for_each(|source| self.watch(source, token, epoll::EventFlags::IN))
    }

    /// Undoes [`EventLoop::listen`].
    pub fn stop_listening(&self, channel: &Channel) {
        channel.sources().into_iter().for_each(|source| self.unwatch(source));
    }

    /// Waits until something is ready or the time has come, and returns what is ready.
    ///
    /// # Errors
    /// Fails as epoll_wait(2) does.
    pub fn wait(&self, until: Option<Instant>) -> Result<Vec<Token>> {
        let mut ready: Vec<epoll::Event> = Vec::with_capacity(MOST);
        let timeout = until.map(|until| {
            // epoll counts in milliseconds, and a fraction cut off would be waited for in a spin.
            let left = until.saturating_duration_since(Instant::now()).as_nanos().div_ceil(1_000_000) as i64;
            Timespec { tv_sec: left / 1000, tv_nsec: left % 1000 * 1_000_000 }
        });
        match epoll::wait(&self.0, rustix::buffer::spare_capacity(&mut ready), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).at("wait for events", ""),
        }
        Ok(ready.iter().filter_map(|event| Token::from_data(event.data)).collect())
    }
}
