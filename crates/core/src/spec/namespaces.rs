//! Namespaces other than the network, and what the container's own ones hold.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Namespaces other than the network, and what the container's own ones hold. Each namespace is `private`, `host`, or the
/// one to join: a path (`/proc/PID/ns/net`, a bound file) or `ns:PID`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
#[serde(default, rename_all = "camelCase")]
pub struct NamespacesSpec {
    /// User namespace: `private`, `host`, a path, or `ns:PID`. Default `host` for root, `private` for everybody else.
    #[serde(rename = "userns")]
    pub user: Option<String>,
    /// User ids of a user namespace of its own, `INSIDE:OUTSIDE:COUNT`. Default: root keeps all ids. Everybody else
    /// keeps their id on the host's tree, and elsewhere becomes root, with their subordinate ids beside it.
    pub uid_maps: Vec<String>,
    /// Group ids, `INSIDE:OUTSIDE:COUNT`. Default: as the user ids.
    pub gid_maps: Vec<String>,
    /// PID namespace: `private`, `host`, a path, or `ns:PID`. Default `private`.
    pub pid: Option<String>,
    /// IPC namespace: `private`, `host`, a path, or `ns:PID`. Default `private`.
    pub ipc: Option<String>,
    /// UTS namespace: `private`, `host`, a path, or `ns:PID`. Default `private`.
    pub uts: Option<String>,
    /// Cgroup namespace: `private`, `host`, a path, or `ns:PID`. Default `private`.
    #[serde(rename = "cgroupns")]
    pub cgroup: Option<String>,
    /// Mount namespace: `private`, `host`, a path, or `ns:PID`. Default `private`.
    #[serde(rename = "mountns")]
    pub mount: Option<String>,
    /// Time namespace: `private`, `host`, a path, or `ns:PID`. Default `host`, or `private` with an offset.
    #[serde(rename = "timens")]
    pub time: Option<String>,
    /// Offset of the monotonic clock in seconds.
    #[serde(rename = "monotonic")]
    #[cfg_attr(test, ts(type = "number"))]
    pub monotonic_offset: Option<i64>,
    /// Offset of the boot-time clock in seconds.
    #[serde(rename = "boottime")]
    #[cfg_attr(test, ts(type = "number"))]
    pub boottime_offset: Option<i64>,
    /// Host name. Default: the caller's on the host's tree, else `nsrs`.
    pub hostname: Option<String>,
    /// NIS domain name. Default: the caller's.
    pub domainname: Option<String>,
    /// Kernel parameters of the container's own namespaces.
    #[cfg_attr(test, ts(type = "Record<string, string>"))]
    pub sysctls: BTreeMap<String, String>,
}
