//! What containers have left, let go of and removed when nobody waits.

use std::os::fd::OwnedFd;
use std::time::Instant;

use nsrs_base::error::Result;
use nsrs_base::host::Host;
use nsrs_base::sys::wait::reap;
use nsrs_store::store_access::StoreAccess;
use nsrs_store::writable_layer::{WritableLayer, remove_abandoned, remove_in_background};
use rustix::process::Pid;

use crate::supervise::container::Container;

/// Most of them that wait for a quiet moment.
const MOST_WAITING: usize = 8;

/// Lets go of mounts and removes writable layers behind everybody's back.
#[derive(Debug, Default)]
pub struct Janitor {
    /// Mount namespaces of containers that have ended. To let go of one takes the kernel a moment, which nobody waits for.
    mounts: Vec<OwnedFd>,
    /// What containers on images have written that are over, still to be removed.
    writable: Vec<WritableLayer>,
    /// Children that remove it.
    sweepers: Vec<Pid>,
}

impl Janitor {
    /// Takes over what a container has left.
    pub fn take_over(&mut self, container: &mut Container) {
        self.mounts.extend(container.holdings.mounts.take());
        self.writable.extend(container.holdings.writable.take());
    }

    /// Takes over the writable layer of a container that came to nothing.
    pub fn take_writable(&mut self, writable: Option<WritableLayer>) {
        self.writable.extend(writable);
    }

    /// When there is something to do: of mounts at once, of what is to be removed from `quiet` on.
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

    /// The process of this number is one of its children.
    #[must_use]
    pub fn has_child(&self, pid: Pid) -> bool {
        self.sweepers.contains(&pid)
    }

    /// Does what is due; `idle`: nothing else is to be done at this moment.
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

    /// Has what containers have left be removed.
    pub fn sweep(&mut self) {
        self.sweepers.extend(remove_in_background(std::mem::take(&mut self.writable)));
    }

    /// Has what dead supervisors left in the store be removed.
    ///
    /// # Errors
    /// Those of [`writable::collect`].
    pub fn collect(&mut self, host: &Host) -> Result<()> {
        // Where there is no store nothing is left in it.
        if let Ok(store) = StoreAccess::of_caller(host) {
            self.sweepers.extend(remove_abandoned(&store.directory, host)?);
        }
        Ok(())
    }
}
