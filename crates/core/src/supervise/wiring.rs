//! The host's side of containers' networks: one bridge and one nftables table for all containers of a supervisor, and for
//! each container an address, a cable and ports.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use crate::net::bridge::{self, Bridge};
use crate::net::inside::Address;
use crate::net::lease::{self, Lease};
use crate::net::names::{Dns, HostResolver, Hosts};
use crate::net::nft::{self, Nat, Published};
use crate::net::ports::Reserved;
use crate::net::publish::Publish;
use crate::net::transport::Netlink;
use crate::net::veth::{Cable, Home, mac_of, unplug};
use crate::plan::network::{self, INTERFACE, Network};
use crate::plan::sandbox::Sandbox;
use crate::state::journal::NetworkObject;
use crate::steps::etc::Files;
use nsrs_base::error::{Error, Result};

/// What a container holds of the host's network. Dropping it gives address and ports back.
#[derive(Debug, Default)]
pub struct Wire {
    lease: Option<Lease>,
    ports: Vec<Reserved>,
    published: Vec<Published>,
    mac: Option<[u8; 6]>,
    /// The container's addresses, with their lengths and gateways.
    pub addresses: Vec<Address>,
    /// What was switched on on the host for it.
    pub notes: Vec<String>,
    /// What its files in /etc say.
    pub files: Files,
}

impl Wire {
    /// The published ports as reports show them.
    pub fn port_texts(&self) -> Vec<String> {
        self.ports.iter().map(|port| port.publish.to_string()).collect()
    }
}

/// What the containers of this supervisor share.
#[derive(Default)]
pub struct Wiring {
    shared: Option<Shared>,
}

struct Shared {
    netlink: Netlink,
    bridge: Bridge,
    nat: Nat,
}

impl Wiring {
    /// Takes what a container needs of the host's network, before it exists.
    ///
    /// # Errors
    /// No rights, no free address, a port in use.
    pub fn reserve(&mut self, sandbox: &Sandbox, state: &Path) -> Result<Wire> {
        let mut wire = Wire::default();
        if let Network::Bridge(wanted) = &sandbox.network {
            self.reserve_bridge(&mut wire, wanted, state)?;
        }
        wire.files = files(sandbox, &wire)?;
        Ok(wire)
    }

    fn reserve_bridge(&mut self, wire: &mut Wire, wanted: &network::Bridge, state: &Path) -> Result<()> {
        let shared = self.shared(&wanted.name, state)?;
        let lease = Lease::take(&shared.bridge, wanted.ip, wanted.ip6)?;
        let v4 = shared.bridge.v4;
        wire.addresses.push(Address {
            address: lease.v4.into(),
            length: v4.subnet.length,
            gateway: Some(v4.gateway.into()),
        });
        if let (Some(address), Some(v6)) = (lease.v6, shared.bridge.v6) {
            wire.addresses.push(Address {
                address: address.into(),
                length: v6.subnet.length,
                gateway: Some(v6.gateway.into()),
            });
        }
        wire.mac = Some(wanted.mac.unwrap_or_else(|| mac_of(lease.v4)));
        wire.notes = shared.bridge.changed.clone();
        wire.lease = Some(lease);
        wire.ports = wanted.publish.iter().map(|publish| Reserved::take(*publish)).collect::<Result<_>>()?;
        for port in &wire.ports {
            wire.published.extend(targets(&port.publish, port.port, &wire.addresses));
        }
        Ok(())
    }

    /// The bridge and the table, made with the first container that needs them.
    fn shared(&mut self, name: &str, state: &Path) -> Result<&mut Shared> {
        if self.shared.is_none() {
            let bridge = Bridge::ensure(state, name)?;
            let nat = Nat::open(&bridge.name, &bridge.subnets())?;
            self.shared = Some(Shared { netlink: Netlink::route()?, bridge, nat });
        }
        self.shared.as_mut().ok_or_else(|| Error::os("make the bridge", name, libc::ENODEV))
    }

    /// Connects a container that exists by now.
    ///
    /// # Errors
    /// The kernel refuses a link or a rule.
    pub fn connect(&mut self, wire: &Wire, pid: i32, state: &Path) -> Result<()> {
        if wire.lease.is_none() {
            return Ok(());
        }
        let Some(shared) = &mut self.shared else { return Ok(()) };
        if let Err(error) = shared.plug(wire, pid) {
            // Somebody may have removed the bridge under us: make it once more, with its old addresses.
            if !shared.bridge_is_gone()? {
                return Err(error);
            }
            let name = shared.bridge.name.clone();
            shared.bridge = Bridge::ensure(state, &name)?;
            shared.plug(wire, pid)?;
        }
        if wire.published.is_empty() { Ok(()) } else { shared.nat.publish(&wire.published) }
    }

    /// Takes a container's rules back; its interface goes with its network namespace, the rest with the [`Wire`].
    ///
    /// # Errors
    /// The kernel refuses the removal.
    pub fn disconnect(&mut self, wire: &Wire) -> Result<()> {
        match &mut self.shared {
            Some(shared) if !wire.published.is_empty() => shared.nat.unpublish(&wire.published),
            _ => Ok(()),
        }
    }

    /// The bridge of containers that were connected before is still there.
    pub fn bridge_stands(&mut self) -> bool {
        self.shared.as_mut().is_some_and(|shared| shared.bridge_is_gone().is_ok_and(|gone| !gone))
    }

    /// There is something to [`Wiring::release`].
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.shared.is_some()
    }

    /// Gives up the table and the bridge, which is removed if nobody else uses it.
    ///
    /// # Errors
    /// The kernel refuses the removal.
    pub fn release(&mut self) -> Result<()> {
        match self.shared.take() {
            Some(Shared { bridge, nat, netlink }) => {
                drop((nat, netlink));
                bridge.release()
            }
            None => Ok(()),
        }
    }
}

impl Shared {
    fn plug(&mut self, wire: &Wire, pid: i32) -> Result<String> {
        let cable = Cable {
            bridge: self.bridge.index,
            home: Home::Pid(pid as u32),
            inner_name: INTERFACE,
            mac: wire.mac,
            mtu: self.bridge.mtu,
        };
        cable.plug(&mut self.netlink)
    }

    fn bridge_is_gone(&mut self) -> Result<bool> {
        let found = crate::net::link::find(&mut self.netlink, &self.bridge.name)?;
        Ok(found.is_none_or(|link| link.index != self.bridge.index))
    }
}

/// Where a published port leads: one rule for each family that the host's address allows.
fn targets(publish: &Publish, host_port: u16, addresses: &[Address]) -> Vec<Published> {
    let family = |address: &&Address| publish.host_ip.is_none_or(|ip| ip.is_ipv4() == address.address.is_ipv4());
    addresses
        .iter()
        .filter(family)
        .map(|address| Published {
            host_ip: publish.host_ip,
            host_port,
            target: address.address,
            target_port: publish.container_port,
            proto: publish.proto,
        })
        .collect()
}

/// The text of the container's files in /etc.
///
/// # Errors
/// A line that was asked for is none.
pub fn files(sandbox: &Sandbox, wire: &Wire) -> Result<Files> {
    let names = &sandbox.names;
    let addresses: Vec<IpAddr> = wire.addresses.iter().map(|address| address.address).collect();
    let gateway = wire.addresses.first().and_then(|address| address.gateway);
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
        let shares_network = matches!(sandbox.network, Network::Host);
        let host = HostResolver { resolv_conf: &resolv_conf, systemd: systemd.as_deref(), shares_network };
        files.resolv_conf =
            Some(Dns { servers: &names.dns, search: &names.dns_search, options: &names.dns_options }.text(&host)?);
    }
    if names.hostname {
        files.hostname = sandbox.hostname.as_ref().map(|name| format!("{name}\n"));
    }
    Ok(files)
}

/// What is wrong with the addresses that are wanted of a bridge that stands already. Of one that doesn't, the first start tells.
#[must_use]
pub fn check(sandbox: &Sandbox, state: &Path) -> Vec<Error> {
    let Network::Bridge(wanted) = &sandbox.network else { return Vec::new() };
    if wanted.ip.is_none() && wanted.ip6.is_none() {
        return Vec::new();
    }
    match bridge::standing(state, &wanted.name) {
        Ok(Some(subnets)) => lease::check(subnets, wanted.ip, wanted.ip6),
        // What else is wrong with the bridge, its use tells.
        _ => Vec::new(),
    }
}

/// Where the state of networks is kept.
pub fn collect(state: &Path) -> Result<Vec<String>> {
    bridge::collect(state)
}

/// Removes what a dead supervisor left in this network namespace.
///
/// # Errors
/// The kernel refuses the removal.
pub fn remove(object: &NetworkObject) -> Result<()> {
    match object {
        NetworkObject::Link(name) => unplug(&mut Netlink::route()?, name),
        NetworkObject::Table(name) => nft::remove(name),
    }
}
