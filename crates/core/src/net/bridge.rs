//! The bridge that containers share: made by its first user, removed by its last one.
//!
//! Below `<state_dir>/net` lie:
//! - `lock`: held exclusively for the short time in which a bridge comes or goes, so that no two processes race;
//! - `<name>.lock`: held shared by each user of the bridge for its lifetime; the kernel lets go of it with the process;
//! - `<name>.json`: the journal of a bridge that nsrs made, written before the bridge is;
//! - `host.json`: the host's settings that were changed for bridges, see [`crate::net::forward`];
//! - `<name>/`: the leases of addresses, see [`crate::net::lease`].

use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::BridgeStpState;
use rtnetlink::{LinkBridge, LinkUnspec};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::net::forward::{self, SettingChange};
use crate::net::link::{self, Link, add_address};
use crate::net::subnet::{choose_v4, choose_v6, overlap, random, taken};
use crate::net::transport::{Batch, Netlink};
use nsrs_base::error::{At, Code, Error, Result};
use nsrs_base::options::NETWORK;

/// The addresses of one bridge, which are its containers' gateways, with the lengths of their subnets; no IPv6 where the host has
/// none.
pub type BridgeAddresses = (Ipv4Net, Option<Ipv6Net>);

/// The journal of a bridge that nsrs made.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct BridgeRecord {
    v4: Ipv4Net,
    v6: Option<Ipv6Net>,
    mtu: u32,
}

/// A bridge in use. Dropping it without [`Bridge::release`] leaves the bridge to the next user or to [`collect`].
#[derive(Debug)]
pub struct Bridge {
    /// Its number in this network namespace.
    pub index: u32,
    /// Its name, by default [`crate::net::kinds::BRIDGE`].
    pub name: String,
    /// The largest packet it takes, in bytes.
    pub mtu: u32,
    /// Its IPv4 address, with the length of its subnet.
    pub v4: Ipv4Net,
    /// Its IPv6 address; `None` where the host has no IPv6.
    pub v6: Option<Ipv6Net>,
    /// What was changed on the host for it, in sentences for the user.
    pub changed: Vec<String>,
    folder: PathBuf,
    user: File,
}

impl Bridge {
    /// Makes the bridge, or joins the one of this name.
    ///
    /// An existing bridge that nsrs did not make is used with its addresses and never removed.
    ///
    /// # Errors
    /// An invalid name, a link of that name that is not a bridge, a bridge without an IPv4 address, no free subnet, or
    /// the kernel's refusal.
    pub fn ensure(state_dir: &Path, name: &str) -> Result<Bridge> {
        link::check_name("bridge", name).map_err(|error| error.about(NETWORK))?;
        let folder = state_dir.join("net");
        let leases = folder.join(name);
        fs::create_dir_all(&folder).at("make the directory", folder.display())?;
        let _lock = exclusive(&folder)?;
        // Under the lock, or the last user could be removing it just then.
        fs::create_dir_all(&leases).at("make the directory", leases.display())?;
        let user = open(&folder.join(format!("{name}.lock")))?;
        // Never waits: an exclusive lock of this file is held under `lock` only.
        flock(&user, FlockOperation::LockShared).at("lock", folder.join(name).display())?;

        let mut netlink = Netlink::route()?;
        let record: Option<BridgeRecord> = load(&journal(&folder, name))?;
        let (link, record) = match (link::find(&mut netlink, name)?, record) {
            (Some(link), _) if !link.is_bridge => return Err(not_a_bridge(name)),
            (Some(link), Some(record)) => (link, record),
            (Some(link), None) => foreign(&mut netlink, link)?,
            (None, record) => create(&mut netlink, &folder, name, record)?,
        };
        let changed = open_the_way(&mut netlink, &folder, name, record.v6.is_some())?;
        let BridgeRecord { v4, v6, .. } = record;
        Ok(Bridge { index: link.index, name: link.name, mtu: link.mtu, v4, v6, changed, folder, user })
    }

    /// The subnets of its addresses, from which packets are masqueraded ([`crate::net::nft::Nat::open`]).
    #[must_use]
    pub fn subnets(&self) -> Vec<IpNet> {
        let v4 = IpNet::V4(self.v4.trunc());
        std::iter::once(v4).chain(self.v6.map(|v6| IpNet::V6(v6.trunc()))).collect()
    }

    /// The directory of its leases.
    #[must_use]
    pub fn leases(&self) -> PathBuf {
        self.folder.join(&self.name)
    }

    /// Ends the use. The last user removes a bridge that nsrs made, and the last one of all bridges restores the host's
    /// settings.
    ///
    /// # Errors
    /// The kernel's refusal of a step; the steps behind it are tried all the same.
    pub fn release(self) -> Result<()> {
        let _lock = exclusive(&self.folder)?;
        remove_if_unused(&self.folder, &self.name, &self.user)?;
        drop(self.user);
        restore_if_unused(&self.folder)
    }
}

/// The addresses of the bridge of this name, where it stands; before there is one they aren't known.
///
/// # Errors
/// A bridge without an IPv4 address, or the kernel's refusal.
pub fn standing(state_dir: &Path, name: &str) -> Result<Option<BridgeAddresses>> {
    let mut netlink = Netlink::route()?;
    let Some(link) = link::find(&mut netlink, name)?.filter(|link| link.is_bridge) else { return Ok(None) };
    let record = match load(&journal(&state_dir.join("net"), name))? {
        Some(record) => record,
        None => foreign(&mut netlink, link)?.1,
    };
    Ok(Some((record.v4, record.v6)))
}

/// Removes every bridge of `state_dir` that nobody uses, and restores the host's settings when none is left: what a
/// killed process left behind. Returns the names of the removed bridges.
///
/// # Errors
/// The kernel's refusal.
pub fn collect(state_dir: &Path) -> Result<Vec<String>> {
    let folder = state_dir.join("net");
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let _lock = exclusive(&folder)?;
    let mut removed = Vec::new();
    for name in users(&folder)? {
        let user = open(&folder.join(format!("{name}.lock")))?;
        if remove_if_unused(&folder, &name, &user)? {
            removed.push(name);
        }
    }
    restore_if_unused(&folder)?;
    Ok(removed)
}

/// Makes the bridge, with the subnets of `record` if a crash or a reboot left one that is still free.
fn create(
    netlink: &mut Netlink,
    folder: &Path,
    name: &str,
    record: Option<BridgeRecord>,
) -> Result<(Link, BridgeRecord)> {
    let resolv_conf = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let taken = taken(netlink, &resolv_conf)?;
    let is_free = |net: IpNet| taken.iter().all(|other| !overlap(other, &net));
    let record = match record {
        Some(record) if is_free(record.v4.into()) && record.v6.is_none_or(|v6| is_free(v6.into())) => record,
        _ => choose(&taken, link::outside_mtu(netlink)?)?,
    };
    // The journal comes first: a bridge without one would look like somebody else's after a crash.
    store(&journal(folder, name), &record)?;

    let mut batch = Batch::new();
    let mut mac: [u8; 6] = random()?;
    mac[0] = mac[0] & 0xfc | 0x02;
    // The address is set, or the bridge would take over the lowest one of its ports, and change it with them.
    let message = LinkBridge::new(name)
        .stp_state(BridgeStpState::Disabled)
        .forward_delay(0)
        .mcast_snooping(false)
        .address(mac.to_vec())
        .mtu(record.mtu)
        .build();
    batch.route(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL, "make the bridge", name);
    link::ask(&mut batch, name);
    let mut found = None;
    netlink.ask(batch, |message| found = link::link(&message)).map_err(|error| match error.errno {
        Some(libc::EOPNOTSUPP) => error.hint("the kernel needs bridges: try modprobe bridge"),
        Some(libc::EPERM) => {
            error.hint(format!("a bridge needs root or CAP_NET_ADMIN; without them use {NETWORK} pasta"))
        }
        _ => error,
    })?;
    let link = found.ok_or_else(|| Error::os("look up the interface", name, libc::ENODEV))?;
    forward::quiet(name)?;

    let mut batch = Batch::new();
    let mut give = |address: IpAddr, length| {
        add_address(&mut batch, link.index, address, length, &format!("{address}/{length} of {name}"));
    };
    give(record.v4.addr().into(), record.v4.prefix_len());
    record.v6.inspect(|v6| give(v6.addr().into(), v6.prefix_len()));
    let up = RouteNetlinkMessage::SetLink(LinkUnspec::new_with_index(link.index).up().build());
    batch.route(up, 0, "switch on the bridge", name);
    netlink.send(batch)?;
    Ok((link, record))
}

fn choose(taken: &[IpNet], mtu: u32) -> Result<BridgeRecord> {
    let v4 = choose_v4(taken)?;
    let mut v6 = None;
    // Below 1280 bytes the kernel switches IPv6 off on a link.
    if forward::has_ipv6() && mtu >= 1280 {
        let id = random::<80>()?;
        let mut ids = id.chunks_exact(5).map(|id| [id[0], id[1], id[2], id[3], id[4]]);
        v6 = Some(choose_v6(taken, || ids.next().unwrap_or_default())?);
    }
    Ok(BridgeRecord { v4, v6, mtu })
}

/// A bridge that somebody else made, with the first global address of each family that it has.
fn foreign(netlink: &mut Netlink, link: Link) -> Result<(Link, BridgeRecord)> {
    let (mut v4, mut v6) = (None, None);
    for (address, length) in link::addresses(netlink, link.index)? {
        match IpNet::new(address, length) {
            Ok(IpNet::V4(net)) => _ = v4.get_or_insert(net),
            Ok(IpNet::V6(net)) if !net.addr().is_unicast_link_local() => _ = v6.get_or_insert(net),
            _ => (),
        }
    }
    let v4 = v4.ok_or_else(|| {
        Error::invalid_value("bridge", &link.name, "this bridge exists and has no IPv4 address")
            .about(NETWORK)
            .hint("give it one, or choose a name that is free: nsrs then makes the bridge")
    })?;
    let record = BridgeRecord { v4, v6, mtu: link.mtu };
    Ok((link, record))
}

fn not_a_bridge(name: &str) -> Error {
    Error::invalid_value("bridge", name, "an interface of this name exists and is not a bridge")
        .about(NETWORK)
        .code(Code::InUse)
        .hint("choose another name")
}

/// Switches forwarding on where it is off, after it was recorded.
fn open_the_way(netlink: &mut Netlink, folder: &Path, name: &str, with_v6: bool) -> Result<Vec<String>> {
    let outside = if with_v6 { outside_v6(netlink, name)? } else { Vec::new() };
    let changes = forward::needed(name, &outside, with_v6)?;
    if changes.is_empty() {
        return Ok(Vec::new());
    }
    let mut all: Vec<SettingChange> = load(&folder.join("host.json"))?.unwrap_or_default();
    all.extend(changes.iter().cloned());
    store(&folder.join("host.json"), &all)?;
    forward::apply(&changes)?;
    Ok(changes.iter().map(SettingChange::sentence).collect())
}

/// The other interfaces that have a global IPv6 address: packets for containers come in there.
fn outside_v6(netlink: &mut Netlink, name: &str) -> Result<Vec<String>> {
    let global = link::with_global_v6(netlink)?;
    let links = link::list(netlink)?.into_iter();
    let others = links.filter(|link| link.name != name && link.name != "lo" && global.contains(&link.index));
    Ok(others.map(|link| link.name).collect())
}

/// Removes the bridge, its journal and its leases if `user` is its only user. Called under the lock of the directory.
fn remove_if_unused(folder: &Path, name: &str, user: &File) -> Result<bool> {
    if flock(user, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(false);
    }
    let journal = journal(folder, name);
    let ours = load::<BridgeRecord>(&journal)?.is_some();
    if ours {
        let mut netlink = Netlink::route()?;
        if link::find(&mut netlink, name)?.is_some_and(|link| link.is_bridge) {
            crate::net::veth::unplug(&mut netlink, name)?;
        }
    }
    remove(&journal)?;
    let leases = folder.join(name);
    fs::remove_dir_all(&leases).or_else(absent).at("remove the directory", leases.display())?;
    remove(&folder.join(format!("{name}.lock")))?;
    Ok(ours)
}

/// Restores the host's settings if no bridge is in use. Called under the lock of the directory.
fn restore_if_unused(folder: &Path) -> Result<()> {
    if !users(folder)?.is_empty() {
        return Ok(());
    }
    let path = folder.join("host.json");
    if let Some(changes) = load::<Vec<SettingChange>>(&path)? {
        // A bridge that came since, docker's for example, may rely on forwarding by now without having set it.
        let relied_on = link::list(&mut Netlink::route()?)?.iter().any(|link| link.is_bridge);
        if !relied_on {
            forward::restore(&changes)?;
        }
    }
    remove(&path)
}

/// The names of the bridges that have a file for their users' lock.
fn users(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).at("list", folder.display())?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.filter_map(|name| name.strip_suffix(".lock").map(str::to_owned)).collect())
}

fn exclusive(folder: &Path) -> Result<File> {
    let lock = open(&folder.join("lock"))?;
    rustix::io::retry_on_intr(|| flock(&lock, FlockOperation::LockExclusive)).at("lock", folder.display())?;
    Ok(lock)
}

fn open(path: &Path) -> Result<File> {
    File::options().create(true).truncate(false).write(true).open(path).at("open", path.display())
}

fn journal(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.json"))
}

/// `None` for a file that is absent, or that a crash left half-written.
fn load<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        bytes => Ok(serde_json::from_slice(&bytes.at("read", path.display())?).ok()),
    }
}

/// Written beside and renamed, so that a crash leaves the old text or the new one.
fn store<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let text = serde_json::to_vec(value).expect("a journal is plain data");
    let beside = path.with_extension("new");
    fs::write(&beside, text).at("write", beside.display())?;
    fs::rename(&beside, path).at("write", path.display())
}

fn remove(path: &Path) -> Result<()> {
    fs::remove_file(path).or_else(absent).at("remove", path.display())
}

fn absent(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

#[cfg(test)]
#[path = "bridge_tests.rs"]
mod tests;
