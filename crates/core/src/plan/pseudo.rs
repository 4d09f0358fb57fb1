//! /proc, /sys and /dev of a container.

use serde::{Deserialize, Serialize};

use super::namespace::{Kind, Namespaces};
use nsrs_base::host::Host;

/// How /proc is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proc {
    /// A new one for the container's PID namespace.
    Fresh,
    /// The host's: a user namespace has no right to a new one for a PID namespace that isn't its own.
    Host,
}

/// How /sys is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sys {
    /// A new one for the container's network namespace, read-only.
    Fresh,
    /// None: a user namespace has no right to one for a network namespace that isn't its own.
    Absent,
}

/// How the nodes in /dev come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Nodes {
    /// Made by mknod(2) in a tmpfs.
    Made,
    /// Bound from the host, node by node: a user namespace can't make any.
    Bound,
}

/// The file systems of the kernel's own that a container gets: /proc, /sys and /dev.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pseudo {
    /// Which /proc it gets.
    pub proc: Proc,
    /// Whether it gets a /sys.
    pub sys: Sys,
    /// Where the device nodes in its /dev come from.
    pub nodes: Nodes,
    /// Bytes that /dev/shm may hold.
    pub shm_size: u64,
    /// /dev/mqueue, for an IPC namespace of the container's own.
    pub mqueue: bool,
    /// Group that owns the terminals in /dev/pts (`tty`, 5), where that id exists in the container.
    pub tty_group: Option<u32>,
    /// Paths of which nothing can be read.
    pub masked: Vec<String>,
    /// Paths to which nothing can be written.
    pub read_only: Vec<String>,
}

/// What podman masks: these tell of the host, or let a container act on it.
const MASKED: [&str; 13] = [
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/dev/block",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/selinux",
];

/// What podman makes read-only.
const READ_ONLY: [&str; 6] = ["/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Bytes of /dev/shm when nothing is said, as in docker and podman.
pub const SHM_SIZE: u64 = 64 << 20;

/// Resolves /proc, /sys and /dev; `None` where the mount namespace isn't new.
#[must_use]
pub fn resolve(
    namespaces: &Namespaces,
    user_private: bool,
    host: &Host,
    shm_size: u64,
    tty_group_mapped: bool,
) -> Option<Pseudo> {
    if !namespaces.makes(Kind::Mount) {
        return None;
    }
    let privileged = host.privileged;
    // The kernel asks for CAP_SYS_ADMIN over the user namespace that owns the PID namespace of a new procfs and the
    // network namespace of a new sysfs.
    let owns = |kind: Kind| namespaces.makes(kind) || (privileged && !user_private && !namespaces.joins(Kind::User));
    let sys = if owns(Kind::Network) { Sys::Fresh } else { Sys::Absent };
    let masked = MASKED.into_iter().filter(|path| path.starts_with("/proc") || sys == Sys::Fresh);
    Some(Pseudo {
        // Of a joined PID namespace too: if the kernel refuses that, the host's processes are no substitute.
        proc: if owns(Kind::Pid) || namespaces.joins(Kind::Pid) { Proc::Fresh } else { Proc::Host },
        sys,
        // In an outer container root may well be without the right to.
        nodes: match privileged && host.mknod && !user_private && !namespaces.joins(Kind::User) {
            true => Nodes::Made,
            false => Nodes::Bound,
        },
        shm_size,
        mqueue: namespaces.makes(Kind::Ipc),
        tty_group: tty_group_mapped.then_some(5),
        masked: masked.map(ToOwned::to_owned).collect(),
        read_only: READ_ONLY.map(ToOwned::to_owned).to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::namespace::Join;

    fn own(kinds: &[Kind]) -> Namespaces {
        Namespaces { private: kinds.to_vec(), ..Namespaces::default() }
    }

    #[test]
    fn root_makes_everything_new() {
        let pseudo = resolve(&own(&[Kind::Mount]), false, &Host::root(), SHM_SIZE, true).unwrap();
        assert_eq!((pseudo.proc, pseudo.sys, pseudo.nodes), (Proc::Fresh, Sys::Fresh, Nodes::Made));
    }

    #[test]
    fn root_without_the_right_to_make_devices_binds_them() {
        let host = Host { mknod: false, ..Host::root() };
        assert_eq!(resolve(&own(&[Kind::Mount]), false, &host, SHM_SIZE, true).unwrap().nodes, Nodes::Bound);
    }

    #[test]
    fn a_user_namespace_gets_what_its_own_namespaces_allow() {
        let pseudo =
            resolve(&own(&[Kind::User, Kind::Mount, Kind::Pid]), true, &Host::ordinary(1000), SHM_SIZE, false).unwrap();
        assert_eq!((pseudo.proc, pseudo.sys, pseudo.nodes), (Proc::Fresh, Sys::Absent, Nodes::Bound));
        assert!(pseudo.masked.iter().all(|path| path.starts_with("/proc")));
        let pseudo =
            resolve(&own(&[Kind::User, Kind::Mount, Kind::Network]), true, &Host::ordinary(1000), SHM_SIZE, false)
                .unwrap();
        assert_eq!((pseudo.proc, pseudo.sys), (Proc::Host, Sys::Fresh));
    }

    #[test]
    fn the_processes_of_the_host_are_not_shown_in_a_joined_namespace() {
        let join = |kind| Join { kind, path: "/proc/7/ns/x".into() };
        for joined in [vec![join(Kind::Pid)], vec![join(Kind::User), join(Kind::Pid)]] {
            let namespaces = Namespaces { joined, ..own(&[Kind::Mount]) };
            let pseudo = resolve(&namespaces, false, &Host::ordinary(1000), SHM_SIZE, false).unwrap();
            assert_eq!(pseudo.proc, Proc::Fresh);
        }
    }

    #[test]
    fn a_shared_mount_namespace_is_left_alone() {
        assert_eq!(resolve(&own(&[Kind::Pid]), false, &Host::root(), SHM_SIZE, true), None);
    }
}
