//! What will be done, fully resolved: no option is left open, nothing has been touched yet.
//!
//! [`resolve`] is pure: a [`Spec`] and the facts of the host go in, and a [`Plan`] or *every* problem comes out. The
//! supervisor walks the host's side of a plan, the container's first process walks the rest.

pub mod capability;
pub mod changes;
pub mod command;
pub mod env;
pub mod explain;
pub mod hide;
pub mod idmap;
pub mod image;
pub mod limits;
pub mod mount;
pub mod namespace;
pub mod network;
pub mod pseudo;
mod resolve;
pub mod root;
pub mod size;
pub mod sysctl;

use serde::{Deserialize, Serialize};

pub use resolve::resolve;

use crate::spec::TerminalSize;
use nsrs_base::error::Error;
use nsrs_base::ids::maps::UserNamespace;

/// A container, resolved: what the supervisor and the container's first process will do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Which namespaces are made and which are joined.
    pub namespaces: namespace::Namespaces,
    /// The user namespace and its id maps.
    pub user_namespace: UserNamespace,
    /// The file tree that becomes `/`.
    pub root: root::Root,
    /// /proc, /sys and /dev; `None` where the mount namespace isn't the container's own.
    pub pseudo: Option<pseudo::Pseudo>,
    /// What becomes of the command's changes; `None`: they are thrown away unseen, or are the root's own.
    pub changes: Option<changes::Changes>,
    /// Mounts of the caller, in the order in which they are made.
    pub mounts: Vec<mount::Mount>,
    /// How the container is connected.
    pub network: network::Network,
    /// What goes into /etc/hosts, /etc/hostname and /etc/resolv.conf.
    pub names: network::Names,
    /// Host name in the container; `None` keeps the one the namespace has.
    pub hostname: Option<String>,
    /// NIS domain name in the container.
    pub domainname: Option<String>,
    /// Kernel parameters, checked to belong to the container's own namespaces.
    pub sysctls: Vec<sysctl::Sysctl>,
    /// The command, its rights and its limits.
    pub command: command::Command,
    /// PID 1 is a small init and the command its child.
    pub init: bool,
    /// The container has a terminal of its own, of this size.
    pub tty: Option<TerminalSize>,
    /// The container is killed after this many milliseconds.
    pub timeout_ms: Option<u64>,
}

impl Plan {
    /// Do two plans differ in nothing but what is done last? Then a container made ahead for the one serves the other.
    #[must_use]
    pub fn same_ground(&self, other: &Plan) -> bool {
        let Plan {
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
            command,
            init,
            tty,
            timeout_ms: _,
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
            && command.oom_score_adj == other.command.oom_score_adj
            && command.capabilities == other.command.capabilities
            // In an image it is made where it is missing.
            && (!matches!(root, root::Root::Image(_)) || command.workdir == other.command.workdir)
            && *init == other.init
            && *tty == other.tty
    }
}

/// Collects every problem of a call, so that all are reported together.
#[derive(Debug, Default)]
pub struct Problems(Vec<Error>);

impl Problems {
    /// Keeps the error of a result and hands on its value.
    pub fn take<T>(&mut self, result: Result<T, Error>) -> Option<T> {
        result.map_err(|error| self.0.push(error)).ok()
    }

    /// As [`Problems::take`], with a stand-in that only keeps the resolution going to the next problem.
    pub fn or<T: Default>(&mut self, result: Result<T, Error>) -> T {
        self.take(result).unwrap_or_default()
    }

    /// The values of the results that are good.
    pub fn all<T>(&mut self, results: impl IntoIterator<Item = Result<T, Error>>) -> Vec<T> {
        results.into_iter().filter_map(|result| self.take(result)).collect()
    }

    /// Notes problems.
    pub fn extend(&mut self, errors: impl IntoIterator<Item = Error>) {
        self.0.extend(errors);
    }

    /// Notes a problem.
    pub fn push(&mut self, error: Error) {
        self.0.push(error);
    }

    /// The value, if there was no problem at all.
    ///
    /// # Errors
    /// Every problem that was noted.
    pub fn finish<T>(self, value: T) -> Result<T, Vec<Error>> {
        if self.0.is_empty() { Ok(value) } else { Err(self.0) }
    }
}
