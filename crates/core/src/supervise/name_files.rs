//! What a container's /etc/hosts, /etc/hostname and /etc/resolv.conf say.

use std::fs;
use std::net::IpAddr;

use crate::net::inside::InterfaceAddress;
use crate::net::kinds::NamespaceOwner;
use crate::net::names::{Dns, HostResolver, Hosts};
use crate::plan::sandbox::Sandbox;
use crate::steps::etc::Files;
use nsrs_base::error::Result;

/// The text of the container's files in /etc.
///
/// # Errors
/// A line that was asked for is not one.
pub fn text(sandbox: &Sandbox, addresses: &[InterfaceAddress]) -> Result<Files> {
    let names = &sandbox.names;
    let gateway = addresses.first().and_then(|address| address.gateway);
    let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.address).collect();
    let own_name = || nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let mut files = Files::default();
    if names.hosts {
        let hostname = sandbox.hostname.clone().unwrap_or_else(own_name);
        files.hosts =
            Some(Hosts { hostname: &hostname, addresses: &addresses, extra: &names.add_hosts, gateway }.text()?);
    }
    if names.resolv_conf {
        let resolv_conf = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let systemd = fs::read_to_string("/run/systemd/resolve/resolv.conf").ok();
        let shares_network = sandbox.network.kind().namespace() == NamespaceOwner::Caller;
        let host = HostResolver { resolv_conf: &resolv_conf, systemd: systemd.as_deref(), shares_network };
        files.resolv_conf =
            Some(Dns { servers: &names.dns, search: &names.dns_search, options: &names.dns_options }.text(&host)?);
    }
    if names.hostname {
        files.hostname = sandbox.hostname.as_ref().map(|name| format!("{name}\n"));
    }
    Ok(files)
}
