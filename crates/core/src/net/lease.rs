//! Leases of addresses: one locked file for each IPv4 address, which stands for its IPv6 counterpart too, and one for each
//! other IPv6 address that was asked for.
//!
//! The kernel lets go of a lock with the process that holds it, so a killed process leaves a file and no lease. The next
//! address is looked for behind the last one that was given out: an address rests before its next use, while neighbours
//! and connection tracking still remember its last user.

use std::fs::{self, File};
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use ipnet::{Ipv4Net, Ipv6Net};
use rustix::fs::{FlockOperation, flock};

use crate::net::bridge::{Bridge, BridgeAddresses};
use nsrs_base::error::{At, Code, Error, Result};
use nsrs_base::options::{IP, IP6, OptionName};

/// The addresses of one container, held until this is dropped or the process ends.
#[derive(Debug)]
pub struct Lease {
    /// The leased address of the bridge's IPv4 subnet.
    pub v4: Ipv4Addr,
    /// The IPv6 address; `None` where the bridge has no IPv6.
    pub v6: Option<Ipv6Addr>,
    _held: Vec<HeldAddress>,
}

/// The locked file of an address.
#[derive(Debug)]
struct HeldAddress {
    path: PathBuf,
    _lock: File,
}

impl Lease {
    /// Takes the addresses that were asked for, or the next free one.
    ///
    /// The IPv6 address has the number of the IPv4 address in its subnet, unless another was asked for.
    ///
    /// # Errors
    /// An address outside of the bridge's subnet, or one that isn't for hosts; `InUse` for one that is taken, or when all
    /// are.
    pub fn take(bridge: &Bridge, wanted_v4: Option<Ipv4Addr>, wanted_v6: Option<Ipv6Addr>) -> Result<Lease> {
        if let Some(error) = check((bridge.v4, bridge.v6), wanted_v4, wanted_v6).into_iter().next() {
            return Err(error);
        }
        let folder = bridge.leases();
        let (v4, first) = match wanted_v4 {
            Some(wanted) => {
                let held = hold(&folder, wanted.into())?;
                (wanted, held.ok_or_else(|| taken(IP, wanted.into()).hint(offer_v4(bridge.v4)))?)
            }
            None => next(&folder, bridge.v4)?,
        };
        let number = u128::from(v4.to_bits() - bridge.v4.network().to_bits());
        let derived = bridge.v6.map(|v6| Ipv6Addr::from_bits(v6.network().to_bits() | number));
        let mut held = vec![first];
        if let Some(wanted) = wanted_v6.filter(|wanted| Some(*wanted) != derived) {
            let address = counterpart(bridge, wanted).map_or(IpAddr::V6(wanted), IpAddr::V4);
            let taken = || taken(IP6, wanted.into()).hint(bridge.v6.map_or_else(String::new, offer_v6));
            held.push(hold(&folder, address)?.ok_or_else(taken)?);
        }
        Ok(Lease { v4, v6: wanted_v6.or(derived), _held: held })
    }
}

/// Problems of the wanted addresses that show before anything is leased.
pub fn check((v4, v6): BridgeAddresses, wanted_v4: Option<Ipv4Addr>, wanted_v6: Option<Ipv6Addr>) -> Vec<Error> {
    let v4 = wanted_v4.and_then(|wanted| check_v4(v4, wanted).err());
    let v6 = wanted_v6.and_then(|wanted| check_v6(v6, wanted).err());
    v4.into_iter().chain(v6).collect()
}

/// The IPv4 address whose lease an IPv6 address belongs to: the one of the same number in its subnet.
fn counterpart(bridge: &Bridge, address: Ipv6Addr) -> Option<Ipv4Addr> {
    let number = u32::try_from(address.to_bits().checked_sub(bridge.v6?.network().to_bits())?).ok()?;
    let address = Ipv4Addr::from(bridge.v4.network().to_bits().checked_add(number)?);
    (address < bridge.v4.broadcast()).then_some(address)
}

impl Drop for HeldAddress {
    /// The file goes while its lock is held, so that nobody can have locked it in between.
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn check_v4(bridge: Ipv4Net, wanted: Ipv4Addr) -> Result<()> {
    let why = match wanted {
        _ if !bridge.contains(&wanted) => "outside of the bridge's subnet",
        _ if wanted == bridge.network() => "the network's own address",
        _ if wanted == bridge.broadcast() => "the broadcast address",
        _ if wanted == bridge.addr() => "the bridge's address",
        _ => return Ok(()),
    };
    Err(Error::invalid(IP, wanted, why).hint(offer_v4(bridge)))
}

/// What to ask for instead.
fn offer_v4(bridge: Ipv4Net) -> String {
    let (network, gateway) = (bridge.network().to_bits(), bridge.addr().to_bits());
    let mut hosts = (network.saturating_add(1)..bridge.broadcast().to_bits()).filter(|bits| *bits != gateway);
    let Some(lowest) = hosts.next() else { return "its subnet has no address for a container".into() };
    let highest = hosts.next_back().unwrap_or(lowest);
    let without = match gateway {
        bits if (lowest..highest).contains(&bits) => format!(" without {}", bridge.addr()),
        _ => String::new(),
    };
    let (lowest, highest) = (Ipv4Addr::from(lowest), Ipv4Addr::from(highest));
    format!("choose one from {lowest} to {highest}{without}, or leave {IP} out for one that is free")
}

/// All addresses that containers may have, once, beginning behind `last`.
fn behind(bridge: Ipv4Net, last: u32) -> impl Iterator<Item = u32> {
    let (network, broadcast, gateway) =
        (bridge.network().to_bits(), bridge.broadcast().to_bits(), bridge.addr().to_bits());
    let count = broadcast.saturating_sub(network.saturating_add(1));
    let start = if (network..broadcast).contains(&last) { last - network } else { 0 };
    (0..count).map(move |n| network + 1 + (start + n) % count).filter(move |bits| *bits != gateway)
}

fn check_v6(v6: Option<Ipv6Net>, wanted: Ipv6Addr) -> Result<()> {
    let invalid = |why: &str| Error::invalid(IP6, wanted, why);
    let Some(v6) = v6 else { return Err(invalid("the bridge has no IPv6")) };
    let why = match wanted {
        _ if !v6.contains(&wanted) => "outside of the bridge's subnet",
        _ if v6.addr() == wanted => "the bridge's address",
        _ if v6.network() == wanted => "the network's own address",
        _ => return Ok(()),
    };
    Err(invalid(why).hint(offer_v6(v6)))
}

fn offer_v6(v6: Ipv6Net) -> String {
    format!("choose another of {}, or leave {IP6} out for one that is free", v6.trunc())
}

fn taken(option: OptionName, address: IpAddr) -> Error {
    Error::invalid(option, address, "another container has this address, or another nsrs keeps it ready for one")
        .code(Code::InUse)
}

/// Takes the next free address behind the last one given out, which `last` in the directory says. That file is a hint:
/// two processes may read the same number, and the lock of the address decides.
fn next(folder: &Path, bridge: Ipv4Net) -> Result<(Ipv4Addr, HeldAddress)> {
    let path = folder.join("last");
    let mut hint = open(&path)?;
    let mut bytes = [0; 4];
    let last = if hint.read_exact(&mut bytes).is_ok() { u32::from_be_bytes(bytes) } else { bridge.network().to_bits() };
    for bits in behind(bridge, last) {
        let address = Ipv4Addr::from(bits);
        if let Some(held) = hold(folder, address.into())? {
            let written = rustix::io::pwrite(&hint, &bits.to_be_bytes(), 0);
            written.at("write", path.display())?;
            return Ok((address, held));
        }
    }
    Err(Error::new(Code::InUse, "lease an address", "all addresses of the bridge's subnet are taken"))
}

/// Locks the file of an address; `None` when another process has it.
fn hold(folder: &Path, address: IpAddr) -> Result<Option<HeldAddress>> {
    let path = folder.join(address.to_string());
    loop {
        let file = open(&path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            result => result.at("lock", path.display())?,
        }
        // Its last holder may have removed the file after we opened it: then the name is free, or somebody else's.
        if file.metadata().at("read the links of", path.display())?.nlink() > 0 {
            return Ok(Some(HeldAddress { path, _lock: file }));
        }
    }
}

fn open(path: &Path) -> Result<File> {
    File::options().create(true).truncate(false).read(true).write(true).open(path).at("open", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::{StateDir, in_new_netns};

    #[test]
    fn addresses_rest_before_they_are_used_again() {
        in_new_netns(|| {
            let state = StateDir::new("rest");
            let bridge = Bridge::ensure(state.path(), "nsrs0").unwrap();
            let network = bridge.v4.network().to_bits();
            let take = || Lease::take(&bridge, None, None).unwrap();
            let first = take();
            assert_eq!(first.v4.to_bits(), network + 2);
            assert_eq!(first.v6.unwrap().segments()[7], 2);
            let first_v4 = first.v4;
            drop(first);
            let second = take();
            assert_eq!(second.v4.to_bits(), network + 3);

            let error = Lease::take(&bridge, Some(second.v4), None).unwrap_err();
            assert_eq!(error.code, Code::InUse, "{error}");
            assert!(error.hint.contains(&format!("from {} to", first_v4)), "{error}");
            let wanted = second.v4;
            drop(second);
            assert_eq!(Lease::take(&bridge, Some(wanted), None).unwrap().v4, wanted);
            bridge.release().unwrap();
        });
    }

    #[test]
    fn an_ipv6_address_is_given_once() {
        in_new_netns(|| {
            let state = StateDir::new("once");
            let bridge = Bridge::ensure(state.path(), "nsrs0").unwrap();
            let network = bridge.v6.unwrap().network();
            let number = |number: u128| Some(Ipv6Addr::from_bits(network.to_bits() | number));
            let take = |wanted| Lease::take(&bridge, None, wanted);
            for wanted in [number(0xffff_ffff_ffff), number(77)] {
                let first = take(wanted).unwrap();
                assert_eq!(first.v6, wanted);
                let error = take(wanted).unwrap_err();
                assert!(error.code == Code::InUse && error.to_string().contains("--ip6"), "{error}");
                drop(first);
                take(wanted).unwrap();
            }
            // The counterpart of an IPv4 address that somebody has.
            let other = take(None).unwrap();
            assert_eq!(take(other.v6).unwrap_err().code, Code::InUse);
            let left = std::fs::read_dir(bridge.leases()).unwrap().count();
            assert_eq!(left, 2, "the lease of the last one, and the hint");
            bridge.release().unwrap();
        });
    }

    #[test]
    fn an_address_that_is_not_for_hosts_is_refused() {
        in_new_netns(|| {
            let state = StateDir::new("refused");
            let bridge = Bridge::ensure(state.path(), "nsrs0").unwrap();
            let [network, broadcast, gateway] =
                [bridge.v4.network(), bridge.v4.broadcast(), bridge.v4.addr()].map(Ipv4Addr::to_bits);
            for (bits, why) in [(network, "own"), (broadcast, "broadcast"), (gateway, "bridge's"), (1, "outside")] {
                let error = Lease::take(&bridge, Some(bits.into()), None).unwrap_err();
                assert!(error.reason.contains(why), "{error}");
                let (lowest, highest) = (Ipv4Addr::from(network + 2), Ipv4Addr::from(broadcast - 1));
                assert!(error.hint.contains(&format!("from {lowest} to {highest}")), "{error}");
            }
            let gateway = bridge.v6.unwrap().addr();
            for wanted in ["2001:db8::1".parse().unwrap(), gateway] {
                assert!(Lease::take(&bridge, None, Some(wanted)).is_err());
            }
        });
    }

    #[test]
    fn the_addresses_that_are_offered_are_for_containers() {
        let offer = |gateway| offer_v4(Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, gateway), 29));
        assert!(offer(1).contains("from 10.0.0.2 to 10.0.0.6,"));
        assert!(offer(6).contains("from 10.0.0.1 to 10.0.0.5,"));
        assert!(offer(3).contains("from 10.0.0.1 to 10.0.0.6 without 10.0.0.3,"));
        assert!(offer_v4(Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 32)).contains("no address"));
        assert!(offer_v4(Ipv4Net::new_assert(Ipv4Addr::BROADCAST, 32)).contains("no address"));
    }

    #[test]
    fn a_small_subnet_runs_out_and_wraps() {
        let bridge = Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 1), 29);
        let from = |last: u32| behind(bridge, 0x0a00_0000 + last).map(|bits| bits & 0xff).collect::<Vec<_>>();
        assert_eq!(from(0), [2, 3, 4, 5, 6]);
        assert_eq!(from(4), [5, 6, 2, 3, 4]);
        assert_eq!(from(6), [2, 3, 4, 5, 6]);
    }
}
