//! Which namespaces a container makes, shares and joins (namespaces(7)).

use serde::{Deserialize, Serialize};

use nsrs_base::error::{Error, Result};
use nsrs_base::options::{CGROUPNS, IPC, MOUNTNS, NETWORK, OptionName, PID, TIMENS, USERNS, UTS};

/// A kind of namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Ids and capabilities, user_namespaces(7). First: the others are owned by it.
    User,
    /// Mount points, mount_namespaces(7).
    Mount,
    /// Process numbers, pid_namespaces(7).
    Pid,
    /// Interfaces, routes, sockets, network_namespaces(7).
    Network,
    /// Host and domain name, uts_namespaces(7).
    Uts,
    /// System V IPC and message queues, ipc_namespaces(7).
    Ipc,
    /// View of the cgroup tree, cgroup_namespaces(7).
    Cgroup,
    /// Clock offsets, time_namespaces(7).
    Time,
}

impl Kind {
    /// All kinds, in the order in which they are joined.
    pub const ALL: [Kind; 8] =
        [Kind::User, Kind::Mount, Kind::Pid, Kind::Network, Kind::Uts, Kind::Ipc, Kind::Cgroup, Kind::Time];

    /// The `CLONE_NEW*` flag (clone(2)).
    #[must_use]
    pub fn flag(self) -> u64 {
        // libc has these as i32; CLONE_NEWTIME shares its bit with the exit signal of old clone and exists in clone3 only.
        (match self {
            Kind::User => libc::CLONE_NEWUSER,
            Kind::Mount => libc::CLONE_NEWNS,
            Kind::Pid => libc::CLONE_NEWPID,
            Kind::Network => libc::CLONE_NEWNET,
            Kind::Uts => libc::CLONE_NEWUTS,
            Kind::Ipc => libc::CLONE_NEWIPC,
            Kind::Cgroup => libc::CLONE_NEWCGROUP,
            Kind::Time => 0x80,
        }) as u64
    }

    /// The name of the namespace's file in `/proc/PID/ns`.
    #[must_use]
    pub fn file(self) -> &'static str {
        match self {
            Kind::User => "user",
            Kind::Mount => "mnt",
            Kind::Pid => "pid",
            Kind::Network => "net",
            Kind::Uts => "uts",
            Kind::Ipc => "ipc",
            Kind::Cgroup => "cgroup",
            Kind::Time => "time",
        }
    }

    /// The option that sets this kind.
    #[must_use]
    pub fn option(self) -> OptionName {
        match self {
            Kind::User => USERNS,
            Kind::Mount => MOUNTNS,
            Kind::Pid => PID,
            Kind::Network => NETWORK,
            Kind::Uts => UTS,
            Kind::Ipc => IPC,
            Kind::Cgroup => CGROUPNS,
            Kind::Time => TIMENS,
        }
    }
}

/// What a container does about one kind of namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Use {
    /// A new one of its own.
    Private,
    /// The one of the caller.
    Host,
    /// The one behind this path.
    Join(String),
}

/// The namespaces of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Namespaces {
    /// The kinds of which the container gets a new one.
    pub private: Vec<Kind>,
    /// Joined, user namespace first: it gives the right to join the others.
    pub joined: Vec<Join>,
    /// Offsets of the clocks in the new time namespace.
    pub clock: Option<ClockOffsets>,
}

/// A namespace to join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// Its kind; another kind behind the path is an error.
    pub kind: Kind,
    /// `/proc/PID/ns/…` or a bound file.
    pub path: String,
}

/// Offsets of a time namespace's clocks in seconds (time_namespaces(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockOffsets {
    /// Seconds that are added to `CLOCK_MONOTONIC`.
    pub monotonic: i64,
    /// Seconds that are added to `CLOCK_BOOTTIME`.
    pub boottime: i64,
}

impl Namespaces {
    /// Is a new namespace of this kind made?
    #[must_use]
    pub fn makes(&self, kind: Kind) -> bool {
        self.private.contains(&kind)
    }

    /// Is a namespace of this kind joined?
    #[must_use]
    pub fn joins(&self, kind: Kind) -> bool {
        self.joined.iter().any(|join| join.kind == kind)
    }

    /// Notes what is done about a kind.
    pub fn add(&mut self, kind: Kind, how: Use) {
        match how {
            Use::Private => self.private.push(kind),
            Use::Host => {}
            Use::Join(path) => self.joined.push(Join { kind, path }),
        }
    }

    /// The `CLONE_NEW*` flags of the new namespaces.
    #[must_use]
    pub fn flags(&self) -> u64 {
        self.private.iter().fold(0, |flags, kind| flags | kind.flag())
    }
}

/// Reads `private`, `host`, `/path`, `ns:/path` or `ns:PID`.
///
/// # Errors
/// The text is none of these.
pub fn parse(kind: Kind, text: &str) -> Result<Use> {
    let bad = |why: &str| Err(Error::invalid(kind.option(), text, why));
    match text {
        "private" => Ok(Use::Private),
        "host" => Ok(Use::Host),
        _ => match text.strip_prefix("ns:").unwrap_or(text) {
            path if path.contains('\0') => bad("a path can't hold a NUL byte"),
            path if path.starts_with('/') => Ok(Use::Join(path.to_owned())),
            pid if text.starts_with("ns:") && pid.parse::<u32>().is_ok_and(|pid| pid > 0) => {
                Ok(Use::Join(format!("/proc/{pid}/ns/{}", kind.file())))
            }
            _ => bad("give private, host, the path of a namespace, or ns:PID"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_means_the_namespace_of_that_process() {
        assert_eq!(parse(Kind::Ipc, "ns:42").unwrap(), Use::Join("/proc/42/ns/ipc".into()));
        assert_eq!(parse(Kind::Mount, "ns:42").unwrap(), Use::Join("/proc/42/ns/mnt".into()));
    }

    #[test]
    fn a_path_may_stand_alone_or_behind_ns() {
        assert_eq!(parse(Kind::Uts, "/run/ns/x").unwrap(), parse(Kind::Uts, "ns:/run/ns/x").unwrap());
    }

    #[test]
    fn anything_else_is_an_error_that_quotes_the_option() {
        for text in ["", "shared", "ns:", "ns:0", "ns:-1", "ns:x", "42", "relative/path"] {
            let error = parse(Kind::Pid, text).unwrap_err();
            assert!(error.to_string().starts_with(&format!("invalid --pid {text:?}: give private")), "{error}");
        }
    }
}
