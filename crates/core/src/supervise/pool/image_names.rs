//! The names of images, watched: whoever holds layers for later has to know when they are not wanted any more.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

/// Readable when a name of the store has changed, or the store itself is gone (inotify(7)).
#[derive(Debug)]
pub struct ImageNames(OwnedFd);

impl ImageNames {
    /// Watches a store; `None` where there are too many watches.
    pub fn watch(store: &str) -> Option<ImageNames> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok()?;
        // What is renamed into it is the index, or the mark of the layout.
        let what = WatchFlags::MOVED_TO | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF | WatchFlags::ONLYDIR;
        inotify::add_watch(&fd, store, what).ok()?;
        Some(ImageNames(fd))
    }
}

impl AsFd for ImageNames {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
