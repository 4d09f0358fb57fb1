//! For tests that need root: each gets a network namespace of its own, so that it can't touch the host.

use std::fs::File;

use nix::sched::{CloneFlags, setns, unshare};
use nsrs_testing::skip;

/// Runs `body` in a thread that has a new network namespace and the test's name; skips the test without root.
pub fn in_new_netns(body: impl FnOnce() + Send) {
    if !nix::unistd::geteuid().is_root() {
        skip!("needs root");
    }
    let thread = std::thread::current();
    let new = std::thread::Builder::new().name(thread.name().unwrap_or_default().to_owned());
    std::thread::scope(|scope| {
        let run = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("unshare(CLONE_NEWNET)");
            body();
        };
        if let Err(panic) = new.spawn_scoped(scope, run).expect("a thread").join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Adds a veth pair to this network namespace; its first end, `name`, is up and has these `address/length`.
pub fn veth(name: &str, addresses: &[&str]) {
    use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
    use netlink_packet_route::RouteNetlinkMessage;

    let mut netlink = super::transport::Netlink::route().unwrap();
    let mut batch = super::transport::Batch::new();
    let link = rtnetlink::LinkVeth::new(name, &format!("{name}p")).up().build();
    batch.route(RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL, "add", name);
    netlink.send(batch).unwrap();
    let index = super::link::find(&mut netlink, name).unwrap().unwrap().index;
    let mut batch = super::transport::Batch::new();
    for address in addresses {
        let (ip, length) = address.split_once('/').unwrap();
        super::link::add_address(&mut batch, index, ip.parse().unwrap(), length.parse().unwrap(), address);
    }
    netlink.send(batch).unwrap();
}

/// Adds a bridge that is up to this network namespace; returns its number.
pub fn bridge(netlink: &mut super::transport::Netlink, name: &str) -> u32 {
    use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
    use netlink_packet_route::RouteNetlinkMessage;

    let mut batch = super::transport::Batch::new();
    let link = rtnetlink::LinkBridge::new(name).up().build();
    batch.route(RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL, "add", name);
    netlink.send(batch).unwrap();
    super::link::find(netlink, name).unwrap().unwrap().index
}

/// A new network namespace, which lives as long as the returned file and what runs in it.
pub fn new_netns() -> File {
    let make = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("unshare(CLONE_NEWNET)");
        File::open("/proc/thread-self/ns/net").expect("the namespace of this thread")
    };
    std::thread::spawn(make).join().expect("a new network namespace")
}

/// Runs `body` in a thread that is in this network namespace.
pub fn enter<T: Send>(netns: &File, body: impl FnOnce() -> T + Send) -> T {
    let run = || {
        setns(netns, CloneFlags::CLONE_NEWNET).expect("setns");
        body()
    };
    match std::thread::scope(|scope| scope.spawn(run).join()) {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// A state directory of one test's own, removed with it.
pub struct StateDir(std::path::PathBuf);

impl StateDir {
    /// Makes a directory that has the name of the test and of this process.
    pub fn new(test: &str) -> StateDir {
        let path = std::env::temp_dir().join(format!("nsrs-net-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory below the temporary one");
        StateDir(path)
    }

    pub fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
