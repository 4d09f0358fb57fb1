//! An interface on the bridge that containers share, with an address of its subnet, published ports, and a way out by masquerade.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{
    Attachment, ContainerSide, INTERFACE, Network, NetworkKind, NetworkRequest, ProcRoot, Rows, SharedNetwork,
    explain_ports,
};
use crate::net::bridge::{self, Bridge};
use crate::net::inside::{Inside, InterfaceAddress, configure};
use crate::net::lease::{self, Lease};
use crate::net::link;
use crate::net::nft::{Nat, Published};
use crate::net::ports::Reserved;
use crate::net::publish::Publish;
use crate::net::transport::Netlink;
use crate::net::veth::{Cable, Home, mac_of};
use nsrs_base::error::{Code, Error, Result};
use nsrs_base::host::Host;
use nsrs_base::options::{IP, IP6, MAC, NETWORK, PUBLISH};

/// The bridge that containers share.
pub const BRIDGE: &str = "nsrs0";

/// A place on the bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BridgeNetwork {
    /// Name of the bridge, [`BRIDGE`].
    pub name: String,
    /// The wanted IPv4 address; `None` takes a free one.
    pub ip: Option<Ipv4Addr>,
    /// The wanted IPv6 address; `None` takes the one that belongs to the IPv4 address.
    pub ip6: Option<Ipv6Addr>,
    /// The wanted hardware address; `None` takes the one that belongs to the IPv4 address.
    pub mac: Option<[u8; 6]>,
    /// Ports of the host that lead to the container.
    pub publish: Vec<Publish>,
}

pub fn validate(request: &NetworkRequest<'_>, host: &Host) -> (Network, Vec<Error>) {
    let mut problems = Vec::new();
    if !(host.privileged && host.net_admin) {
        let why = "making interfaces of the host takes root (CAP_NET_ADMIN)";
        problems.push(
            Error::new(Code::Unsupported, format!("use {NETWORK} bridge"), why)
                .about(NETWORK)
                .hint(format!("run it as root, or use {NETWORK} pasta (Debian: apt-get install passt) or none")),
        );
    }
    let mut keep = |error: Error| problems.push(error);
    let ip = request.ip.and_then(|text| match text.parse() {
        Ok(IpAddr::V4(ip)) => Some(ip),
        Ok(other) => {
            keep(Error::invalid(IP, other, "that is an IPv6 address").hint(format!("use {IP6}")));
            None
        }
        Err(_) => {
            keep(Error::invalid(IP, text, "not an IP address"));
            None
        }
    });
    let ip6 = request.ip6.and_then(|text| match text.parse() {
        Ok(IpAddr::V6(ip)) => Some(ip),
        Ok(other) => {
            keep(Error::invalid(IP6, other, "that is an IPv4 address").hint(format!("use {IP}")));
            None
        }
        Err(_) => {
            keep(Error::invalid(IP6, text, "not an IP address"));
            None
        }
    });
    let mac = request.mac.and_then(|text| parse_mac(text).map_err(keep).ok());
    let publish = request.ports(&mut problems);
    if let Some(port) = publish.iter().find(|port| port.host_ip == Some(Ipv6Addr::LOCALHOST.into())) {
        problems.push(
            Error::invalid(PUBLISH, port, "the kernel passes nothing between ::1 and a bridge")
                .hint("publish on 127.0.0.1"),
        );
    }
    (Network::Bridge(BridgeNetwork { name: BRIDGE.into(), ip, ip6, mac, publish }), problems)
}

/// Reads a hardware address, `02:00:00:00:00:01`.
fn parse_mac(text: &str) -> Result<[u8; 6]> {
    let bad = |why: &str| Error::invalid(MAC, text, why);
    let parts: Vec<&str> = text.split([':', '-']).collect();
    let bytes: Vec<u8> = parts
        .iter()
        .filter(|part| part.len() == 2)
        .filter_map(|part| u8::from_str_radix(part, 16).ok().filter(|_| !part.starts_with('+')))
        .collect();
    let mac: [u8; 6] = bytes
        .try_into()
        .ok()
        .filter(|_| parts.len() == 6)
        .ok_or_else(|| bad("give six bytes such as 02:42:ac:11:00:02"))?;
    if mac[0] & 1 != 0 {
        return Err(bad("this is a group address; the lowest bit of the first byte must be 0"));
    }
    if mac == [0; 6] {
        return Err(bad("all zeroes is not an address"));
    }
    Ok(mac)
}

/// A container's place on the bridge.
#[derive(Debug)]
pub struct BridgePort {
    _lease: Lease,
    _ports: Vec<Reserved>,
    published: Vec<Published>,
    mac: [u8; 6],
}

/// The bridge and the nftables table of a supervisor.
#[derive(Debug)]
pub struct SharedBridge {
    netlink: Netlink,
    bridge: Bridge,
    nat: Nat,
}

impl NetworkKind for BridgeNetwork {
    fn name(&self) -> &'static str {
        "bridge"
    }

    fn gives_addresses(&self) -> bool {
        true
    }

    fn publishes(&self) -> bool {
        true
    }

    fn explain(&self, rows: &mut dyn Rows) -> fmt::Result {
        let BridgeNetwork { name, ip, ip6, mac, publish } = self;
        let ip = ip.map_or("a free IPv4 address".to_owned(), |ip| ip.to_string());
        let ip6 = ip6.map_or("its IPv6 counterpart".to_owned(), |ip| ip.to_string());
        rows.prose("network", &format!("bridge {name}, as {INTERFACE} with {ip} and {ip6}"))?;
        if let Some(mac) = mac {
            rows.list("  mac", &[mac.map(|byte| format!("{byte:02x}")).join(":")])?;
        }
        rows.prose("  on the host", "forwarding is switched on where it is off; masquerade by nftables")?;
        explain_ports(rows, publish)
    }

    /// What is wrong with the addresses that are wanted of a bridge that stands already. Of one that doesn't, and of what else
    /// is wrong with the bridge, the first start reports.
    fn check(&self, state: &Path) -> Vec<Error> {
        if !self.wants_address() {
            return Vec::new();
        }
        match bridge::standing(state, &self.name) {
            Ok(Some(addresses)) => lease::check(addresses, self.ip, self.ip6),
            _ => Vec::new(),
        }
    }

    fn can_be_prewarmed(&self) -> bool {
        self.publish.is_empty() && !self.wants_address() && self.mac.is_none()
    }

    fn still_stands(&self, shared: &mut SharedNetwork) -> bool {
        shared.bridge.as_mut().is_some_and(|shared| shared.is_gone().is_ok_and(|gone| !gone))
    }

    fn wants_address(&self) -> bool {
        self.ip.is_some() || self.ip6.is_some()
    }

    fn reserve(&self, shared: &mut SharedNetwork, state: &Path) -> Result<Attachment> {
        // Made with the first container that needs them.
        let shared = match &mut shared.bridge {
            Some(shared) => shared,
            none => none.insert(SharedBridge::open(&self.name, state)?),
        };
        let lease = Lease::take(&shared.bridge, self.ip, self.ip6)?;
        let v4 = shared.bridge.v4;
        let mut addresses = vec![InterfaceAddress {
            address: lease.v4.into(),
            length: v4.prefix_len(),
            gateway: Some(v4.addr().into()),
        }];
        if let (Some(address), Some(v6)) = (lease.v6, shared.bridge.v6) {
            let gateway = Some(v6.addr().into());
            addresses.push(InterfaceAddress { address: address.into(), length: v6.prefix_len(), gateway });
        }
        let ports: Vec<Reserved> = self.publish.iter().map(|port| Reserved::take(*port)).collect::<Result<_>>()?;
        let published = ports.iter().flat_map(|port| redirections(port, &addresses)).collect();
        let mac = self.mac.unwrap_or_else(|| mac_of(lease.v4));
        Ok(Attachment {
            addresses,
            ports: ports.iter().map(|port| port.publish.to_string()).collect(),
            notes: shared.bridge.changed.clone(),
            bridge: Some(BridgePort { _lease: lease, _ports: ports, published, mac }),
        })
    }

    fn up(&self, shared: &mut SharedNetwork, attachment: &Attachment, pid: i32, state: &Path) -> Result<bool> {
        let (Some(shared), Some(port)) = (&mut shared.bridge, &attachment.bridge) else { return Ok(false) };
        if let Err(error) = shared.plug(port, pid) {
            // Somebody may have removed the bridge under us: make it once more, with its old addresses.
            if !shared.is_gone()? {
                return Err(error);
            }
            shared.bridge = Bridge::ensure(state, &self.name)?;
            shared.plug(port, pid)?;
        }
        if !port.published.is_empty() {
            shared.nat.publish(&port.published)?;
        }
        Ok(true)
    }

    fn inside(&self, side: &dyn ContainerSide) -> Result<()> {
        side.wait()?;
        let of = |v4: bool| side.addresses().iter().find(|address| address.address.is_ipv4() == v4).copied();
        let inside = Inside { interface: INTERFACE, v4: of(true), v6: of(false) };
        match side.proc()? {
            ProcRoot::Mounted(proc) => configure(&inside, proc),
            ProcRoot::Opened(proc) => configure(&inside, std::os::fd::AsFd::as_fd(&proc)),
        }
    }

    fn down(&self, shared: &mut SharedNetwork, attachment: &Attachment) -> Result<()> {
        match (&mut shared.bridge, &attachment.bridge) {
            (Some(shared), Some(port)) if !port.published.is_empty() => shared.nat.unpublish(&port.published),
            _ => Ok(()),
        }
    }
}

impl SharedBridge {
    fn open(name: &str, state: &Path) -> Result<SharedBridge> {
        let bridge = Bridge::ensure(state, name)?;
        let nat = Nat::open(&bridge.name, &bridge.subnets())?;
        Ok(SharedBridge { netlink: Netlink::route()?, bridge, nat })
    }

    /// Gives up the table and the bridge, which is removed if nobody else uses it.
    pub fn release(self) -> Result<()> {
        let SharedBridge { netlink, bridge, nat } = self;
        drop((nat, netlink));
        bridge.release()
    }

    fn plug(&mut self, port: &BridgePort, pid: i32) -> Result<String> {
        let cable = Cable {
            bridge: self.bridge.index,
            home: Home::Pid(pid as u32),
            inner_name: INTERFACE,
            mac: Some(port.mac),
            mtu: self.bridge.mtu,
        };
        cable.plug(&mut self.netlink)
    }

    fn is_gone(&mut self) -> Result<bool> {
        let found = link::find(&mut self.netlink, &self.bridge.name)?;
        Ok(found.is_none_or(|link| link.index != self.bridge.index))
    }
}

/// Where a published port leads: one rule for each family that the host's address allows.
fn redirections(port: &Reserved, addresses: &[InterfaceAddress]) -> Vec<Published> {
    let Publish { host_ip, container_port, proto, .. } = port.publish;
    let family = |address: &&InterfaceAddress| host_ip.is_none_or(|ip| ip.is_ipv4() == address.address.is_ipv4());
    let redirection = |address: &InterfaceAddress| Published {
        host_ip,
        host_port: port.port,
        target: address.address,
        target_port: container_port,
        proto,
    };
    addresses.iter().filter(family).map(redirection).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses_have_six_bytes() {
        assert_eq!(parse_mac("02:42:ac:11:00:02").unwrap(), [2, 0x42, 0xac, 0x11, 0, 2]);
        for text in [
            "",
            "02:42:ac:11:00",
            "02:42:ac:11:00:02:03",
            "0g:00:00:00:00:00",
            "00:00:00:00:00:00",
            "+2:42:ac:11:00:02",
        ] {
            assert!(parse_mac(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_others_may_want_meanwhile_is_not_held_ahead() {
        let plain = BridgeNetwork::default();
        assert!(plain.can_be_prewarmed());
        let publish = crate::net::publish::parse("80:80").unwrap();
        for network in [
            BridgeNetwork { ip: Some(Ipv4Addr::LOCALHOST), ..plain.clone() },
            BridgeNetwork { ip6: Some(Ipv6Addr::LOCALHOST), ..plain.clone() },
            BridgeNetwork { mac: Some([2; 6]), ..plain.clone() },
            BridgeNetwork { publish, ..plain },
        ] {
            assert!(!network.can_be_prewarmed(), "{network:?}");
        }
    }
}
