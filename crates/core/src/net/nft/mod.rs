//! Masquerading and published ports, in an nftables table of our own.
//!
//! The table belongs to the netlink socket that made it (`NFT_TABLE_F_OWNER`, Linux 5.12): nobody else can change it, a
//! `nft flush ruleset` leaves it, and the kernel removes it when the socket closes, however its process ended. All rules
//! are static and look ports up in maps, so publishing a container's ports is one batch of map elements.

mod expr;
mod table;

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_bindings::nftables::{OpDelsetelemDo, OpNewsetelemDo};
use netlink_bindings::nftables::{PushSetelemListAttrs, PushSetelemListElemAttrs};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};

use crate::net::forward;
use crate::net::nft::table::{DELETE_ELEMENT, Family, NEW_ELEMENT, Transaction, inet, octets};
use crate::net::publish::Proto;
use crate::net::transport::{Batch, Netlink};
use nsrs_base::error::{Code, Error, Result};

/// One redirection: a port of the host to a port of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The host's address; all of the target's family for `None` or the unspecified one.
    pub host_ip: Option<IpAddr>,
    /// The port of the host that answers.
    pub host_port: u16,
    /// The container's address. A container with both families has one `Published` for each.
    pub target: IpAddr,
    /// The port of the container that the traffic is redirected to.
    pub target_port: u16,
    /// The transport protocol of both ports.
    pub proto: Proto,
}

impl Published {
    /// The host's address, where it is a particular one.
    fn particular(&self) -> Option<IpAddr> {
        self.host_ip.filter(|ip| !ip.is_unspecified())
    }

    /// Whether the port answers on 127.0.0.0/8.
    fn on_loopback(&self) -> bool {
        self.target.is_ipv4() && self.particular().is_none_or(|ip| ip.is_loopback())
    }

    fn map(&self) -> &'static [u8] {
        let family = Family::of(self.target);
        if self.particular().is_some() { family.host } else { family.any }
    }

    /// Each field is padded to a word.
    fn key(&self) -> Vec<u8> {
        let [high, low] = self.host_port.to_be_bytes();
        let mut key = self.particular().map(octets).unwrap_or_default();
        key.extend([self.proto.number(), 0, 0, 0, high, low, 0, 0]);
        key
    }

    fn value(&self) -> Vec<u8> {
        let [high, low] = self.target_port.to_be_bytes();
        let mut value = octets(self.target);
        value.extend([high, low, 0, 0]);
        value
    }

    fn subject(&self) -> String {
        match self.particular() {
            Some(IpAddr::V6(ip)) => format!("[{ip}]:{}/{}", self.host_port, self.proto),
            Some(ip) => format!("{ip}:{}/{}", self.host_port, self.proto),
            None => format!("{}/{}", self.host_port, self.proto),
        }
    }
}

/// The redirections of one supervisor; dropping it removes them all.
#[derive(Debug)]
pub struct Nat {
    netlink: Netlink,
    table: String,
    bridge: String,
    routes_loopback: bool,
}

impl Nat {
    /// Makes the table for the bridge of this name and its subnets, in this thread's network namespace.
    ///
    /// # Errors
    /// The kernel's refusal: without nftables or `CAP_NET_ADMIN`, or with a second `Nat` of this process.
    pub fn open(bridge: &str, subnets: &[IpNet]) -> Result<Nat> {
        let table = format!("nsrs-{}", std::process::id());
        let mut netlink = Netlink::netfilter().map_err(explain)?;
        let mut transaction = Transaction::begin(table.as_bytes());
        transaction.whole_table(bridge, subnets);
        netlink.send(transaction.end()).map_err(explain)?;
        Ok(Nat { netlink, table, bridge: bridge.to_owned(), routes_loopback: false })
    }

    /// Redirects these ports, all or none. They must have been reserved, see [`crate::net::ports::Reserved`].
    ///
    /// # Errors
    /// The kernel's refusal; `InUse` when this supervisor publishes one of them already.
    pub fn publish(&mut self, ports: &[Published]) -> Result<()> {
        if let Some(port) =
            ports.iter().find(|port| port.host_ip.is_some_and(|ip| ip.is_ipv4() != port.target.is_ipv4()))
        {
            let why = format!("the container's address {} is of the other family", port.target);
            return Err(Error::new(Code::InvalidArgument, "publish", why).on(port.subject()));
        }
        // Only now that the table guards the loopback, and only if a port is published there.
        if !self.routes_loopback && ports.iter().any(Published::on_loopback) {
            forward::route_loopback(&self.bridge)?;
            self.routes_loopback = true;
        }
        let batch = self.elements(ports, |batch, port, table| {
            let flags = NLM_F_CREATE | NLM_F_EXCL;
            batch.raw(NEW_ELEMENT, flags, "publish", &port.subject(), |bytes| {
                let request = OpNewsetelemDo::encode_request(bytes, &inet());
                let key = element(request, table, port).nested_elem().nested_key().push_value(&port.key()).end_nested();
                key.nested_data().push_value(&port.value());
            });
        });
        self.netlink.send(batch).map_err(|error| match error.errno {
            Some(libc::EEXIST) => error.code(Code::InUse).because("another container publishes it"),
            _ => error,
        })
    }

    /// Ends the redirection of these ports, all or none. Connections that exist live on until their ends close them.
    ///
    /// # Errors
    /// The kernel's refusal, `ENOENT` for a port that isn't published.
    pub fn unpublish(&mut self, ports: &[Published]) -> Result<()> {
        let batch = self.elements(ports, |batch, port, table| {
            batch.raw(DELETE_ELEMENT, 0, "end the publication of", &port.subject(), |bytes| {
                let request = OpDelsetelemDo::encode_request(bytes, &inet());
                element(request, table, port).nested_elem().nested_key().push_value(&port.key());
            });
        });
        self.netlink.send(batch)
    }

    /// One request for each port: an error then names its port.
    fn elements(&self, ports: &[Published], add: impl Fn(&mut Batch, &Published, &[u8])) -> Batch {
        if ports.is_empty() {
            return Batch::new();
        }
        let mut transaction = Transaction::begin(self.table.as_bytes());
        ports.iter().for_each(|port| add(&mut transaction.batch, port, self.table.as_bytes()));
        transaction.end()
    }
}

/// Removes a table of the family inet that no socket owns, with all that is in it.
///
/// # Errors
/// The kernel's refusal. A table that is already gone is not an error.
pub fn remove(table: &str) -> Result<()> {
    let mut transaction = Transaction::begin(table.as_bytes());
    transaction.delete_table();
    let removed = Netlink::netfilter().and_then(|mut netlink| netlink.send(transaction.end()));
    removed.or_else(|error| if error.errno == Some(libc::ENOENT) { Ok(()) } else { Err(explain(error)) })
}

fn element<'b>(
    request: PushSetelemListAttrs<&'b mut Vec<u8>>,
    table: &[u8],
    port: &Published,
) -> PushSetelemListElemAttrs<PushSetelemListAttrs<&'b mut Vec<u8>>> {
    request.push_table_bytes(table).push_set_bytes(port.map()).nested_elements()
}

fn explain(error: Error) -> Error {
    match error.errno {
        Some(libc::EPERM | libc::EACCES) => error.hint("publishing and masquerading need root or CAP_NET_ADMIN"),
        Some(libc::EPROTONOSUPPORT | libc::EOPNOTSUPP | libc::ENOENT) => error
            .code(Code::Unsupported)
            .hint("the kernel needs nf_tables with nat, masq and fib for inet (Linux 5.12): try modprobe nf_tables"),
        Some(libc::EEXIST) => error.because("this process has such a table already"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::net::testing::in_new_netns;

    fn port(host_ip: Option<&str>, host_port: u16, target: &str, proto: Proto) -> Published {
        let host_ip = host_ip.map(|ip| ip.parse().unwrap());
        Published { host_ip, host_port, target: target.parse().unwrap(), target_port: 80, proto }
    }

    fn subnets() -> [IpNet; 2] {
        ["10.118.0.0/16".parse().unwrap(), "fd01::/64".parse().unwrap()]
    }

    /// What the reference tool reads of our table.
    fn listed() -> String {
        let output = Command::new("nft").args(["list", "ruleset"]).output().expect("nft(8), the oracle of this test");
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr)
    }

    #[test]
    fn the_reference_tool_reads_what_was_meant() {
        in_new_netns(|| {
            let mut nat = Nat::open("nsrs0", &subnets()).unwrap();
            let ports = [
                port(None, 8080, "10.118.0.2", Proto::Tcp),
                port(Some("127.0.0.1"), 8053, "10.118.0.2", Proto::Udp),
                port(None, 8080, "fd01::2", Proto::Tcp),
                port(Some("fd00::1"), 8081, "fd01::2", Proto::Tcp),
            ];
            nat.publish(&ports).unwrap();
            let text = listed();
            println!("{text}");
            for line in [
                "type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service",
                "elements = { tcp . 8080 : 10.118.0.2 . 80 }",
                "elements = { 127.0.0.1 . udp . 8053 : 10.118.0.2 . 80 }",
                "elements = { tcp . 8080 : fd01::2 . 80 }",
                "elements = { fd00::1 . tcp . 8081 : fd01::2 . 80 }",
                "type filter hook prerouting priority raw; policy accept;",
                "iifname != \"lo\" ip daddr 127.0.0.0/8 drop",
                "type nat hook prerouting priority dstnat; policy accept;",
                "type nat hook output priority -100; policy accept;",
                "fib daddr type local jump published",
                "dnat ip to ip daddr . meta l4proto . th dport map @host4",
                "dnat ip to meta l4proto . th dport map @any4",
                "dnat ip6 to ip6 daddr . meta l4proto . th dport map @host6",
                "ip6 daddr != ::1 dnat ip6 to meta l4proto . th dport map @any6",
                "type nat hook postrouting priority srcnat; policy accept;",
                "ip saddr 10.118.0.0/16 oifname != \"nsrs0\" masquerade",
                "ip saddr 10.118.0.0/16 ip daddr 10.118.0.0/16 ct status dnat masquerade",
                "ip6 saddr fd01::/64 oifname != \"nsrs0\" masquerade",
                "ip saddr 127.0.0.0/8 oifname \"nsrs0\" masquerade",
            ] {
                assert!(text.contains(line), "{line} is not in\n{text}");
            }
            nat.unpublish(&ports).unwrap();
            assert!(!listed().contains("elements"));
        });
    }

    #[test]
    fn a_port_is_published_once_and_all_ports_or_none() {
        in_new_netns(|| {
            let mut nat = Nat::open("nsrs0", &subnets()).unwrap();
            let held = port(None, 80, "10.118.0.2", Proto::Tcp);
            let other = port(None, 81, "10.118.0.2", Proto::Tcp);
            nat.publish(&[held]).unwrap();
            let error = nat.publish(&[other, held]).unwrap_err();
            assert_eq!((error.code, error.subject.as_str()), (Code::InUse, "80/tcp"), "{error}");
            let error = nat.unpublish(&[held, other]).unwrap_err();
            assert_eq!((error.errno, error.subject.as_str()), (Some(libc::ENOENT), "81/tcp"), "{error}");
            nat.unpublish(&[held]).unwrap();
        });
    }

    #[test]
    fn the_table_is_ours_alone_and_goes_with_us() {
        in_new_netns(|| {
            let nat = Nat::open("nsrs0", &subnets()).unwrap();
            Command::new("nft").args(["flush", "ruleset"]).output().unwrap();
            assert!(listed().contains(&nat.table));
            let error = Nat::open("nsrs0", &subnets()).unwrap_err();
            assert_eq!(error.subject, nat.table, "{error}");
            drop(nat);
            assert_eq!(listed(), "");
        });
    }

    #[test]
    fn a_table_that_was_left_is_removed_and_one_that_is_owned_is_not() {
        in_new_netns(|| {
            let nat = Nat::open("nsrs0", &subnets()).unwrap();
            assert_eq!(remove(&nat.table).unwrap_err().errno, Some(libc::EPERM));
            let left = ["add table inet left", "add chain inet left c"];
            left.iter()
                .for_each(|words| assert!(Command::new("nft").args(words.split(' ')).status().unwrap().success()));
            assert!(listed().contains("table inet left"));
            remove("left").unwrap();
            remove("left").unwrap();
            assert!(!listed().contains("table inet left") && listed().contains(&nat.table));
        });
    }

    #[test]
    fn an_address_of_the_other_family_is_refused() {
        in_new_netns(|| {
            let mut nat = Nat::open("nsrs0", &subnets()).unwrap();
            let error = nat.publish(&[port(Some("::1"), 80, "10.118.0.2", Proto::Tcp)]).unwrap_err();
            assert_eq!(error.code, Code::InvalidArgument, "{error}");
        });
    }
}
