//! What the caller asked for, as plain data. Nothing is resolved or checked here: that is [`crate::plan`]'s work.
//!
//! Values keep the text forms of docker and podman where those have one (`8080:80/udp`, `nofile=1024:2048`), so that a
//! text is parsed in one place only and every error can quote what was written.

pub mod enter;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::enter::EnterSpec;

/// The facts of the calling process that the wishes are relative to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// Working directory of the caller, absolute; empty where it was removed.
    pub cwd: String,
    /// The variables of the caller that a container may be given: all of them for `env_host`, else the few named in
    /// [`crate::plan::env::HOST_NAMES`].
    pub env: BTreeMap<String, String>,
}

/// A mount as the caller wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Mount {
    /// `type=bind,source=/src,target=/dst,readonly` (docker's `--mount`).
    Text(String),
    /// The same, taken apart, for paths that hold commas.
    Typed {
        /// `bind`, `tmpfs` or `overlay`.
        kind: String,
        /// Path on the host (bind), lower directory (overlay); empty for tmpfs.
        #[serde(default)]
        source: String,
        /// Absolute path in the container.
        target: String,
        /// `ro`, `nosuid`, `size=64m`, …
        #[serde(default)]
        options: Vec<String>,
    },
}

/// In which form the list is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Form {
    /// For people.
    #[default]
    Text,
    /// As a JSON document.
    Json,
}

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Columns.
    pub cols: u16,
    /// Rows.
    pub rows: u16,
}

/// Which namespaces the container gets: for each kind `private`, `host`, or the one to join, as a path
/// (`/proc/PID/ns/net`, a bound file) or `ns:PID`. `None` is the default of the kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Namespaces {
    /// Mount namespace, default private.
    pub mount: Option<String>,
    /// PID namespace, default private.
    pub pid: Option<String>,
    /// Hostname and domain name, default private.
    pub uts: Option<String>,
    /// System V IPC, POSIX message queues, default private.
    pub ipc: Option<String>,
    /// User namespace, default host for root and private for everybody else.
    pub user: Option<String>,
    /// View of the cgroup tree, default private.
    pub cgroup: Option<String>,
    /// Offsets of the monotonic and boot-time clocks, default host, private when an offset is set.
    pub time: Option<String>,
}

/// A container as the caller asked for it. Every field but `args` may be left at its default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Spec {
    /// The command and its arguments; the command is looked up in the container's `PATH`.
    pub args: Vec<String>,
    /// The calling process.
    pub caller: Caller,

    /// `host` (the host's tree, copy-on-write; the default) or a directory.
    pub rootfs: Option<String>,
    /// An image of the store as the root file system, in place of `rootfs`.
    pub image: Option<String>,
    /// Which of an image's platforms, `os/arch[/variant]`; default: this machine's.
    pub platform: Option<String>,
    /// In place of the image's entrypoint; its `Cmd` is then dropped. Empty: no entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// Publish every port of tcp and udp that the image exposes.
    pub publish_all: bool,
    /// Keep what the command writes to an image's tree in memory, not on disk.
    pub rootfs_tmpfs: bool,
    /// Mount the root file system read-only.
    pub read_only: bool,
    /// List at the end what the command changed, in this form.
    pub diff: Option<Form>,
    /// Directory in which the changes are kept.
    pub upper: Option<String>,
    /// Further paths of the host's tree to hide; `~/` is the caller's home directory.
    pub hide: Vec<String>,
    /// `SOURCE:TARGET[:OPTIONS]`, bind mounts.
    pub volumes: Vec<String>,
    /// Mounts in docker's `--mount` form, or taken apart.
    pub mounts: Vec<Mount>,
    /// `TARGET[:OPTIONS]`, temporary file systems in memory.
    pub tmpfs: Vec<String>,
    /// Size of `/dev/shm`, default `64m`.
    pub shm_size: Option<String>,

    /// Namespaces other than the network.
    pub namespaces: Namespaces,
    /// `INSIDE:OUTSIDE:COUNT`, user ids.
    pub uid_maps: Vec<String>,
    /// `INSIDE:OUTSIDE:COUNT`, group ids; default: as the user ids.
    pub gid_maps: Vec<String>,
    /// Offset of the monotonic clock, in seconds.
    pub monotonic_offset: Option<i64>,
    /// Offset of the boot-time clock, in seconds.
    pub boottime_offset: Option<i64>,

    /// `none`, `host`, `bridge`, `pasta`, or `ns:NAME|PATH|PID`.
    pub network: Option<String>,
    /// Fixed IPv4 address on the bridge.
    pub ip: Option<String>,
    /// Fixed IPv6 address on the bridge.
    pub ip6: Option<String>,
    /// Fixed hardware address.
    pub mac: Option<String>,
    /// Name servers.
    pub dns: Vec<String>,
    /// Search domains.
    pub dns_search: Vec<String>,
    /// Resolver options.
    pub dns_options: Vec<String>,
    /// `NAME:IP` lines for /etc/hosts.
    pub add_hosts: Vec<String>,
    /// `[IP:][HOST:]CONTAINER[/PROTOCOL]`, published ports.
    pub publish: Vec<String>,

    /// Variables for the command; `None` takes the caller's value, if there is one.
    pub env: Vec<(String, Option<String>)>,
    /// Give the command all variables of the caller.
    pub env_host: bool,
    /// Working directory in the container.
    pub workdir: Option<String>,
    /// `USER[:GROUP]`, names or numbers, resolved in the container.
    pub user: Option<String>,
    /// Supplementary groups beside those of the user.
    pub groups: Vec<String>,
    /// Host name in the container.
    pub hostname: Option<String>,
    /// NIS domain name in the container.
    pub domainname: Option<String>,
    /// `NAME=SOFT[:HARD]`, resource limits.
    pub ulimits: Vec<String>,
    /// Kernel parameters of the container's namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// File mode creation mask in octal; default: the caller's on the host's tree, `0022` on another root.
    pub umask: Option<String>,
    /// -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// Capabilities beyond the default set.
    pub cap_add: Vec<String>,
    /// Capabilities to take from the default set.
    pub cap_drop: Vec<String>,
    /// Let set-user-ID programs and file capabilities give more rights (`no_new_privs` off).
    pub allow_new_privileges: bool,
    /// Run a small init as PID 1 that reaps orphans and forwards signals.
    pub init: bool,
    /// The container stays until it is ended: without a command an init of ours is its first process.
    pub stays: bool,
    /// Give the command a terminal of its own.
    pub tty: Option<TerminalSize>,
    /// Kill the container after this many milliseconds.
    pub timeout_ms: Option<u64>,
    /// Numbers under which the passed file descriptors appear in the command, in the order they are passed, after 0, 1, 2.
    pub preserve_fds: Vec<i32>,
}

impl Spec {
    /// Does the container work on the host's own tree?
    #[must_use]
    pub fn is_on_host_tree(&self) -> bool {
        self.image.is_none() && self.rootfs.as_deref().is_none_or(|rootfs| rootfs == "host")
    }
}
