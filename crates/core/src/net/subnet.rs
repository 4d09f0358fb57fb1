//! Chooses subnets that collide with nothing the host already routes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use serde::{Deserialize, Serialize};

use crate::net::transport::Netlink;
use nsrs_base::error::{At, Code, Error, Result};

/// The first 10.x/16 that is tried: away from what clouds (10.0), podman (10.88) and Kubernetes (10.96, 10.244) take.
const FIRST_TEN: u8 = 118;

/// A network: an address with its host bits cleared, and the count of the bits that are fixed.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prefix {
    /// The network's first address.
    pub address: IpAddr,
    /// The count of fixed bits: 0 to 32, or 0 to 128.
    pub length: u8,
}

impl Prefix {
    /// The network of `length` bits that holds `address`; a length beyond the family's is cut to it.
    #[must_use]
    pub fn new(address: IpAddr, length: u8) -> Prefix {
        match address {
            IpAddr::V4(address) => {
                let length = length.min(32);
                let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                Prefix { address: Ipv4Addr::from_bits(address.to_bits() & mask).into(), length }
            }
            IpAddr::V6(address) => {
                let length = length.min(128);
                let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
                Prefix { address: Ipv6Addr::from_bits(address.to_bits() & mask).into(), length }
            }
        }
    }

    /// Whether `address` lies in this network.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && Prefix::new(address, self.length) == *self
    }

    /// Whether the two networks share an address.
    #[must_use]
    pub fn overlaps(&self, other: &Prefix) -> bool {
        let (wide, narrow) = if self.length <= other.length { (self, other) } else { (other, self) };
        wide.contains(narrow.address)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A free private IPv4 network: a /16 of 10/8, else of 172.16/12, else a /24 of 192.168/16.
///
/// # Errors
/// Every candidate overlaps one of `taken`.
pub fn choose_v4(taken: &[Prefix]) -> Result<Prefix> {
    let ten = (0..=255u8).map(|n| (Ipv4Addr::new(10, FIRST_TEN.wrapping_add(n), 0, 0), 16));
    let one_seven_two = (16..32).map(|n| (Ipv4Addr::new(172, n, 0, 0), 16));
    let one_nine_two = (0..=255).map(|n| (Ipv4Addr::new(192, 168, n, 0), 24));
    ten.chain(one_seven_two)
        .chain(one_nine_two)
        .map(|(address, length)| Prefix::new(address.into(), length))
        .find(|candidate| taken.iter().all(|prefix| !prefix.overlaps(candidate)))
        .ok_or_else(|| {
            Error::new(Code::SetupFailed, "choose a subnet for containers", "the host routes every private IPv4 subnet")
                .hint("use --network host or none, or remove a route: one subnet of 10/8, 172.16/12 or 192.168/16 must be free")
        })
}

/// A free unique local IPv6 /64 (RFC 4193): `fd`, a global id of 40 random bits, subnet 0. `random` gives those bits.
///
/// # Errors
/// Sixteen ids in turn overlapped one of `taken`: then the host routes all of fd00::/8.
pub fn choose_v6(taken: &[Prefix], mut random: impl FnMut() -> [u8; 5]) -> Result<Prefix> {
    let candidate = |[a, b, c, d, e]: [u8; 5]| {
        let octets = [0xfd, a, b, c, d, e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        Prefix::new(Ipv6Addr::from(octets).into(), 64)
    };
    std::iter::repeat_with(|| candidate(random()))
        .take(16)
        .find(|candidate| taken.iter().all(|prefix| !prefix.overlaps(candidate)))
        .ok_or_else(|| {
            Error::new(Code::SetupFailed, "choose an IPv6 subnet for containers", "the host routes all of fd00::/8")
        })
}

/// Random bits of the kernel, for [`choose_v6`] and names.
///
/// # Errors
/// getrandom(2) refused.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).at("get random bytes", "")?;
    Ok(bytes)
}

/// All networks that this network namespace routes or has an address in, and the name servers of `resolv_conf`
/// (which may be reached by the default route alone, and must stay reachable).
///
/// Default routes are left out: they overlap everything.
///
/// # Errors
/// The kernel refused a dump.
pub fn taken(netlink: &mut Netlink, resolv_conf: &str) -> Result<Vec<Prefix>> {
    let addresses = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let mut taken: Vec<Prefix> = netlink
        .dump(&addresses, "list the addresses of the host")?
        .iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewAddress(address) => address_prefix(address),
            _ => None,
        })
        .collect();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        let routes = netlink.dump(&RouteNetlinkMessage::GetRoute(request), "list the routes of the host")?;
        taken.extend(routes.iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewRoute(route) => route_prefix(route),
            _ => None,
        }));
    }
    taken.extend(crate::net::names::name_servers(resolv_conf).map(|server| Prefix::new(server, 128)));
    Ok(taken)
}

fn address_prefix(message: &AddressMessage) -> Option<Prefix> {
    message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(Prefix::new(*address, message.header.prefix_len)),
        _ => None,
    })
}

/// The network that a route of a table other than `local` leads to; `None` for a default route.
fn route_prefix(message: &RouteMessage) -> Option<Prefix> {
    if message.header.destination_prefix_length == 0 || message.header.table == libc::RT_TABLE_LOCAL {
        return None;
    }
    message.attributes.iter().find_map(|attribute| {
        let address = match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => IpAddr::V4(*address),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => IpAddr::V6(*address),
            _ => return None,
        };
        Some(Prefix::new(address, message.header.destination_prefix_length))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        let (address, length) = text.split_once('/').unwrap();
        Prefix::new(address.parse().unwrap(), length.parse().unwrap())
    }

    #[test]
    fn networks_overlap_when_one_holds_the_other() {
        assert!(prefix("10.0.0.0/8").overlaps(&prefix("10.118.0.0/16")));
        assert!(prefix("10.118.3.4/32").overlaps(&prefix("10.118.0.0/16")));
        assert!(!prefix("10.117.0.0/16").overlaps(&prefix("10.118.0.0/16")));
        assert!(prefix("0.0.0.0/0").overlaps(&prefix("10.118.0.0/16")));
        assert!(!prefix("::/0").overlaps(&prefix("10.118.0.0/16")));
    }

    #[test]
    fn walks_on_past_taken_subnets() {
        assert_eq!(choose_v4(&[]).unwrap(), prefix("10.118.0.0/16"));
        assert_eq!(choose_v4(&[prefix("10.118.255.53/32")]).unwrap(), prefix("10.119.0.0/16"));
        assert_eq!(choose_v4(&[prefix("10.0.0.0/8")]).unwrap(), prefix("172.16.0.0/16"));
        let private = [prefix("10.0.0.0/8"), prefix("172.16.0.0/12"), prefix("192.168.0.0/23")];
        assert_eq!(choose_v4(&private).unwrap(), prefix("192.168.2.0/24"));
    }

    #[test]
    fn says_so_when_nothing_is_free() {
        let error = choose_v4(&[prefix("0.0.0.0/1"), prefix("128.0.0.0/1")]).unwrap_err();
        assert!(error.hint.contains("--network host"), "{error}");
    }

    #[test]
    fn draws_another_global_id_when_one_is_taken() {
        let mut draws = [[1; 5], [2; 5]].into_iter();
        let chosen = choose_v6(&[prefix("fd01:101::/32")], || draws.next().unwrap()).unwrap();
        assert_eq!(chosen, prefix("fd02:202:202::/64"));
    }

    #[test]
    fn finds_the_networks_of_the_kernel() {
        crate::net::testing::in_new_netns("finds_the_networks_of_the_kernel", || {
            crate::net::testing::veth("eth9", &["10.118.7.1/24", "fd00:9::1/64"]);
            let taken = taken(&mut Netlink::route().unwrap(), "nameserver 10.119.0.53\n").unwrap();
            assert!(taken.contains(&prefix("10.118.7.0/24")) && taken.contains(&prefix("fd00:9::/64")), "{taken:?}");
            assert_eq!(choose_v4(&taken).unwrap(), prefix("10.120.0.0/16"));
        });
    }
}
