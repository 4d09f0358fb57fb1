//! Access to the store of images: as the host's root, or as an ordinary user who is the root of a user namespace, where the
//! ids of their ranges in /etc/subuid and /etc/subgid own files as they do in their containers.

use std::path::PathBuf;

use super::content;
use super::unpack::UnpackOptions;
use nsrs_base::error::Result;
use nsrs_base::host::Host;
use nsrs_base::ids::enter::{self, Owner};

/// Where the store is, and how this process unpacks layers into it.
#[derive(Clone, Debug)]
pub struct StoreAccess {
    /// The directory of the store.
    pub directory: PathBuf,
    /// How this process unpacks layers: with which owners, devices and attributes.
    pub options: UnpackOptions,
    /// What the user should know, if files can't have the owners that they should.
    pub warning: Option<String>,
}

impl StoreAccess {
    /// As the calling user: enough for what touches no unpacked layer.
    ///
    /// # Errors
    /// The user has no home directory.
    pub fn of_caller(host: &Host) -> Result<StoreAccess> {
        let options = if host.privileged { UnpackOptions::privileged() } else { UnpackOptions::unprivileged() };
        Ok(StoreAccess { directory: content::directory(host)?, options, warning: None })
    }

    /// As root: enters a user namespace unless the process is the root of one already. The process must have a single
    /// thread, and can't leave the namespace.
    ///
    /// # Errors
    /// User namespaces are disabled; newuidmap(1) refuses.
    pub fn enter_as_root(host: &Host) -> Result<StoreAccess> {
        let mut access = StoreAccess::of_caller(host)?;
        if host.privileged || host.uid == 0 {
            return Ok(access);
        }
        host.user_namespaces_available()?;
        let owner = Owner {
            uid: host.uid,
            gid: host.gid,
            subuids: &host.subuids,
            subgids: &host.subgids,
            has_helpers: host.id_helpers,
        };
        let why = enter::become_root(&owner)?;
        access.warning = why.map(|why| format!("{why}: all files of images will belong to you"));
        Ok(access)
    }
}
