//! Containers made ahead: while nothing else is to be done, the next container of a kind that is asked for again and
//! again is prepared up to its command, which is all that is left when the order comes.
//!
//! A spare is used only where that can't be told from a container made at the order: see [`possible`] for the plans and
//! [`Spares::find`] for what must not have changed since.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::process::Pid;

use super::container::Container;
use super::engine::{Engine, Order};
use super::token::Token;
use super::wiring::{self, Wire};
use crate::error::{At, Result};
use crate::plan::Plan;
use crate::plan::mount::Source;
use crate::plan::namespace::Kind;
use crate::plan::network::Network;
use crate::plan::pseudo::Sys;
use crate::plan::root::Root;
use crate::steps::channel::ToChild;
use crate::steps::etc::Files;
use crate::steps::stage;
use crate::sys::message::MOST_FDS;

/// Most kinds of containers that are remembered, and so most spares.
const MOST: usize = 4;
/// A kind that is not asked for this long is forgotten, and its spare ended.
const LIFE: Duration = Duration::from_secs(60);
/// A container that was asked for this recently is still being made, or about to end; nothing is made beside it.
const YOUNG: Duration = Duration::from_millis(3);

/// A kind of container that was asked for.
#[derive(Debug)]
struct Wanted {
    plan: Plan,
    /// It was asked for more than once: likely it will be again.
    again: bool,
    /// It can be made ahead, as far as is known.
    possible: bool,
    last: Instant,
    spare: Option<Spare>,
}

impl Wanted {
    fn lacks_one(&self) -> bool {
        self.again && self.possible && self.spare.is_none()
    }
}

/// A container without a command.
#[derive(Debug)]
struct Spare {
    key: u64,
    /// What the paths of its plan led to.
    paths: Vec<Option<(u64, u64)>>,
    /// Its own mounts when it stood, as /proc/PID/mountinfo tells them.
    mounts: Option<String>,
}

/// The spares of an engine.
#[derive(Debug)]
pub(super) struct Spares {
    wanted: Vec<Wanted>,
    /// The kernel's word on the caller's mounts: it tells when they change.
    mounts: File,
}

/// Can a container of this plan be made before it is asked for?
///
/// Not where it would hold what others may want meanwhile (an address by name, a port), where it joins what may be gone
/// by then, or where what it shows is looked up when it is made: on the host's tree, which secrets exist.
fn possible(plan: &Plan) -> bool {
    let alone = plan.namespaces.makes(Kind::Mount) && plan.namespaces.makes(Kind::Pid) && !stage::needed(plan);
    let directory = matches!(plan.root, Root::Directory { .. });
    let live = plan.mounts.iter().all(|mount| !matches!(mount.source, Source::Overlay { .. }));
    let network = match &plan.network {
        Network::None | Network::Host => true,
        Network::Bridge(bridge) => {
            bridge.publish.is_empty() && bridge.ip.is_none() && bridge.ip6.is_none() && bridge.mac.is_none()
        }
        Network::Pasta { publish, .. } => publish.is_empty(),
        Network::Joined => false,
    };
    alone && directory && live && network && plan.tty.is_none()
}

/// Which files the paths of a plan lead to.
fn paths(plan: &Plan) -> Vec<Option<(u64, u64)>> {
    let root = match &plan.root {
        Root::Directory { path, .. } => Some(path),
        Root::Shared | Root::Host(_) => None,
    };
    let sources = plan.mounts.iter().filter_map(|mount| match &mount.source {
        Source::Bind { path, .. } | Source::Overlay { lower: path } => Some(path),
        Source::Tmpfs { .. } => None,
    });
    let identity = |path: &String| std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    root.into_iter().chain(sources).map(identity).collect()
}

/// Where in its root a container must have mounts: later nothing else may be found by these names.
fn places(plan: &Plan, files: &Files) -> Vec<String> {
    let pseudo = plan.pseudo.as_ref();
    let sys = pseudo.is_some_and(|pseudo| pseudo.sys == Sys::Fresh);
    let own = [("/proc", pseudo.is_some()), ("/dev", pseudo.is_some()), ("/sys", sys)];
    let etc =
        [("/etc/hosts", &files.hosts), ("/etc/hostname", &files.hostname), ("/etc/resolv.conf", &files.resolv_conf)];
    let own = own.into_iter().filter(|(_, is_there)| *is_there).map(|(path, _)| path);
    let etc = etc.into_iter().filter(|(_, text)| text.is_some()).map(|(path, _)| path);
    own.chain(etc).map(ToOwned::to_owned).chain(plan.mounts.iter().map(|mount| mount.target.clone())).collect()
}

/// The mounts of a process, by their paths from its root. A directory below a mount that is renamed or removed, by whom
/// ever and in whatever mount namespace, shows here.
fn mount_table(pid: Pid) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{}/mountinfo", pid.as_raw_nonzero())).ok()
}

impl Spares {
    fn open() -> Result<Spares> {
        let step = "watch the mounts";
        let mounts = File::open("/proc/self/mountinfo").at(step, "/proc/self/mountinfo")?;
        Ok(Spares { wanted: Vec::new(), mounts })
    }

    /// Have the caller's mounts changed since this was last asked, here or by the event loop?
    fn mounts_changed(&self) -> bool {
        let mut fds = [PollFd::new(&self.mounts, PollFlags::PRI)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
    }

    /// Notes that a container of this plan was asked for, and forgets the kind that was not for longest.
    fn note(&mut self, plan: &Plan) -> Option<Spare> {
        if let Some(wanted) = self.wanted.iter_mut().find(|wanted| wanted.plan.same_ground(plan)) {
            (wanted.again, wanted.last) = (true, Instant::now());
            return None;
        }
        let oldest = (0..self.wanted.len()).min_by_key(|index| self.wanted[*index].last);
        let forgotten = oldest.filter(|_| self.wanted.len() == MOST).map(|index| self.wanted.swap_remove(index));
        let plan = Plan { timeout_ms: None, ..plan.clone() };
        self.wanted.push(Wanted { plan, again: false, possible: true, last: Instant::now(), spare: None });
        forgotten.and_then(|wanted| wanted.spare)
    }

    /// One that stands; what is still being made is for the next order.
    fn take(&mut self, plan: &Plan) -> Option<Spare> {
        let wanted = self.wanted.iter_mut().find(|wanted| wanted.plan.same_ground(plan))?;
        wanted.spare.take_if(|spare| spare.mounts.is_some())
    }
}

impl Engine {
    /// Makes containers ahead from now on: this engine serves more than one order.
    ///
    /// # Errors
    /// /proc can't be read.
    pub fn keep_spares(&mut self) -> Result<()> {
        let spares = Spares::open()?;
        self.watch(&spares.mounts, Token::MOUNTS, epoll::EventFlags::PRI | epoll::EventFlags::ET)?;
        self.spares = Some(spares);
        Ok(())
    }

    /// Hands an order to a spare, if there is one that serves it, and returns our number for that.
    pub(super) fn hand_over(&mut self, order: &Order<'_>, plan: &Plan) -> Option<u64> {
        let spares = self.spares.as_mut().filter(|_| possible(plan))?;
        if spares.mounts_changed() {
            self.mounts_changed();
        }
        if let Network::Bridge(_) = &plan.network
            && !self.wiring.bridge_stands()
        {
            self.mounts_changed();
        }
        let spares = self.spares.as_mut()?;
        let found = spares.take(plan);
        let forgotten = spares.note(plan);
        self.discard(forgotten.into_iter());
        let spare = found?;
        if self.serves(&spare, plan) && self.send_command(&spare, order, plan) {
            return Some(spare.key);
        }
        self.discard([spare].into_iter());
        None
    }

    /// Is the spare what would be made now?
    fn serves(&self, spare: &Spare, plan: &Plan) -> bool {
        let Some(container) = self.containers.get(&spare.key) else { return false };
        let Some(first) = container.first.as_ref().filter(|_| container.failure.is_none()) else { return false };
        spare.mounts.is_some()
            && spare.mounts == mount_table(first.pid)
            && spare.paths == paths(plan)
            && wiring::files(plan, &container.wire).is_ok_and(|files| files == container.wire.files)
    }

    fn send_command(&self, spare: &Spare, order: &Order<'_>, plan: &Plan) -> bool {
        let Some(stdio) = &order.stdio else { return false };
        let Some(channel) = self.containers.get(&spare.key).and_then(|container| container.channel.as_ref()) else {
            return false;
        };
        let fds: Vec<_> = stdio.iter().chain(&order.fds).map(AsFd::as_fd).collect();
        fds.len() <= MOST_FDS && channel.send(&ToChild::Command(Box::new(plan.command.clone())), &fds).is_ok()
    }

    /// The spare is the container that was asked for from now on.
    pub(super) fn adopt(&mut self, key: u64, order: &Order<'_>, plan: Plan, since: Instant) {
        let Some(container) = self.containers.get_mut(&key) else { return };
        container.id = Some(order.id);
        container.announce = order.announce;
        container.plan = plan;
        container.since = since;
        if let (false, Some(channel)) = (container.is_heard(), &container.channel) {
            let _ = epoll::delete(&self.epoll, channel);
        }
    }

    /// A spare stands. If a name that something is mounted on led through a link, it could lead elsewhere at the order: no
    /// container of that kind is made ahead again.
    pub(super) fn spare_stands(&mut self, key: u64) {
        let Some(container) = self.containers.get(&key) else { return };
        let table = container.first.as_ref().and_then(|first| mount_table(first.pid)).filter(|table| {
            let points: Vec<&str> = table.lines().filter_map(|line| line.split(' ').nth(4)).collect();
            places(&container.plan, &container.wire.files).iter().all(|place| points.contains(&place.as_str()))
        });
        let of = |wanted: &&mut Wanted| wanted.spare.as_ref().is_some_and(|spare| spare.key == key);
        let Some(wanted) = self.spares.as_mut().and_then(|spares| spares.wanted.iter_mut().find(of)) else { return };
        match (table, &mut wanted.spare) {
            (Some(table), Some(spare)) => spare.mounts = Some(table),
            _ => {
                (wanted.possible, wanted.spare) = (false, None);
                self.containers.entry(key).and_modify(Container::end);
            }
        }
    }

    /// Gives back the addresses of spares: somebody asks for one by name.
    pub(super) fn free_addresses(&mut self) {
        let Some(spares) = &mut self.spares else { return };
        for spare in spares.wanted.iter_mut().filter_map(|wanted| wanted.spare.take()) {
            self.containers.entry(spare.key).and_modify(|container| {
                container.end();
                container.wire = Wire::default();
            });
        }
    }

    /// Ends all spares: the host is no longer as it was when they were made.
    pub(super) fn mounts_changed(&mut self) {
        let Some(spares) = &mut self.spares else { return };
        let stale: Vec<Spare> = spares.wanted.iter_mut().filter_map(|wanted| wanted.spare.take()).collect();
        self.discard(stale.into_iter());
    }

    fn discard(&mut self, spares: impl Iterator<Item = Spare>) {
        for spare in spares {
            self.containers.entry(spare.key).and_modify(Container::end);
        }
    }

    /// A spare that ended by itself is none any more.
    pub(super) fn forget_spare(&mut self, key: u64) {
        let Some(spares) = &mut self.spares else { return };
        for wanted in &mut spares.wanted {
            if wanted.spare.as_ref().is_some_and(|spare| spare.key == key) {
                // Until the kind is asked for twice again: what failed once would fail in a loop.
                (wanted.spare, wanted.again) = (None, false);
            }
        }
    }

    /// When something is to be done about spares: one is to be made, or is too old. `None` when nothing is.
    pub(super) fn spares_due(&self) -> Option<Instant> {
        let spares = self.spares.as_ref()?;
        let ends = spares.wanted.iter().map(|wanted| wanted.last + LIFE).min();
        if !spares.wanted.iter().any(Wanted::lacks_one) {
            return ends;
        }
        let ordered = self.containers.values().filter(|container| container.id.is_some());
        // The latest of all: a moment that is past already if none is young.
        ordered.map(|container| container.since + YOUNG).max().or_else(|| Some(Instant::now()))
    }

    /// Makes one spare that is wanted, and ends those that nobody asks for any more. For a moment without other events.
    pub(super) fn tend_spares(&mut self) {
        let now = Instant::now();
        let Some(spares) = &mut self.spares else { return };
        let old = |wanted: &Wanted| wanted.last + LIFE <= now;
        let forgotten: Vec<Spare> =
            spares.wanted.iter_mut().filter(|wanted| old(wanted)).filter_map(|wanted| wanted.spare.take()).collect();
        spares.wanted.retain(|wanted| !old(wanted));
        let missing = spares.wanted.iter().find(|wanted| wanted.lacks_one());
        let plan = missing.map(|wanted| wanted.plan.clone());
        self.discard(forgotten.into_iter());
        if let Some(plan) = plan {
            self.make_spare(plan);
        }
    }

    fn make_spare(&mut self, plan: Plan) {
        let paths = paths(&plan);
        let made = self.launch_ahead(plan.clone());
        let Some(spares) = &mut self.spares else { return };
        let Some(wanted) = spares.wanted.iter_mut().find(|wanted| wanted.plan.same_ground(&plan)) else { return };
        match made {
            Ok(key) => wanted.spare = Some(Spare { key, paths, mounts: None }),
            // Whoever asks is told why.
            Err(_) => wanted.again = false,
        }
    }
}
