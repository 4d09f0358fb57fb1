//! The containers of one supervisor and the events that move them.
//!
//! Single-threaded: everything is told by readiness of descriptors in one epoll(7). What the outside is to hear is left
//! in [`Engine::take_events`]; who listens is not this module's business. How a container comes about is in `bring_up`,
//! what it tells and how it ends in `hear_out`.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::time::Instant;

use rustix::event::epoll;
use rustix::process::Pid;

use super::container::{Container, Leases};
use super::preflight;
use super::protocol::Event;
use super::spare::Spares;
use super::token::{Source, Token};
use crate::net::kinds::SharedNetwork;
use crate::net::transport::Netlink;
use crate::net::veth::unplug;
use crate::net::{bridge, link, nft};
use crate::plan::image::Upper;
use crate::plan::root::Root;
use crate::plan::{self, Plan};
use crate::spec::Spec;
use crate::state::journal::NetworkObject;
use crate::state::{self, journal};
use nsrs_base::error::{At, Error, Result};
use nsrs_base::host::Host;
use nsrs_base::host::tree::HostTree;
use nsrs_base::sys::seccomp;
use nsrs_base::sys::wait::reap;
use nsrs_store;
use nsrs_store::facts::ImageFacts;
use nsrs_store::identity;
use nsrs_store::memo::{Memo, Wish};
use nsrs_store::ready::{Ready, find_image};
use nsrs_store::writable::{self, Changes, remove_later};

/// Where a supervisor keeps its state, opened with its first container.
pub(super) struct Ground {
    pub(super) state: PathBuf,
    pub(super) journal: journal::Journal,
}

/// A container that is asked for.
pub struct Order<'a> {
    /// The caller's number for it.
    pub id: u64,
    /// What is wanted.
    pub spec: &'a Spec,
    /// Standard input, output and error; `None` hands on the supervisor's own.
    pub stdio: Option<[OwnedFd; 3]>,
    /// Descriptors for the plan's `preserve_fds`.
    pub fds: Vec<OwnedFd>,
    /// Tell when the command runs.
    pub announce: bool,
}

/// The containers of one supervisor.
pub struct Engine {
    pub(super) epoll: OwnedFd,
    pub(super) host: Host,
    pub(super) program: OwnedFd,
    pub(super) ground: Option<Ground>,
    pub(super) network: SharedNetwork,
    pub(super) containers: HashMap<u64, Container>,
    /// Containers by number of ours: the caller's numbers are theirs to choose.
    pub(super) next: u64,
    pub(super) events: Vec<(Event, Option<OwnedFd>)>,
    /// None where one order is all there is.
    pub(super) spares: Option<Spares>,
    /// Mount namespaces of containers that have ended. To let go of one takes the kernel a moment, which nobody waits for.
    pub(super) held: Vec<OwnedFd>,
    /// What containers on images have written that are over, still to be removed.
    pub(super) thrown: Vec<Changes>,
    /// Children that remove it.
    sweepers: Vec<Pid>,
    /// The layers that running containers hold, by the digest of their image.
    leases: HashMap<String, Weak<Vec<File>>>,
    /// Images that were found; only of one whose layers are still held it is certain that they are there.
    images: Memo<(ImageFacts, Weak<Vec<File>>)>,
}

/// A wish, resolved, with what must be held for it.
pub(super) struct Resolved {
    pub(super) plan: Rc<Plan>,
    pub(super) leases: Leases,
}

/// Most of them that wait for a quiet moment.
const MOST_HELD: usize = 8;

impl Engine {
    /// An engine without containers.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn new(program: OwnedFd) -> Result<Engine> {
        let host = Host::probe();
        if host.privileged {
            // Once, for all containers: a filter is inherited, and nothing here needs what it refuses. Without the right
            // to, each container installs its own: no_new_privs on the supervisor would disarm newuidmap.
            seccomp::install().at("install the system call filter", "")?;
        }
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).at("make the event loop", "")?;
        Ok(Engine {
            epoll,
            host,
            program,
            ground: None,
            network: SharedNetwork::default(),
            containers: HashMap::new(),
            next: 1,
            events: Vec::new(),
            spares: None,
            held: Vec::new(),
            thrown: Vec::new(),
            sweepers: Vec::new(),
            leases: HashMap::new(),
            images: Memo::empty(),
        })
    }

    /// Watches a descriptor of the front end.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn watch(&self, fd: impl AsFd, token: Token, flags: epoll::EventFlags) -> Result<()> {
        epoll::add(&self.epoll, fd, token.data(), flags).at("watch a file descriptor", "")
    }

    /// Changes what a watched descriptor is watched for.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn rewatch(&self, fd: impl AsFd, token: Token, flags: epoll::EventFlags) -> Result<()> {
        epoll::modify(&self.epoll, fd, token.data(), flags).at("watch a file descriptor", "")
    }

    /// Stops watching a descriptor, which to close is not enough: processes that are just being made have copies, and epoll
    /// tells of what is watched until the last of them is closed.
    pub fn unwatch(&self, fd: impl AsFd) {
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Waits for something to happen, containers' time limits included, and returns what is ready.
    ///
    /// # Errors
    /// Those of epoll_wait(2).
    pub fn wait(&mut self) -> Result<Vec<Token>> {
        let mut ready: Vec<epoll::Event> = Vec::with_capacity(64);
        let deadlines = self.containers.values().filter_map(Container::deadline);
        let spares_due = self.spares_due();
        self.sweepers.retain(|child| matches!(reap(*child), Ok(None)));
        let held_due = (!self.held.is_empty()).then(Instant::now);
        let sweep_due = (!self.thrown.is_empty()).then(|| self.quiet());
        let timeout = deadlines.chain(spares_due).chain(held_due).chain(sweep_due).min().map(|deadline| {
            // epoll counts in milliseconds, and a fraction cut off would be waited for in a spin.
            let left = deadline.saturating_duration_since(Instant::now()).as_nanos().div_ceil(1_000_000) as i64;
            rustix::event::Timespec { tv_sec: left / 1000, tv_nsec: left % 1000 * 1_000_000 }
        });
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut ready), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno).at("wait for events", ""),
        }
        self.enforce_deadlines();
        if ready.is_empty() || self.held.len() > MOST_HELD {
            self.held.clear();
        }
        let is_quiet = ready.is_empty() && sweep_due.is_some_and(|due| due <= Instant::now());
        if is_quiet || self.thrown.len() > MOST_HELD {
            self.sweep();
        }
        if ready.is_empty() && spares_due.is_some_and(|due| due <= Instant::now()) {
            self.tend_spares();
        }
        let mut tokens: Vec<Token> = ready.iter().map(|event| Token::from_data(event.data)).collect();
        if tokens.contains(&Token::MOUNTS) {
            self.mounts_changed();
            tokens.retain(|token| *token != Token::MOUNTS);
        }
        if tokens.contains(&Token::IMAGES) {
            self.images_changed();
            tokens.retain(|token| *token != Token::IMAGES);
        }
        Ok(tokens)
    }

    /// What the outside is to hear, oldest first, with descriptors that go along.
    pub fn take_events(&mut self) -> Vec<(Event, Option<OwnedFd>)> {
        std::mem::take(&mut self.events)
    }

    /// No container is left.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.containers.is_empty()
    }

    /// Resolves a wish against this host.
    ///
    /// # Errors
    /// Every problem of the call.
    pub(super) fn resolve(&mut self, spec: &Spec) -> Result<Resolved, Vec<Error>> {
        let tree = if spec.is_on_host_tree() { HostTree::read() } else { HostTree::default() };
        let (image, missing) = match self.find_image(spec) {
            Ok(image) => (image, None),
            Err(error) => (None, Some(error)),
        };
        let facts = image.as_ref().map(|(facts, _)| facts);
        self.look_for_a_route(spec);
        let (plan, mut problems) = plan::resolve(spec, &self.host, &tree, facts);
        problems.extend(missing);
        problems.extend(preflight::check(&plan.sandbox));
        problems.extend(plan.sandbox.network.kind().check(&state::directory(&self.host)));
        let plan = Rc::new(problems.finish(plan)?);
        Ok(Resolved { plan, leases: image.map(|(_, leases)| leases).unwrap_or_default() })
    }

    /// The one fact of the host that may well change while a process lives. Where the kernel doesn't tell, pasta shall.
    fn look_for_a_route(&mut self, spec: &Spec) {
        if self.host.pasta.is_some() && spec.network.is_none() {
            let found = Netlink::route().and_then(|mut netlink| link::leads_outside(&mut netlink));
            self.host.leads_outside = found.unwrap_or(true);
        }
    }

    /// Finds the image that a container is to run on, if it is to run on one, and holds its layers.
    fn find_image(&mut self, spec: &Spec) -> Result<Option<(ImageFacts, Leases)>> {
        let Some(image) = &spec.image else { return Ok(None) };
        let platform = spec.platform.as_deref();
        let wish = Wish::of(image, platform, &self.host)?;
        if let Some((facts, leases)) = self.images.get(&wish)
            && let Some(leases) = leases.upgrade()
        {
            return Ok(Some((facts.clone(), leases)));
        }
        let Ready { facts, leases } = find_image(image, platform, &self.host)?;
        let leases = self.share(&facts, leases);
        self.images.put(wish, (facts.clone(), Leases::downgrade(&leases)));
        Ok(Some((facts, leases)))
    }

    /// Of an image whose layers are held already, they are not held twice: there may be many containers, and descriptors
    /// are few.
    fn share(&mut self, facts: &ImageFacts, leases: Vec<File>) -> Leases {
        self.leases.retain(|_, leases| leases.strong_count() > 0);
        if let Some(held) = self.leases.get(&facts.digest).and_then(Weak::upgrade) {
            return held;
        }
        let leases = Leases::new(leases);
        self.leases.insert(facts.digest.clone(), Leases::downgrade(&leases));
        leases
    }

    /// Has what containers have left be removed.
    pub fn sweep(&mut self) {
        let children = remove_later(std::mem::take(&mut self.thrown));
        self.sweepers.extend(children);
    }

    /// Starts a container. Whatever comes of it is told in events.
    pub fn start(&mut self, order: Order<'_>) {
        let (id, since) = (order.id, Instant::now());
        let launched = self.resolve(order.spec).and_then(|resolved| match self.find_spare(&order, &resolved) {
            Some(spare) => {
                self.adopt(spare, order, resolved.plan, since);
                Ok(())
            }
            None => self.launch(order, resolved, since).map_err(Vec::from),
        });
        if let Err(errors) = launched {
            self.events.push((Event::Failed { id, errors }, None));
        }
    }

    /// Tells that a request came to nothing.
    pub fn fail(&mut self, id: u64, error: Error) {
        self.events.push((Event::Failed { id, errors: vec![error] }, None));
    }

    /// Resolves a plan and tells it.
    pub fn explain(&mut self, id: u64, spec: &Spec) {
        let event = match self.resolve(spec) {
            Ok(Resolved { plan, .. }) => Event::Explained { id, plan: Box::new(Rc::unwrap_or_clone(plan)) },
            Err(errors) => Event::Failed { id, errors },
        };
        self.events.push((event, None));
    }

    /// Examines the host and tells the findings.
    pub fn examine(&mut self, id: u64) {
        // What a killed one left is no finding. Where it can't be collected, the next start says why.
        if self.ground.is_none()
            && state::directory(&self.host).exists()
            && let Ok(state) = state::open(&self.host)
        {
            let _ = self.collect(&state);
        }
        let findings = crate::doctor::examine(&self.host);
        self.events.push((Event::Examined { id, findings }, None));
    }

    /// Handles a ready descriptor of a container.
    pub fn handle(&mut self, key: u64, source: Source) {
        match source {
            // What is ready may have been read meanwhile, and another read would wait.
            Source::Channel => self.drain(key),
            Source::First => self.reap_first(key),
            Source::Stage => self.reap_stage(key),
            Source::NetworkReady => self.network_ready(key),
            Source::NetworkEnded => self.network_ended(key),
            Source::Listed => self.listed(key),
        }
        self.finish_if_over(key);
    }

    /// Sends a signal to a container's command.
    pub fn kill(&mut self, id: u64, signal: i32) {
        self.signal(id, |container| container.signal(signal));
    }

    /// Asks a container's command to end, by the signal that is meant for that.
    pub fn stop(&mut self, id: u64) {
        self.signal(id, |container| container.signal(container.plan.sandbox.root.stop_signal()));
    }

    /// Sends a signal to a container's command and all others of its process group.
    pub fn kill_group(&mut self, id: u64, signal: i32) {
        self.signal(id, |container| container.signal_group(signal));
    }

    /// A key of a container's terminal that stands for a signal was typed. The terminal gives it to its foreground group;
    /// where that is the one of a PID 1 without a handler, which the kernel keeps it from, it is given in the kernel's
    /// place. Returns whether it was.
    pub fn key(&mut self, id: u64, signal: i32, foreground: Option<Pid>) -> bool {
        let mut given = false;
        self.signal(id, |container| given = container.signal_by_key(signal, foreground));
        given
    }

    fn signal(&mut self, id: u64, send: impl FnOnce(&mut Container)) {
        let key = self.containers.iter().find(|(_, container)| container.id == Some(id)).map(|(key, _)| *key);
        let Some(key) = key else { return };
        // How a container is ended depends on how far it has come.
        self.drain(key);
        if let Some(container) = self.containers.get_mut(&key) {
            send(container);
        }
    }

    /// Ends every container, and makes none ahead any more.
    pub fn kill_all(&mut self) {
        self.spares = None;
        let keys: Vec<u64> = self.containers.keys().copied().collect();
        for key in keys {
            self.drain(key);
            self.containers.entry(key).and_modify(Container::end);
        }
    }

    fn enforce_deadlines(&mut self) {
        let now = Instant::now();
        let late = |container: &Container| container.deadline().is_some_and(|deadline| deadline <= now);
        let keys: Vec<u64> =
            self.containers.iter().filter(|(_, container)| late(container)).map(|(key, _)| *key).collect();
        for key in keys {
            self.drain(key);
            if let Some(container) = self.containers.get_mut(&key) {
                container.timed_out = true;
                container.end();
            }
        }
    }

    /// The state directory and the journal; what dead supervisors left is collected on the way.
    pub(super) fn ground(&mut self) -> Result<&mut Ground> {
        if self.ground.is_none() {
            let state = state::open(&self.host)?;
            self.collect(&state)?;
            let journal = journal::Journal::open(&state)?;
            self.ground = Some(Ground { state, journal });
        }
        self.ground.as_mut().ok_or_else(|| Error::os("open the state directory", "", libc::ENOENT))
    }

    /// Ends and removes what dead supervisors left. Not beside a journal of our own, whose lock would tell us nothing.
    fn collect(&mut self, state: &Path) -> Result<()> {
        journal::collect(state, |object| match object {
            NetworkObject::Link(name) => unplug(&mut Netlink::route()?, name),
            NetworkObject::Table(name) => nft::remove(name),
        })?;
        if self.host.net_admin {
            bridge::collect(state)?;
        }
        // Where there is no store nothing is left in it.
        if let Ok(identity) = identity::outside(&self.host) {
            self.sweepers.extend(writable::collect(&identity.directory, &self.host)?);
        }
        Ok(())
    }

    /// The directory for what a container changes of its image.
    pub(super) fn make_changes(&mut self, root: &Root, key: u64) -> Result<Option<Changes>> {
        let Root::Image(image) = root else { return Ok(None) };
        if image.upper == Upper::Memory {
            return Ok(None);
        }
        let id = format!("{}-{key}", self.ground()?.journal.name());
        Changes::make(Path::new(&image.store), &id).map(Some)
    }

    pub(super) fn strike(&mut self, slot: Option<journal::EntryId>) {
        if let (Some(ground), Some(slot)) = (&mut self.ground, slot) {
            ground.journal.strike(slot);
        }
    }

    /// Lets go of the mounts of containers that have ended, and with them of the file systems these are of.
    pub fn let_go(&mut self) {
        self.held.clear();
    }

    /// There is something of the host's to give back, which takes a moment.
    #[must_use]
    pub fn holds_network(&self) -> bool {
        self.network.is_used()
    }

    /// Gives back what containers shared, when the last of them is gone.
    ///
    /// # Errors
    /// The kernel refuses to remove the bridge.
    pub fn release(&mut self) -> Result<()> {
        self.network.release()
    }
}
