//! Where a supervisor keeps its state while it runs: the state directory, and its journal in it.

use std::path::{Path, PathBuf};

use nsrs_base::error::Result;
use nsrs_base::host::Host;

use crate::net::transport::Netlink;
use crate::net::veth::unplug;
use crate::net::{bridge, nft};
use crate::state;
use crate::state::journal::{self, EntryId, Journal, NetworkObject};

/// The state directory with a journal of our own.
#[derive(Debug)]
pub struct RunDirectory {
    /// The path of the state directory.
    pub path: PathBuf,
    /// Our journal: the processes and network objects that would outlive a supervisor that is killed.
    pub journal: Journal,
}

impl RunDirectory {
    /// The path of the state directory, which need not exist yet.
    #[must_use]
    pub fn path(host: &Host) -> PathBuf {
        state::directory(host)
    }

    /// Makes the directory, if it is missing, and makes sure that it is ours.
    ///
    /// # Errors
    /// Fails as [`state::open`] does.
    pub fn make(host: &Host) -> Result<PathBuf> {
        state::open(host)
    }

    /// Ends and removes what dead supervisors have left in the journals of this directory.
    ///
    /// # Errors
    /// Fails as [`journal::collect`] does; the kernel refuses the removal of a bridge.
    pub fn collect(path: &Path, host: &Host) -> Result<()> {
        journal::collect(path, |object| match object {
            NetworkObject::Link(name) => unplug(&mut Netlink::route()?, name),
            NetworkObject::Table(name) => nft::remove(name),
        })?;
        if host.net_admin {
            bridge::collect(path)?;
        }
        Ok(())
    }

    /// Opens a journal of our own.
    ///
    /// # Errors
    /// The disk is full.
    pub fn open(path: PathBuf) -> Result<RunDirectory> {
        let journal = Journal::open(&path)?;
        Ok(RunDirectory { path, journal })
    }

    /// Removes the entry of a process that has ended from the journal.
    pub fn strike(&mut self, slot: Option<EntryId>) {
        if let Some(slot) = slot {
            self.journal.strike(slot);
        }
    }
}
