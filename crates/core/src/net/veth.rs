//! The cable between a container and the bridge: a veth pair, made whole by one message.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoBridgePort, InfoData, InfoPortData, InfoPortKind, InfoVeth};
use rtnetlink::{LinkUnspec, LinkVeth};

use crate::net::subnet::random;
use crate::net::transport::{Batch, Netlink};
use nsrs_base::error::{Error, Result};
use nsrs_base::options::MAC;

/// How many names are drawn before a clash counts as a failure; four random bytes rarely clash once.
const NAME_ATTEMPTS: usize = 4;

/// Whose network namespace the container's end goes to.
#[derive(Clone, Copy, Debug)]
pub enum Home<'a> {
    /// The network namespace that this descriptor names (a file of nsfs).
    Fd(BorrowedFd<'a>),
    /// The network namespace of the process with this number, as this process sees it.
    Pid(u32),
}

/// A cable to be made.
#[derive(Clone, Copy, Debug)]
pub struct Cable<'a> {
    /// The number of the bridge that the host's end becomes a port of.
    pub bridge: u32,
    /// Where the container's end goes.
    pub home: Home<'a>,
    /// The name of the container's end.
    pub inner_name: &'a str,
    /// The hardware address of the container's end; `None` lets the kernel draw a locally administered one.
    pub mac: Option<[u8; 6]>,
    /// The largest packet of both ends, in bytes.
    pub mtu: u32,
}

/// The hardware address that belongs to an IPv4 address: a neighbour that still remembers the last user of that address
/// then sends to the right place. Locally administered, unicast.
#[must_use]
pub fn mac_of(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x6e, a, b, c, d]
}

impl Cable<'_> {
    /// Makes the pair: the host's end up and a port of the bridge, the container's end named and in its namespace.
    /// Returns the name of the host's end. The pair goes when either end's network namespace goes.
    ///
    /// # Errors
    /// The kernel's refusal, for example `EEXIST` when the container has an interface of that name already.
    pub fn plug(&self, netlink: &mut Netlink) -> Result<String> {
        let mut attempts = NAME_ATTEMPTS;
        loop {
            let name = format!("ns{:08x}", u32::from_ne_bytes(random()?));
            let mut batch = Batch::new();
            let message = RouteNetlinkMessage::NewLink(self.message(&name));
            batch.route(message, NLM_F_CREATE | NLM_F_EXCL, "connect the container to the bridge by", &name);
            batch.route(hairpin(&name), 0, "set the port of the bridge", &name);
            attempts -= 1;
            match netlink.send(batch) {
                Ok(()) => return Ok(name),
                // The kernel doesn't say which end's name exists; a fresh name helps if it is ours.
                Err(error) if error.errno == Some(libc::EEXIST) && attempts > 0 => (),
                Err(error) => return Err(self.explain(error)),
            }
        }
    }

    fn message(&self, name: &str) -> netlink_packet_route::link::LinkMessage {
        let peer = LinkUnspec::new_with_name(self.inner_name).mtu(self.mtu);
        let peer = match self.home {
            Home::Fd(fd) => peer.setns_by_fd(fd.as_raw_fd()),
            Home::Pid(pid) => peer.setns_by_pid(pid),
        };
        let peer = match self.mac {
            Some(mac) => peer.address(mac.to_vec()),
            None => peer,
        };
        LinkVeth::new(name, self.inner_name)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build())))
            .mtu(self.mtu)
            .controller(self.bridge)
            .up()
            .build()
    }

    fn explain(&self, error: Error) -> Error {
        match error.errno {
            Some(libc::EEXIST) => {
                error.because(format!("the container has an interface {:?} already", self.inner_name))
            }
            Some(libc::EADDRNOTAVAIL) => error.hint(format!("{MAC} wants a unicast address: its first byte is even")),
            Some(libc::ESRCH) => error.because("the container's process is gone"),
            _ => error,
        }
    }
}

/// Lets the port send out what came in by it. Where the host loads br_netfilter, a container that uses its own published
/// port by the host's address depends on that. The kernel takes port settings for existing ports only.
fn hairpin(name: &str) -> RouteNetlinkMessage {
    let port = InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(true)]);
    let message = LinkUnspec::new_with_name(name).set_port_kind(InfoPortKind::Bridge).set_port_data(port);
    RouteNetlinkMessage::NewLink(message.build())
}

/// Removes a pair by its host's end, where waiting for the end of the namespace is too late.
///
/// # Errors
/// The kernel's refusal. A pair that is already gone is not an error.
pub fn unplug(netlink: &mut Netlink, name: &str) -> Result<()> {
    let mut batch = Batch::new();
    let message = RouteNetlinkMessage::DelLink(LinkUnspec::new_with_name(name).build());
    batch.route(message, 0, "remove the interface", name);
    netlink.send(batch).or_else(|error| if error.errno == Some(libc::ENODEV) { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::net::link::find;
    use crate::net::testing::{bridge, enter, in_new_netns, new_netns};

    #[test]
    fn one_message_makes_the_pair_in_both_namespaces() {
        in_new_netns(|| {
            let mut netlink = Netlink::route().unwrap();
            let bridge = bridge(&mut netlink, "br0");
            let inner = new_netns();
            let mac = mac_of(Ipv4Addr::new(10, 118, 0, 2));
            let home = Home::Fd(inner.as_fd());
            let cable = Cable { bridge, home, inner_name: "eth0", mac: Some(mac), mtu: 1400 };
            let name = cable.plug(&mut netlink).unwrap();
            assert_eq!(find(&mut netlink, &name).unwrap().unwrap().mtu, 1400);
            let seen = std::fs::read_to_string(format!("/proc/thread-self/net/dev_snmp6/{name}")).unwrap();
            assert!(seen.contains("ifIndex"), "{seen}");

            enter(&inner, || {
                let eth0 = find(&mut Netlink::route().unwrap(), "eth0").unwrap().unwrap();
                assert_eq!(eth0.mtu, 1400);
            });
            let error = cable.plug(&mut netlink).unwrap_err();
            assert!(error.reason.contains("has an interface \"eth0\" already"), "{error}");

            unplug(&mut netlink, &name).unwrap();
            unplug(&mut netlink, &name).unwrap();
            enter(&inner, || assert_eq!(find(&mut Netlink::route().unwrap(), "eth0").unwrap(), None));
        });
    }

    #[test]
    fn a_multicast_hardware_address_is_explained() {
        in_new_netns(|| {
            let mut netlink = Netlink::route().unwrap();
            let bridge = bridge(&mut netlink, "br0");
            let inner = new_netns();
            let home = Home::Fd(inner.as_fd());
            let cable = Cable { bridge, home, inner_name: "eth0", mac: Some([1; 6]), mtu: 1500 };
            assert!(cable.plug(&mut netlink).unwrap_err().hint.contains("unicast"));
        });
    }
}
