//! The network of a container: links, addresses, routes, published ports and names.
//!
//! All of it is synchronous: it runs in a supervisor that stays small, and in a process that was just cloned. rtnetlink
//! and netlink-packet-route make the messages, [`transport`] sends them. A container on a bridge takes these steps:
//! [`bridge::Bridge::ensure`] and [`nft::Nat::open`] once for each supervisor, then for each container
//! [`ports::Reserved::take`], [`lease::Lease::take`], [`veth::Cable::plug`], [`nft::Nat::publish`], and in the container
//! [`inside::configure`]. Its end is [`nft::Nat::unpublish`] and dropping the lease and the ports; the cable goes with
//! the network namespace. The lease ends before [`bridge::Bridge::release`].

pub mod bridge;
pub mod forward;
pub mod inside;
pub mod kinds;
pub mod lease;
pub mod link;
pub mod names;
pub mod nft;
pub mod pasta;
pub mod ports;
pub mod publish;
pub mod subnet;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod traffic_tests;
pub mod transport;
pub mod veth;
