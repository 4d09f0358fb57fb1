//! Chooses subnets that collide with nothing the host already routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::net::transport::Netlink;
use nsrs_base::error::{At, Code, Error, Result};
use nsrs_base::options::NETWORK;

/// The first 10.x/16 that is tried: away from what clouds (10.0), podman (10.88) and Kubernetes (10.96, 10.244) take.
const FIRST_TEN: u8 = 118;

/// Whether the two networks share an address.
#[must_use]
pub fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

/// The first address of a free private IPv4 network: of a /16 of 10/8, else of 172.16/12, else of a /24 of 192.168/16.
///
/// # Errors
/// Every candidate overlaps one of `taken`.
pub fn choose_v4(taken: &[IpNet]) -> Result<Ipv4Net> {
    let ten = (0..=255u8).map(|n| (Ipv4Addr::new(10, FIRST_TEN.wrapping_add(n), 0, 1), 16));
    let one_seven_two = (16..32).map(|n| (Ipv4Addr::new(172, n, 0, 1), 16));
    let one_nine_two = (0..=255).map(|n| (Ipv4Addr::new(192, 168, n, 1), 24));
    ten.chain(one_seven_two)
        .chain(one_nine_two)
        .map(|(address, length)| Ipv4Net::new_assert(address, length))
        .find(|candidate| taken.iter().all(|net| !overlap(net, &(*candidate).into())))
        .ok_or_else(|| {
            Error::new(Code::SetupFailed, "choose a subnet for containers", "the host routes every private IPv4 subnet")
                .hint(format!("use {NETWORK} host or none, or remove a route: one subnet of 10/8, 172.16/12 or 192.168/16 must be free"))
        })
}

/// The first address of a free unique local IPv6 /64 (RFC 4193): `fd`, a global id of 40 random bits, subnet 0. `random` gives those bits.
///
/// # Errors
/// Sixteen ids in turn overlapped one of `taken`: then the host routes all of fd00::/8.
pub fn choose_v6(taken: &[IpNet], mut random: impl FnMut() -> [u8; 5]) -> Result<Ipv6Net> {
    let candidate = |[a, b, c, d, e]: [u8; 5]| {
        let octets = [0xfd, a, b, c, d, e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        Ipv6Net::new_assert(Ipv6Addr::from(octets), 64)
    };
    std::iter::repeat_with(|| candidate(random()))
        .take(16)
        .find(|candidate| taken.iter().all(|net| !overlap(net, &(*candidate).into())))
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
pub fn taken(netlink: &mut Netlink, resolv_conf: &str) -> Result<Vec<IpNet>> {
    let addresses = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let mut taken: Vec<IpNet> = netlink
        .dump(&addresses, "list the addresses of the host")?
        .iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewAddress(address) => network_of_address(address),
            _ => None,
        })
        .collect();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        let routes = netlink.dump(&RouteNetlinkMessage::GetRoute(request), "list the routes of the host")?;
        taken.extend(routes.iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewRoute(route) => network_of_route(route),
            _ => None,
        }));
    }
    taken.extend(crate::net::names::name_servers(resolv_conf).map(IpNet::from));
    Ok(taken)
}

fn network_of_address(message: &AddressMessage) -> Option<IpNet> {
    message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => network(*address, message.header.prefix_len),
        _ => None,
    })
}

/// The network that a route of a table other than `local` leads to; `None` for a default route.
fn network_of_route(message: &RouteMessage) -> Option<IpNet> {
    if message.header.destination_prefix_length == 0 || message.header.table == libc::RT_TABLE_LOCAL {
        return None;
    }
    message.attributes.iter().find_map(|attribute| {
        let address = match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => IpAddr::V4(*address),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => IpAddr::V6(*address),
            _ => return None,
        };
        network(address, message.header.destination_prefix_length)
    })
}

fn network(address: IpAddr, length: u8) -> Option<IpNet> {
    IpNet::new(address, length).ok().map(|net| net.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nsrs_base::options::Front;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn chosen(taken: &[&str]) -> String {
        choose_v4(&taken.iter().map(|text| net(text)).collect::<Vec<_>>()).unwrap().to_string()
    }

    #[test]
    fn networks_overlap_when_one_holds_the_other() {
        assert!(overlap(&net("10.0.0.0/8"), &net("10.118.0.0/16")));
        assert!(overlap(&net("10.118.3.4/32"), &net("10.118.0.0/16")));
        assert!(!overlap(&net("10.117.0.0/16"), &net("10.118.0.0/16")));
        assert!(overlap(&net("0.0.0.0/0"), &net("10.118.0.0/16")));
        assert!(!overlap(&net("::/0"), &net("10.118.0.0/16")));
    }

    #[test]
    fn walks_on_past_taken_subnets() {
        assert_eq!(chosen(&[]), "10.118.0.1/16");
        assert_eq!(chosen(&["10.118.255.53/32"]), "10.119.0.1/16");
        assert_eq!(chosen(&["10.0.0.0/8"]), "172.16.0.1/16");
        assert_eq!(chosen(&["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/23"]), "192.168.2.1/24");
    }

    #[test]
    fn says_so_when_nothing_is_free() {
        let error = choose_v4(&[net("0.0.0.0/1"), net("128.0.0.0/1")]).unwrap_err();
        assert!(error.in_words_of(Front::Shell).hint.contains("--network host"));
    }

    #[test]
    fn draws_another_global_id_when_one_is_taken() {
        let mut draws = [[1; 5], [2; 5]].into_iter();
        let chosen = choose_v6(&[net("fd01:101::/32")], || draws.next().unwrap()).unwrap();
        assert_eq!(chosen.to_string(), "fd02:202:202::1/64");
    }

    #[test]
    fn finds_the_networks_of_the_kernel() {
        crate::net::testing::in_new_netns(|| {
            crate::net::testing::veth("eth9", &["10.118.7.1/24", "fd00:9::1/64"]);
            let taken = taken(&mut Netlink::route().unwrap(), "nameserver 10.119.0.53\n").unwrap();
            assert!(taken.contains(&net("10.118.7.0/24")) && taken.contains(&net("fd00:9::/64")), "{taken:?}");
            assert_eq!(choose_v4(&taken).unwrap().to_string(), "10.120.0.1/16");
        });
    }
}
