//! The first half of a plan: the sandbox, which is everything of a container but the processes in it.

use serde::{Deserialize, Serialize};

use super::changes::Changes;
use super::mount::Mount;
use super::namespace::Namespaces;
use super::network::Names;
use super::pseudo::Pseudo;
use super::root::Root;
use super::sysctl::Sysctl;
use crate::net::kinds::Network;
use nsrs_base::ids::maps::UserNamespace;

/// Namespaces, root, mounts and network, resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sandbox {
    /// Which namespaces are made and which are joined.
    pub namespaces: Namespaces,
    /// The user namespace and its id maps.
    pub user_namespace: UserNamespace,
    /// The file tree that becomes `/`.
    pub root: Root,
    /// /proc, /sys and /dev; `None` where the mount namespace isn't the container's own.
    pub pseudo: Option<Pseudo>,
    /// What becomes of the command's changes; `None`: they are thrown away unseen, or are the root's own.
    pub changes: Option<Changes>,
    /// Mounts of the caller, in the order in which they are made.
    pub mounts: Vec<Mount>,
    /// How the container is connected.
    pub network: Network,
    /// What goes into /etc/hosts, /etc/hostname and /etc/resolv.conf.
    pub names: Names,
    /// Host name in the container; `None` keeps the one the namespace has.
    pub hostname: Option<String>,
    /// NIS domain name in the container.
    pub domainname: Option<String>,
    /// Kernel parameters, checked to belong to the container's own namespaces.
    pub sysctls: Vec<Sysctl>,
    /// PID 1 is a small init and the first process its child.
    pub init: bool,
}

impl Sandbox {
    /// Whether a sandbox that was made for this plan is the one that the other asks for.
    pub(super) fn serves(&self, other: &Sandbox) -> bool {
        let Sandbox {
            namespaces,
            user_namespace,
            root,
            pseudo,
            changes,
            mounts,
            network,
            names,
            hostname,
            domainname,
            sysctls,
            init,
        } = self;
        *root == other.root
            && *changes == other.changes
            && *mounts == other.mounts
            && *network == other.network
            && *namespaces == other.namespaces
            && *user_namespace == other.user_namespace
            && *pseudo == other.pseudo
            && *names == other.names
            && *hostname == other.hostname
            && *domainname == other.domainname
            && *sysctls == other.sysctls
            && *init == other.init
    }
}
