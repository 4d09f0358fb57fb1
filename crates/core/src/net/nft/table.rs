//! The static part of our nftables table: maps, chains and rules, in the order in which a packet meets them.
//!
//! ```text
//! table inet nsrs-<pid> {                                  # owned: goes with the socket that made it
//!   map host4 { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service }   # published on one address
//!   map any4  { type inet_proto . inet_service : ipv4_addr . inet_service }               # published on all of them
//!   map host6, map any6                                                                   # the same for IPv6
//!   chain guard       { type filter hook prerouting priority raw;   iif != lo, ip daddr 127.0.0.0/8 drop }
//!   chain prerouting  { type nat hook prerouting priority dstnat;   fib daddr type local jump published }
//!   chain output      { type nat hook output priority dstnat;       fib daddr type local jump published }
//!   chain published   { dnat to the value in host4, any4, host6, and, except for ::1, any6 }
//!   chain postrouting { type nat hook postrouting priority srcnat;  masquerade:
//!                       from the bridge's subnet, leaving by another interface;
//!                       from the subnet to the subnet, after dnat (a container that uses the host's address);
//!                       from 127.0.0.0/8, leaving by the bridge (a published port used on the host's loopback) }
//! }
//! ```
//!
//! There is no accepting forward chain: in nftables an accept ends one chain only, so it could not overrule the drop of
//! another program's firewall (docker's and firewalld's forward policies). Whoever runs such a firewall has to let the
//! bridge pass there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_bindings::nftables::{
    ChainFlags, MetaKeys, Nfgenmsg, OpDeltableDo, OpNewchainDo, OpNewruleDo, OpNewsetDo, OpNewtableDo, SetFlags,
    TableFlags,
};
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};

use crate::net::nft::expr::{Expr, push};
use crate::net::transport::Batch;

/// `NFNL_SUBSYS_NFTABLES`, the upper byte of every request's type.
const SUBSYSTEM: u16 = 10;
/// `NFT_MSG_*`, the lower byte.
pub const NEW_TABLE: u16 = SUBSYSTEM << 8;
const DELETE_TABLE: u16 = SUBSYSTEM << 8 | 2;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
const NEW_SET: u16 = SUBSYSTEM << 8 | 9;
pub const NEW_ELEMENT: u16 = SUBSYSTEM << 8 | 12;
pub const DELETE_ELEMENT: u16 = SUBSYSTEM << 8 | 14;
/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END`, which bracket a transaction.
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;

/// `NFPROTO_*`: the families of a table and of a packet.
const NFPROTO_INET: u8 = 1;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;

/// `NF_INET_*` hooks with the priorities that nft(8) calls raw, dstnat and srcnat.
const PREROUTING_RAW: (u32, i32) = (0, -300);
const PREROUTING_DSTNAT: (u32, i32) = (0, -100);
const OUTPUT_DSTNAT: (u32, i32) = (3, -100);
const POSTROUTING_SRCNAT: (u32, i32) = (4, 100);

/// `IPS_DST_NAT`: the destination of this connection was rewritten.
const STATUS_DNAT: u32 = 1 << 5;

/// The numbers by which nft(8) knows the types of map keys and values, six bits each in a concatenation.
const TYPE_IPV4: u32 = 7;
const TYPE_IPV6: u32 = 8;
const TYPE_PROTO: u32 = 12;
const TYPE_SERVICE: u32 = 13;

/// One family's maps, and what its rules read.
pub struct Family {
    /// The map of ports that are published on one address.
    pub host: &'static [u8],
    /// The map of ports that are published on all.
    pub any: &'static [u8],
    nfproto: u8,
    family: i32,
    address_type: u32,
    address_len: u32,
    source: u32,
    destination: u32,
}

/// IPv4. Offsets and lengths are those of its header, in bytes.
pub const V4: Family = Family {
    host: b"host4",
    any: b"any4",
    nfproto: NFPROTO_IPV4,
    family: libc::AF_INET,
    address_type: TYPE_IPV4,
    address_len: 4,
    source: 12,
    destination: 16,
};

/// IPv6. Offsets and lengths are those of its header, in bytes.
pub const V6: Family = Family {
    host: b"host6",
    any: b"any6",
    nfproto: NFPROTO_IPV6,
    family: libc::AF_INET6,
    address_type: TYPE_IPV6,
    address_len: 16,
    source: 8,
    destination: 24,
};

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> &'static Family {
        if address.is_ipv4() { &V4 } else { &V6 }
    }

    fn is(&self) -> [Expr<'static>; 2] {
        [Expr::Meta(MetaKeys::Nfproto, 0), Expr::Is(vec![self.nfproto])]
    }

    /// The destination is not one whose rewriting would do no good: IPv6 has no `route_localnet`, so what a container
    /// answers to ::1 is never delivered. Left alone, such a connection is refused at once, and `localhost` falls back to
    /// 127.0.0.1.
    fn not_stranded(&self) -> Vec<Expr<'static>> {
        if self.nfproto == NFPROTO_IPV4 {
            return Vec::new();
        }
        let load = Expr::Network { offset: self.destination, len: self.address_len, register: 0 };
        vec![load, Expr::IsNot(octets(Ipv6Addr::LOCALHOST.into()))]
    }

    /// The address at `offset` of the header lies in `subnet`.
    fn within(&self, offset: u32, subnet: &IpNet) -> [Expr<'static>; 3] {
        let mask = octets(subnet.netmask());
        let load = Expr::Network { offset, len: self.address_len, register: 0 };
        [load, Expr::Mask(mask), Expr::Is(octets(subnet.network()))]
    }
}

/// The bytes of an address as they are in a packet.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The header of every request: the family of the table.
pub fn inet() -> Nfgenmsg {
    Nfgenmsg::new_from_array([NFPROTO_INET, 0, 0, 0])
}

/// A netfilter batch, which the kernel does whole or not at all.
pub struct Transaction<'a> {
    /// The name of the table that the requests are about.
    pub table: &'a [u8],
    /// The requests so far, in the order in which they are sent.
    pub batch: Batch,
}

impl<'a> Transaction<'a> {
    /// Begins a batch of requests for this table.
    pub fn begin(table: &'a [u8]) -> Transaction<'a> {
        let mut transaction = Transaction { table, batch: Batch::new() };
        transaction.bracket(BATCH_BEGIN);
        transaction
    }

    /// Closes the batch. Sending it commits the transaction.
    pub fn end(mut self) -> Batch {
        self.bracket(BATCH_END);
        self.batch
    }

    fn bracket(&mut self, kind: u16) {
        let [high, low] = SUBSYSTEM.to_be_bytes();
        self.batch.bracket(kind, "change nftables", &name(self.table), |bytes| bytes.extend([0, 0, high, low]));
    }

    fn table(&mut self) {
        let (flags, table) = (NLM_F_CREATE | NLM_F_EXCL, self.table);
        self.batch.raw(NEW_TABLE, flags, "make the nftables table", &name(table), |bytes| {
            OpNewtableDo::encode_request(bytes, &inet()).push_name_bytes(table).push_flags(TableFlags::Owner as u32);
        });
    }

    /// Removes the table with all that is in it.
    pub fn delete_table(&mut self) {
        let table = self.table;
        self.batch.raw(DELETE_TABLE, 0, "remove the nftables table", &name(table), |bytes| {
            OpDeltableDo::encode_request(bytes, &inet()).push_name_bytes(table);
        });
    }

    /// A map; `key` and `value` are the types of its fields.
    fn map(&mut self, map: &[u8], key: &[u32], value: &[u32]) {
        let concatenated = |types: &[u32]| types.iter().fold(0, |sum, kind| sum << 6 | kind);
        let bytes_of = |kind: &u32| if *kind == TYPE_IPV6 { 16 } else { 4 };
        let length = |types: &[u32]| types.iter().map(bytes_of).sum::<u32>();
        let table = self.table;
        self.batch.raw(NEW_SET, NLM_F_CREATE | NLM_F_EXCL, "make the nftables map", &name(map), |bytes| {
            OpNewsetDo::encode_request(bytes, &inet())
                .push_table_bytes(table)
                .push_name_bytes(map)
                .push_flags(SetFlags::Map as u32)
                .push_key_type(concatenated(key))
                .push_key_len(length(key))
                .push_data_type(concatenated(value))
                .push_data_len(length(value))
                // Unused, for every request names its map; the kernel wants it all the same.
                .push_id(1);
        });
    }

    fn chain(&mut self, chain: &[u8], base: Option<(&[u8], (u32, i32))>) {
        let table = self.table;
        self.batch.raw(NEW_CHAIN, NLM_F_CREATE | NLM_F_EXCL, "make the nftables chain", &name(chain), |bytes| {
            let request = OpNewchainDo::encode_request(bytes, &inet()).push_table_bytes(table).push_name_bytes(chain);
            if let Some((kind, (hook, priority))) = base {
                let request = request.push_type_bytes(kind).push_flags(ChainFlags::Base as u32);
                request.nested_hook().push_num(hook).push_priority(priority);
            }
        });
    }

    fn rule<'e>(&mut self, chain: &[u8], exprs: impl IntoIterator<Item = Expr<'e>>) {
        let table = self.table;
        self.batch.raw(
            NEW_RULE,
            NLM_F_CREATE | NLM_F_APPEND,
            "add a rule to the nftables chain",
            &name(chain),
            |bytes| {
                let request =
                    OpNewruleDo::encode_request(bytes, &inet()).push_table_bytes(table).push_chain_bytes(chain);
                exprs.into_iter().fold(request.nested_expressions(), |list, expr| push(list, &expr));
            },
        );
    }

    /// Everything but the elements of the maps.
    pub fn whole_table(&mut self, bridge: &str, subnets: &[IpNet]) {
        self.table();
        for family in [&V4, &V6] {
            let value = [family.address_type, TYPE_SERVICE];
            self.map(family.host, &[family.address_type, TYPE_PROTO, TYPE_SERVICE], &value);
            self.map(family.any, &[TYPE_PROTO, TYPE_SERVICE], &value);
        }
        self.chain(b"guard", Some((b"filter", PREROUTING_RAW)));
        self.chain(b"prerouting", Some((b"nat", PREROUTING_DSTNAT)));
        self.chain(b"output", Some((b"nat", OUTPUT_DSTNAT)));
        self.chain(b"postrouting", Some((b"nat", POSTROUTING_SRCNAT)));
        self.chain(b"published", None);

        // 127.0.0.0/8 is routable on the bridge (route_localnet): nobody but the host itself may use it, CVE-2020-8558.
        let loopback = IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8);
        let not_lo = [Expr::Meta(MetaKeys::Iifname, 0), Expr::IsNot(interface("lo"))];
        let to_loopback = V4.within(V4.destination, &loopback);
        self.rule(b"guard", chain_of([&not_lo, &V4.is(), &to_loopback, &[Expr::Drop]]));

        // A published port is one of the host's addresses only: traffic through the host isn't touched, CVE-2025-67499.
        for hook in [&b"prerouting"[..], b"output"] {
            let local = Expr::Is(u32::from(libc::RTN_LOCAL).to_ne_bytes().to_vec());
            self.rule(hook, [Expr::DestinationType, local, Expr::Jump(b"published")]);
        }
        for family in [&V4, &V6] {
            self.redirections(family);
        }
        for subnet in subnets {
            self.masquerades(bridge, subnet);
        }
        let from_loopback = V4.within(V4.source, &loopback);
        let by_bridge = [Expr::Meta(MetaKeys::Oifname, 0), Expr::Is(interface(bridge)), Expr::Masquerade];
        self.rule(b"postrouting", chain_of([&V4.is()[..], &from_loopback, &by_bridge]));
    }

    fn redirections(&mut self, family: &Family) {
        let words = family.address_len / 4;
        let protocol_and_port =
            |first: u32| [Expr::Meta(MetaKeys::L4Proto, first), Expr::DestinationPort { register: first + 1 }];
        let address = Expr::Network { offset: family.destination, len: family.address_len, register: 0 };
        let dnat = |map| [Expr::Map(map), Expr::Dnat { family: family.family, port_register: words }];
        let (host, any) = (dnat(family.host), dnat(family.any));
        self.rule(b"published", chain_of([&family.is()[..], &[address], &protocol_and_port(words), &host]));
        self.rule(b"published", chain_of([&family.is()[..], &family.not_stranded(), &protocol_and_port(0), &any]));
    }

    fn masquerades(&mut self, bridge: &str, subnet: &IpNet) {
        let family = Family::of(subnet.addr());
        let from_subnet = family.within(family.source, subnet);
        let to_subnet = family.within(family.destination, subnet);
        let elsewhere = [Expr::Meta(MetaKeys::Oifname, 0), Expr::IsNot(interface(bridge)), Expr::Masquerade];
        self.rule(b"postrouting", chain_of([&family.is()[..], &from_subnet, &elsewhere]));

        let dnat = STATUS_DNAT.to_ne_bytes().to_vec();
        let redirected = [Expr::ConnectionStatus, Expr::Mask(dnat), Expr::IsNot(vec![0; 4]), Expr::Masquerade];
        self.rule(b"postrouting", chain_of([&family.is()[..], &from_subnet, &to_subnet, &redirected]));
    }
}

fn chain_of<'e, const N: usize>(parts: [&[Expr<'e>]; N]) -> Vec<Expr<'e>> {
    parts.concat()
}

/// An interface's name as the kernel compares it: 16 bytes.
fn interface(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(libc::IFNAMSIZ, 0);
    bytes
}

fn name(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
