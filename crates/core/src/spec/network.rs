//! The network, and how names are resolved.

use serde::Deserialize;

/// The network, and how names are resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
#[serde(default, rename_all = "camelCase")]
pub struct NetworkSpec {
    /// The network: `none`, `host`, `bridge`, `pasta`, or `ns:NAME|PATH|PID`. Default `bridge` for root, else `pasta` if
    /// it is installed, else `none`.
    #[serde(rename = "network")]
    pub kind: Option<String>,
    /// IPv4 address on the bridge.
    pub ip: Option<String>,
    /// IPv6 address on the bridge.
    pub ip6: Option<String>,
    /// Hardware (MAC) address on the bridge. Default: one made from the IPv4 address.
    pub mac: Option<String>,
    /// Published ports, `[IP:][HOST:]CONTAINER[/udp]`; without `HOST` on a free port.
    pub publish: Vec<String>,
    /// Addresses of name servers. Default: those of the host that the container can reach.
    pub dns: Vec<String>,
    /// Search domains of the resolver.
    pub dns_search: Vec<String>,
    /// Options of the resolver, see resolv.conf(5). Default: the host's.
    pub dns_options: Vec<String>,
    /// Lines for /etc/hosts, `NAME:IP`; the address `host-gateway` is the host.
    pub add_hosts: Vec<String>,
}
