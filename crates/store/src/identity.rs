//! Who handles the files of images: the host's root, or an ordinary user as the root of a user namespace, where the ids of
//! their range in /etc/subuid and /etc/subgid own files as they do in their containers.

use std::path::PathBuf;

use super::content;
use super::unpack::Options;
use nsrs_base::error::Result;
use nsrs_base::host::Host;
use nsrs_base::ids::enter::{self, Owner};

/// Who we are for the files of images.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Where the store is.
    pub directory: PathBuf,
    /// How layers are unpacked.
    pub options: Options,
    /// What the user should know.
    pub warning: Option<String>,
}

/// Who we are without entering anything: enough for verbs that touch no unpacked layer.
///
/// # Errors
/// The user has no home directory.
pub fn outside(host: &Host) -> Result<Identity> {
    let options = if host.privileged { Options::privileged() } else { Options::unprivileged() };
    Ok(Identity { directory: content::directory(host)?, options, warning: None })
}

/// Becomes root of a user namespace, if we aren't the host's root (or somebody's root already). The process must have one
/// thread only, and stays there.
///
/// # Errors
/// User namespaces are switched off, or newuidmap(1) refuses.
pub fn enter(host: &Host) -> Result<Identity> {
    let mut identity = outside(host)?;
    if host.privileged || host.uid == 0 {
        return Ok(identity);
    }
    host.user_namespaces_available()?;
    let owner = Owner {
        uid: host.uid,
        gid: host.gid,
        subuids: &host.subuids,
        subgids: &host.subgids,
        has_helpers: host.id_helpers,
    };
    identity.warning = enter::become_root(&owner)?.map(|why| format!("{why}: all files of images will belong to you"));
    Ok(identity)
}
