//! Questions about links, and the messages that more than one file sends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use rtnetlink::{AddressMessageBuilder, LinkUnspec, RouteMessageBuilder};

use crate::net::transport::{Batch, Netlink};
use nsrs_base::error::{Error, Result};

/// The MTU of Ethernet, and of a new link, in bytes.
pub const ETHERNET_MTU: u32 = 1500;

/// The longest interface name, without the zero byte: `IFNAMSIZ - 1`.
pub const NAME_MAX: usize = 15;

/// What is asked about a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number in this network namespace.
    pub index: u32,
    /// Its name, at most [`NAME_MAX`] bytes.
    pub name: String,
    /// Whether it is a bridge.
    pub is_bridge: bool,
    /// The largest packet it takes, in bytes.
    pub mtu: u32,
}

/// Checks a name as the kernel would, see `dev_valid_name` and ip-link(8), with a `%` refused, too: it is a pattern.
///
/// # Errors
/// `option` with the name and the reason.
pub fn check_name(what: &str, name: &str) -> Result<()> {
    let why = match name {
        "" | "." | ".." | "all" | "default" => "not a name of an interface",
        _ if name.len() > NAME_MAX => "longer than 15 bytes",
        _ if name.contains(|c: char| !c.is_ascii_graphic() || matches!(c, '/' | ':' | '%')) => {
            "a space, \"/\", \":\", \"%\" or a letter beyond ASCII is not allowed"
        }
        _ => return Ok(()),
    };
    Err(Error::invalid_value(what, name, why))
}

/// The link of this name, if there is one.
///
/// # Errors
/// The kernel's refusal.
pub fn find(netlink: &mut Netlink, name: &str) -> Result<Option<Link>> {
    let mut batch = Batch::new();
    ask(&mut batch, name);
    let mut found = None;
    match netlink.ask(batch, |message| found = link(&message)) {
        Err(error) if error.errno == Some(libc::ENODEV) => Ok(None),
        result => result.map(|()| found),
    }
}

/// Adds the question for the link of this name; the answer is a `NewLink` for [`link`].
pub fn ask(batch: &mut Batch, name: &str) {
    let question = RouteNetlinkMessage::GetLink(LinkUnspec::new_with_name(name).build());
    batch.route(question, 0, "look up the interface", name);
}

/// All links of this network namespace.
///
/// # Errors
/// The kernel's refusal.
pub fn list(netlink: &mut Netlink) -> Result<Vec<Link>> {
    let links = netlink.dump(&RouteNetlinkMessage::GetLink(LinkMessage::default()), "list the interfaces")?;
    Ok(links.iter().filter_map(link).collect())
}

/// What a `NewLink` message says.
#[must_use]
pub fn link(message: &RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let mut link = Link { index: message.header.index, name: String::new(), is_bridge: false, mtu: ETHERNET_MTU };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::LinkInfo(infos) => link.is_bridge = infos.contains(&LinkInfo::Kind(InfoKind::Bridge)),
            _ => (),
        }
    }
    Some(link)
}

/// The addresses of one link, with the lengths of their networks.
///
/// # Errors
/// The kernel's refusal.
pub fn addresses(netlink: &mut Netlink, index: u32) -> Result<Vec<(IpAddr, u8)>> {
    let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let all = netlink.dump(&request, "list the addresses of the host")?;
    let of_link = all.iter().filter_map(address).filter(|(of, ..)| *of == index);
    Ok(of_link.map(|(_, address, length)| (address, length)).collect())
}

/// The numbers of the links that have a global IPv6 address.
///
/// # Errors
/// The kernel's refusal.
pub fn with_global_v6(netlink: &mut Netlink) -> Result<Vec<u32>> {
    let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let all = netlink.dump(&request, "list the addresses of the host")?;
    let global = all.iter().filter_map(address).filter(|(_, address, _)| match address {
        IpAddr::V6(address) => !address.is_unicast_link_local() && !address.is_loopback(),
        IpAddr::V4(_) => false,
    });
    Ok(global.map(|(index, ..)| index).collect())
}

/// The number of the link, its address and the length of the network.
fn address(message: &RouteNetlinkMessage) -> Option<(u32, IpAddr, u8)> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    })?;
    Some((message.header.index, address, message.header.prefix_len))
}

/// Adds a request that gives the link an address, without a probe for duplicates: nsrs leases addresses itself.
pub fn add_address(batch: &mut Batch, index: u32, address: IpAddr, length: u8, subject: &str) {
    let mut message = match address {
        IpAddr::V4(address) => AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(address, length).build(),
        IpAddr::V6(address) => AddressMessageBuilder::<Ipv6Addr>::new().index(index).address(address, length).build(),
    };
    message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    let message = RouteNetlinkMessage::NewAddress(message);
    batch.route(message, NLM_F_CREATE | NLM_F_EXCL, "give the interface an address:", subject);
}

/// Adds a request for a default route by this gateway.
pub fn add_default_route(batch: &mut Batch, index: u32, gateway: IpAddr) {
    let route = match gateway {
        IpAddr::V4(gateway) => RouteMessageBuilder::<Ipv4Addr>::new().output_interface(index).gateway(gateway).build(),
        IpAddr::V6(gateway) => RouteMessageBuilder::<Ipv6Addr>::new().output_interface(index).gateway(gateway).build(),
    };
    let message = RouteNetlinkMessage::NewRoute(route);
    batch.route(message, NLM_F_CREATE | NLM_F_EXCL, "set the default route by", &gateway.to_string());
}

/// The MTU to take over: the smallest of the links that lead to the outside, at most [`ETHERNET_MTU`].
///
/// A container behind a tunnel must not send packets that the tunnel can't carry: not every network says so by ICMP.
///
/// # Errors
/// The kernel's refusal.
pub fn outside_mtu(netlink: &mut Netlink) -> Result<u32> {
    let request = RouteNetlinkMessage::GetRoute(RouteMessage::default());
    let routes = netlink.dump(&request, "list the routes of the host")?;
    let outside: Vec<u32> = routes.iter().filter_map(default_route_link).collect();
    if outside.is_empty() {
        return Ok(ETHERNET_MTU);
    }
    let links = list(netlink)?;
    let mtus = links.iter().filter(|link| outside.contains(&link.index)).map(|link| link.mtu);
    Ok(mtus.min().unwrap_or(ETHERNET_MTU).min(ETHERNET_MTU))
}

/// Does a default route lead out of here, in either address family?
///
/// # Errors
/// The kernel's refusal.
pub fn leads_outside(netlink: &mut Netlink) -> Result<bool> {
    let request = RouteNetlinkMessage::GetRoute(RouteMessage::default());
    let routes = netlink.dump(&request, "list the routes of the host")?;
    Ok(routes.iter().any(|route| default_route_link(route).is_some()))
}

fn default_route_link(message: &RouteNetlinkMessage) -> Option<u32> {
    let RouteNetlinkMessage::NewRoute(route) = message else { return None };
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) if route.header.destination_prefix_length == 0 => Some(*index),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_before_the_kernel_sees_them() {
        check_name("bridge", "nsrs0").unwrap();
        for bad in ["", ".", "..", "a/b", "a b", "nsrs%d", "sixteen-letters-", "all", "a:1", "ü"] {
            assert!(check_name("bridge", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn finds_links_and_takes_over_a_small_mtu() {
        crate::net::testing::in_new_netns(|| {
            let mut netlink = Netlink::route().unwrap();
            assert_eq!(find(&mut netlink, "absent").unwrap(), None);
            assert_eq!(outside_mtu(&mut netlink).unwrap(), ETHERNET_MTU);
            assert!(!leads_outside(&mut netlink).unwrap());

            crate::net::testing::veth("eth9", &["10.1.0.2/24"]);
            let link = find(&mut netlink, "eth9").unwrap().unwrap();
            assert_eq!((link.name.as_str(), link.is_bridge, link.mtu), ("eth9", false, 1500));
            assert!(addresses(&mut netlink, link.index).unwrap().contains(&("10.1.0.2".parse().unwrap(), 24)));

            let mut batch = Batch::new();
            let mtu = LinkUnspec::new_with_index(link.index).mtu(1400).build();
            batch.route(RouteNetlinkMessage::SetLink(mtu), 0, "set the MTU of", "eth9");
            add_default_route(&mut batch, link.index, "10.1.0.1".parse().unwrap());
            netlink.send(batch).unwrap();
            assert_eq!(outside_mtu(&mut netlink).unwrap(), 1400);
            assert!(leads_outside(&mut netlink).unwrap());
        });
    }
}
