//! The expressions of our rules, as data, and their encoding.
//!
//! A rule is a list of expressions that load fields of the packet into registers and compare or use them, see nft(8).
//! Registers are counted in words of 4 bytes from 0; netlink-bindings writes the attributes.

use netlink_bindings::nftables::{CmpOps, CtKeys, FibFlags, MetaKeys, PayloadBase, PushExprListAttrs, VerdictCode};
use netlink_bindings::traits::Pusher;
use netlink_packet_core::NLA_F_NESTED;

/// `NFT_REG32_00`: the first of the registers of 4 bytes.
const FIRST_REGISTER: u32 = 8;

/// `NFT_FIB_RESULT_ADDRTYPE`. (The enum of netlink-bindings counts from 0, the kernel from 1.)
const FIB_RESULT_ADDRTYPE: u32 = 3;

/// `NFT_NAT_DNAT`: rewrite the destination.
const NAT_DNAT: u32 = 1;

/// One expression of a rule.
#[derive(Clone, Debug)]
pub enum Expr<'a> {
    /// Loads `meta` of this key into register 0, or another one.
    Meta(MetaKeys, u32),
    /// Loads `len` bytes at `offset` of the network header into a register.
    Network { offset: u32, len: u32, register: u32 },
    /// Loads the destination port of TCP or UDP into a register.
    DestinationPort { register: u32 },
    /// Loads the type of the destination address (`RTN_*`) into register 0.
    DestinationType,
    /// Loads the status bits of the connection into register 0.
    ConnectionStatus,
    /// Keeps these bits of register 0 and those behind it.
    Mask(Vec<u8>),
    /// Goes on if register 0 and those behind it are these bytes.
    Is(Vec<u8>),
    /// Goes on unless they are.
    IsNot(Vec<u8>),
    /// Goes on if the map has the key that begins in register 0, and puts its value there.
    Map(&'a [u8]),
    /// Rewrites the destination: the address is in register 0, the port in this one.
    Dnat { family: i32, port_register: u32 },
    /// Rewrites the source to the address of the interface that the packet leaves by.
    Masquerade,
    /// Drops the packet.
    Drop,
    /// Goes on in this chain.
    Jump(&'a [u8]),
}

/// Appends the attributes of `expr` to a rule's list.
pub fn push<P: Pusher>(list: PushExprListAttrs<P>, expr: &Expr) -> PushExprListAttrs<P> {
    let item = list.nested_elem();
    let word = |register: u32| FIRST_REGISTER + register;
    let item = match expr {
        Expr::Meta(key, register) => {
            item.nested_data_meta().push_key(*key as u32).push_dreg(word(*register)).end_nested()
        }
        Expr::Network { offset, len, register } => {
            let data = item.nested_data_payload().push_base(PayloadBase::NetworkHeader as u32);
            data.push_offset(*offset).push_len(*len).push_dreg(word(*register)).end_nested()
        }
        Expr::DestinationPort { register } => {
            let data = item.nested_data_payload().push_base(PayloadBase::TransportHeader as u32);
            data.push_offset(2).push_len(2).push_dreg(word(*register)).end_nested()
        }
        Expr::DestinationType => {
            let data = item.nested_data_fib().push_flags(FibFlags::Daddr as u32);
            data.push_result(FIB_RESULT_ADDRTYPE).push_dreg(word(0)).end_nested()
        }
        Expr::ConnectionStatus => item.nested_data_ct().push_key(CtKeys::Status as u32).push_dreg(word(0)).end_nested(),
        Expr::Mask(mask) => {
            let len = u32::try_from(mask.len()).expect("a mask is as short as an address");
            let data = item.nested_data_bitwise().push_sreg(word(0)).push_dreg(word(0)).push_len(len);
            let data = data.nested_mask().push_value(mask).end_nested();
            data.nested_xor().push_value(&vec![0; mask.len()]).end_nested().end_nested()
        }
        Expr::Is(value) | Expr::IsNot(value) => {
            let op = if matches!(expr, Expr::Is(_)) { CmpOps::Eq } else { CmpOps::Neq };
            let data = item.nested_data_cmp().push_sreg(word(0)).push_op(op as u32);
            data.nested_data().push_value(value).end_nested().end_nested()
        }
        Expr::Map(name) => {
            let mut item = item.push_name(c"lookup");
            lookup(item.as_vec_mut(), name, word(0));
            return item.end_nested();
        }
        Expr::Dnat { family, port_register } => {
            let data = item.nested_data_nat().push_type(NAT_DNAT).push_family(family.unsigned_abs());
            data.push_reg_addr_min(word(0)).push_reg_proto_min(word(*port_register)).end_nested()
        }
        Expr::Masquerade => return item.push_name(c"masq").end_nested(),
        Expr::Drop => {
            // Register 0 of the old count is the verdict.
            let data = item.nested_data_immediate().push_dreg(0).nested_data();
            data.nested_verdict().push_code(VerdictCode::Drop as u32).end_nested().end_nested().end_nested()
        }
        Expr::Jump(chain) => {
            let verdict = item.nested_data_immediate().push_dreg(0).nested_data().nested_verdict();
            let verdict = verdict.push_code(VerdictCode::Jump as u32).push_chain_bytes(chain);
            verdict.end_nested().end_nested().end_nested()
        }
    };
    item.end_nested()
}

/// The data of a lookup by and into the same register.
///
/// By hand: netlink-bindings 0.3.5 numbers these attributes as an old specification did, not as the kernel does.
fn lookup(bytes: &mut Vec<u8>, map: &[u8], register: u32) {
    let [set, source, destination, data] = [1, 2, 3, 2 | NLA_F_NESTED];
    let mut attributes = Vec::new();
    attribute(&mut attributes, set, &[map, &[0]].concat());
    attribute(&mut attributes, source, &register.to_be_bytes());
    attribute(&mut attributes, destination, &register.to_be_bytes());
    attribute(bytes, data, &attributes);
}

fn attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    // What netlink-bindings wrote last has no padding yet.
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    let length = u16::try_from(value.len() + 4).expect("an attribute is short");
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}
