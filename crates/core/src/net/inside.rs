//! The network as seen from inside: runs in the new process, in the container's network namespace.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::LinkUnspec;
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::write;
use rustix::net::netdevice::name_to_index;

use crate::net::link::{add_address, add_default_route};
use crate::net::transport::{Batch, Netlink};
use nsrs_base::error::{At, Result};
use nsrs_base::options::NETWORK;

/// The loopback's number in every network namespace.
const LOOPBACK_INDEX: u32 = 1;

/// An address of an interface in the container, and the way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The address that the container's interface has.
    pub address: IpAddr,
    /// The count of fixed bits of its network.
    pub length: u8,
    /// The next hop of the default route; `None` for no default route.
    pub gateway: Option<IpAddr>,
}

/// What the container's interface gets.
#[derive(Clone, Copy, Debug)]
pub struct Inside<'a> {
    /// The name of the interface, which exists already.
    pub interface: &'a str,
    /// Its IPv4 address; without one it gets none.
    pub v4: Option<InterfaceAddress>,
    /// Its IPv6 address; without one IPv6 is switched off on the interface.
    pub v6: Option<InterfaceAddress>,
}

/// Switches the loopback on; the kernel gives it 127.0.0.1 and ::1 then.
///
/// # Errors
/// The kernel's refusal.
pub fn loopback_up() -> Result<()> {
    let mut batch = Batch::new();
    up(&mut batch, LOOPBACK_INDEX, "lo");
    Netlink::route()?.send(batch).map_err(|error| match error.errno {
        Some(libc::EPERM) => error.hint(format!(
            "it takes CAP_NET_ADMIN, which root lacks here: start the outer container with --cap-add NET_ADMIN, or use \
             {NETWORK} host",
        )),
        _ => error,
    })
}

/// Switches loopback and interface on and gives the interface its addresses and default routes, in one batch.
///
/// `proc` is the root of a procfs that belongs to this network namespace and that no file of the container covers: the
/// settings below `sys/net` are written through it, so that no path of the container's tree is resolved.
///
/// # Errors
/// The kernel's refusal of one of the steps.
pub fn configure(inside: &Inside, proc: BorrowedFd) -> Result<()> {
    let mut netlink = Netlink::route()?;
    let index = name_to_index(netlink.as_fd(), inside.interface).at("look up the interface", inside.interface)?;
    quiet_ipv6(inside, proc)?;

    let mut batch = Batch::new();
    up(&mut batch, LOOPBACK_INDEX, "lo");
    up(&mut batch, index, inside.interface);
    let addresses = [inside.v4, inside.v6];
    for InterfaceAddress { address, length, .. } in addresses.iter().flatten() {
        add_address(&mut batch, index, *address, *length, &format!("{address}/{length}"));
    }
    // Routes come after all addresses: a gateway must be reachable when its route is made.
    for gateway in addresses.iter().flatten().filter_map(|address| address.gateway) {
        add_default_route(&mut batch, index, gateway);
    }
    netlink.send(batch)
}

fn up(batch: &mut Batch, index: u32, name: &str) {
    let message = LinkUnspec::new_with_index(index).up().build();
    batch.route(RouteNetlinkMessage::SetLink(message), 0, "switch on the interface", name);
}

/// Before the interface is on: no IPv6 without an address of ours (a neighbour could give it one, CVE-2020-10749), and
/// with one no router advertisements, and no second of waiting for duplicates of the link-local address.
fn quiet_ipv6(inside: &Inside, proc: BorrowedFd) -> Result<()> {
    let settings: &[(&str, &str)] = match inside.v6 {
        None => &[("disable_ipv6", "1")],
        Some(_) => &[("accept_ra", "0"), ("accept_dad", "0"), ("disable_ipv6", "0")],
    };
    for (setting, value) in settings {
        let path = format!("sys/net/ipv6/conf/{}/{setting}", inside.interface);
        match openat(proc, &path, OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty()) {
            // A kernel without IPv6 has nothing to switch off.
            Err(rustix::io::Errno::NOENT) if inside.v6.is_none() => (),
            file => drop(write(&file.at("open the setting", &path)?, value.as_bytes()).at("write the setting", &path)?),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{File, read_to_string};

    use super::*;
    use crate::net::link::{addresses, find};
    use crate::net::testing::{in_new_netns, veth};

    fn setting(name: &str) -> String {
        read_to_string(format!("/proc/sys/net/ipv6/conf/eth0/{name}")).unwrap().trim().to_owned()
    }

    #[test]
    fn loopback_answers_after_one_message() {
        in_new_netns(|| {
            loopback_up().unwrap();
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        });
    }

    #[test]
    fn configures_both_families() {
        in_new_netns(|| {
            veth("eth0", &[]);
            let address = |address: &str, length, gateway: &str| {
                Some(InterfaceAddress {
                    address: address.parse().unwrap(),
                    length,
                    gateway: Some(gateway.parse().unwrap()),
                })
            };
            let (v4, v6) = (address("10.118.0.2", 16, "10.118.0.1"), address("fd01::2", 64, "fd01::1"));
            let proc = File::open("/proc").unwrap();
            configure(&Inside { interface: "eth0", v4, v6 }, proc.as_fd()).unwrap();
            let mut netlink = Netlink::route().unwrap();
            let index = find(&mut netlink, "eth0").unwrap().unwrap().index;
            let all = addresses(&mut netlink, index).unwrap();
            for address in [v4, v6].into_iter().flatten() {
                assert!(all.contains(&(address.address, address.length)), "{all:?}");
            }
            assert_eq!((setting("accept_ra").as_str(), setting("disable_ipv6").as_str()), ("0", "0"));
            let routes = read_to_string("/proc/thread-self/net/route").unwrap();
            assert!(routes.contains("eth0\t00000000\t0100760A"), "{routes}");
        });
    }

    #[test]
    fn without_an_ipv6_address_there_is_no_ipv6() {
        in_new_netns(|| {
            veth("eth0", &[]);
            let v4 = Some(InterfaceAddress { address: "10.118.0.2".parse().unwrap(), length: 16, gateway: None });
            configure(&Inside { interface: "eth0", v4, v6: None }, File::open("/proc").unwrap().as_fd()).unwrap();
            assert_eq!(setting("disable_ipv6"), "1");
        });
    }

    #[test]
    fn names_the_step_that_failed() {
        in_new_netns(|| {
            let inside = Inside { interface: "eth7", v4: None, v6: None };
            let error = configure(&inside, File::open("/proc").unwrap().as_fd()).unwrap_err();
            assert_eq!(error.to_string(), "look up the interface eth7: no such device (ENODEV)");
        });
    }
}
