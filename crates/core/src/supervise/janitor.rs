//! The janitor releases and removes what containers have left, when nobody waits for it.

use std::os::fd::OwnedFd;
use std::time::Instant;

use nsrs_base::error::Result;
use nsrs_base::host::Host;
use nsrs_base::sys::wait::reap;
use nsrs_store::store_access::StoreAccess;
use nsrs_store::writable_layer::{WritableLayer, remove_abandoned, remove_in_background};
use rustix::process::Pid;

use crate::supervise::container::Container;

/// Most mounts, or writable layers, that wait for a quiet moment.
const MOST_WAITING: usize = 8;

/// Releases mounts and removes writable layers in the background.
#[derive(Debug, Default)]
pub struct Janitor {
    /// Mount namespaces of containers that have ended. Closing one takes the kernel a moment, which nobody should wait for.
    mounts: Vec<OwnedFd>,
    /// Writable layers of ended containers on images, still to be removed.
    writable: Vec<WritableLayer>,
    /// Child processes that remove writable layers.
    sweepers: Vec<Pid>,
}

impl Janitor {
    /// Takes the mounts and the writable layer of a container that has ended.
    pub fn take_over(&mut self, container: &mut Container) {
        self.mounts.extend(container.holdings.mounts.take());
        self.writable.extend(container.holdings.writable.take());
    }

    /// Takes the writable layer of a container that failed to start.
    pub fn take_writable(&mut self, writable: Option<WritableLayer>) {
        self.writable.extend(writable);
    }

    /// When there is work: mounts are released at once, writable layers removed from `quiet` on.
    #[must_use]
    pub fn due(&self, quiet: Instant) -> Option<Instant> {
        let mounts = (!self.mounts.is_empty()).then(Instant::now);
        let writable = (!self.writable.is_empty()).then_some(quiet);
        mounts.into_iter().chain(writable).min()
    }

    /// Reaps the children that have ended.
    pub fn reap(&mut self) {
        self.sweepers.retain(|child| matches!(reap(*child), Ok(None)));
    }

    /// Whether this process is one of its children.
    #[must_use]
    pub fn has_child(&self, pid: Pid) -> bool {
        self.sweepers.contains(&pid)
    }

    /// Does what is due; `idle` says that the supervisor has nothing else to do now.
    pub fn work(&mut self, idle: bool, quiet: Instant) {
        if idle || self.mounts.len() > MOST_WAITING {
            self.let_go();
        }
        if idle && !self.writable.is_empty() && quiet <= Instant::now() || self.writable.len() > MOST_WAITING {
            self.sweep();
        }
    }

    /// Lets go of the mounts of containers that have ended, and with them of the file systems these are of.
    pub fn let_go(&mut self) {
        self.mounts.clear();
    }

    /// Starts to remove the writable layers that ended containers have left.
    pub fn sweep(&mut self) {
        self.sweepers.extend(remove_in_background(std::mem::take(&mut self.writable)));
    }

    /// Starts to remove what dead supervisors have left in the store.
    ///
    /// # Errors
    /// Fails as [`remove_abandoned`] does.
    pub fn collect(&mut self, host: &Host) -> Result<()> {
        // Without a store there is nothing to remove.
        if let Ok(store) = StoreAccess::of_caller(host) {
            self.sweepers.extend(remove_abandoned(&store.directory, host)?);
        }
        Ok(())
    }
}
