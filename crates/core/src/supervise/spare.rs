//! Containers made ahead: while nothing else is to be done, the next container of a kind that is asked for again and
//! again is prepared up to its command, which is all that is left when the order comes.
//!
//! A spare is used only where that can't be told from a container made at the order: see [`possible`] for the plans and
//! [`Engine::find_spare`] for what must not have changed since. An order may find its spare still being made; it then
//! waits for the rest, and gets a container of its own if that comes to nothing.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::thread::sched_getaffinity;

use super::container::{Container, Leases};
use super::engine::{Engine, Order, Resolved};
use super::ground::{self, Ground, mount_table, mount_table_of, places};
use super::image_names::ImageNames;
use super::name_files;
use super::token::Token;
use crate::net::kinds::Attachment;
use crate::plan::Plan;
use crate::plan::mount::Source;
use crate::plan::namespace::Kind;
use crate::plan::root::Root;
use crate::steps::channel::ToChild;
use crate::steps::stage;
use nsrs_base::error::{At, Result};
use nsrs_base::sys::message::MOST_FDS;

/// Most kinds of containers that are remembered.
const MOST_KINDS: usize = 8;
/// Most spares of a kind.
const MOST_EACH: usize = 8;
/// So many spares of all kinds together are enough: beyond, a kind has one.
const MOST_SPARES: usize = 32;
/// A kind that is not asked for this long is forgotten, and its spares ended.
const LIFE: Duration = Duration::from_secs(60);
/// A container that was asked for this recently is still being made, or about to end; nothing is made beside it.
const YOUNG: Duration = Duration::from_millis(3);
/// Who orders within this time of the end of a container orders in a row.
const PROMPT: Duration = Duration::from_millis(1);
/// Images of more layers are not made ahead on: each layer that is held is a descriptor.
const MOST_LAYERS: usize = 64;

/// A kind of container that was asked for.
#[derive(Debug)]
struct Wanted {
    plan: Rc<Plan>,
    /// The layers of its image.
    leases: Leases,
    /// It was asked for more than once: likely it will be again.
    again: bool,
    /// It can be made ahead, as far as is known.
    possible: bool,
    /// The last order came right after the end of a container.
    promptly: bool,
    last: Instant,
    /// So many are kept: one more than before whenever an order found none that stood.
    stock: usize,
    spares: Vec<Spare>,
}

impl Wanted {
    fn new(plan: Rc<Plan>, leases: Leases, promptly: bool) -> Wanted {
        let (last, spares) = (Instant::now(), Vec::new());
        Wanted { plan, leases, again: false, possible: true, promptly, last, stock: 1, spares }
    }

    fn lacks_one(&self, room: bool) -> bool {
        let stock = if room { self.stock } else { 1 };
        self.again && self.possible && self.spares.len() < stock
    }

    /// Who orders in a row and finds nothing does better with a spare made while the last command still runs, which slows
    /// that one; anybody else does worse.
    fn lacks_one_now(&self) -> bool {
        self.lacks_one(false) && self.promptly && self.spares.is_empty()
    }

    /// The oldest that stands, or else the one that will first.
    fn take(&mut self) -> Option<Spare> {
        let standing = self.spares.iter().position(|spare| spare.mounts.is_some());
        if standing.is_none() && self.again {
            self.stock = MOST_EACH.min(self.stock + 1);
        }
        let index = standing.or((!self.spares.is_empty()).then_some(0))?;
        Some(self.spares.remove(index))
    }
}

/// A container without a command.
#[derive(Debug)]
struct Spare {
    key: u64,
    /// What it was made on.
    ground: Ground,
    /// Its own mounts when it stood, as /proc/PID/mountinfo tells them.
    mounts: Option<String>,
}

/// What an order brings for a container that doesn't stand yet.
#[derive(Debug)]
pub struct Waiting {
    plan: Rc<Plan>,
    stdio: [OwnedFd; 3],
    fds: Vec<OwnedFd>,
}

/// The spares of an engine.
#[derive(Debug)]
pub(super) struct Spares {
    wanted: Vec<Wanted>,
    /// When a container that was asked for last ended.
    last_end: Option<Instant>,
    /// The kernel's word on the caller's mounts: it tells when they change.
    mounts: File,
    /// Where as many containers run as there are processors, one made beside them slows them all.
    processors: usize,
    /// Tells when names of images change, once there is a kind on an image.
    images: Option<ImageNames>,
}

/// Can a container of this plan be made before it is asked for?
///
/// Not where it would hold what others may want meanwhile (an address by name, a port), where it joins what may be gone
/// by then, or where what it shows is looked up when it is made: on the host's tree, which secrets exist.
fn possible(plan: &Plan) -> bool {
    let Plan { sandbox, process } = plan;
    let unseen = sandbox.changes.is_none();
    let alone = sandbox.namespaces.makes(Kind::Mount) && sandbox.namespaces.makes(Kind::Pid) && !stage::needed(sandbox);
    let root = match &sandbox.root {
        Root::Directory { .. } => true,
        Root::Image(image) => image.layers.len() <= MOST_LAYERS,
        Root::Host(_) | Root::Shared => false,
    };
    let live = sandbox.mounts.iter().all(|mount| !matches!(mount.source, Source::Overlay { .. }));
    let network = sandbox.network.kind().can_be_prewarmed();
    unseen && alone && root && live && network && process.tty.is_none()
}

impl Spares {
    fn open() -> Result<Spares> {
        let step = "watch the mounts";
        let mounts = File::open("/proc/self/mountinfo").at(step, "/proc/self/mountinfo")?;
        let processors = sched_getaffinity(None).map_or(1, |set| set.count() as usize);
        Ok(Spares { wanted: Vec::new(), last_end: None, mounts, processors, images: None })
    }

    /// Have the caller's mounts changed since this was last asked, here or by the event loop?
    fn mounts_changed(&self) -> bool {
        let mut fds = [PollFd::new(&self.mounts, PollFlags::PRI)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
    }

    /// Notes that a container of this plan was asked for, and forgets the kind that was not for longest.
    fn note(&mut self, Resolved { plan, leases }: &Resolved) -> Vec<Spare> {
        let promptly = self.last_end.is_some_and(|end| end.elapsed() < PROMPT);
        if let Some(wanted) = self.kind(plan) {
            (wanted.again, wanted.promptly, wanted.last) = (true, promptly, Instant::now());
            return Vec::new();
        }
        let oldest = (0..self.wanted.len()).min_by_key(|index| self.wanted[*index].last);
        let forgotten = oldest.filter(|_| self.wanted.len() == MOST_KINDS).map(|index| self.wanted.swap_remove(index));
        let mut of_all = Plan::clone(plan);
        of_all.process.timeout_ms = None;
        self.wanted.push(Wanted::new(Rc::new(of_all), leases.clone(), promptly));
        forgotten.map(|wanted| wanted.spares).unwrap_or_default()
    }

    /// May a kind have more than one?
    fn have_room(&self) -> bool {
        self.wanted.iter().map(|wanted| wanted.spares.len()).sum::<usize>() < MOST_SPARES
    }

    /// The kind of containers that this plan is of.
    fn kind(&mut self, plan: &Plan) -> Option<&mut Wanted> {
        self.wanted.iter_mut().find(|wanted| wanted.plan.serves(plan))
    }

    /// The plan of the kind that this one is of.
    pub(super) fn plan_of_kind(&mut self, plan: &Plan) -> Option<Rc<Plan>> {
        self.kind(plan).map(|kind| Rc::clone(&kind.plan))
    }

    /// A container that was asked for has ended.
    pub(super) fn note_end(&mut self) {
        self.last_end = Some(Instant::now());
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

    /// Takes the spare that serves an order, if there is one, and returns our number for it.
    pub(super) fn find_spare(&mut self, order: &Order<'_>, resolved: &Resolved) -> Option<u64> {
        let plan = &resolved.plan;
        let spares = self.spares.as_mut().filter(|_| possible(plan))?;
        if let Root::Image(image) = &plan.sandbox.root
            && spares.images.is_none()
        {
            let names = ImageNames::watch(&image.store)?;
            epoll::add(&self.epoll, &names, Token::IMAGES.data(), epoll::EventFlags::IN).ok()?;
            spares.images = Some(names);
        }
        if spares.mounts_changed() {
            self.mounts_changed();
        }
        if !plan.sandbox.network.kind().still_stands(&mut self.network) {
            self.discard_all();
        }
        let spares = self.spares.as_mut()?;
        let found = spares.kind(plan).and_then(Wanted::take);
        let forgotten = spares.note(resolved);
        self.discard(forgotten.into_iter());
        let spare = found?;
        let fits = order.stdio.as_ref().is_some_and(|stdio| stdio.len() + order.fds.len() <= MOST_FDS);
        if fits && self.serves(&spare, plan) {
            return Some(spare.key);
        }
        self.discard([spare].into_iter());
        None
    }

    /// Is the spare what would be made now?
    fn serves(&self, spare: &Spare, plan: &Plan) -> bool {
        let Some(container) = self.containers.get(&spare.key) else { return false };
        let Some(first) = container.first.as_ref().filter(|_| container.failure.is_none()) else { return false };
        // Of one that is still being made it is looked at when it stands.
        let mounts = spare.mounts.is_none() || spare.mounts == mount_table_of(first.pid);
        mounts
            && spare.ground.files == ground::files(&plan.sandbox)
            && name_files::text(&plan.sandbox, &container.attachment.addresses)
                .is_ok_and(|files| files == container.name_files)
    }

    /// The spare is the container that was asked for from now on.
    pub(super) fn adopt(&mut self, key: u64, order: Order<'_>, plan: Rc<Plan>, since: Instant) {
        let Some(container) = self.containers.get_mut(&key) else { return };
        container.id = Some(order.id);
        container.announce = order.announce;
        container.timeout_ms = plan.process.timeout_ms;
        container.since = since;
        container.waiting = order.stdio.map(|stdio| Waiting { plan, stdio, fds: order.fds });
        if container.stands {
            self.hand_over(key);
        }
    }

    /// Gives a container that stands the command that waits for it.
    fn hand_over(&mut self, key: u64) {
        let Some(container) = self.containers.get_mut(&key) else { return };
        let (Some(waiting), Some(channel)) = (container.waiting.take(), &container.channel) else { return };
        let fds: Vec<_> = waiting.stdio.iter().chain(&waiting.fds).map(AsFd::as_fd).collect();
        if channel.send(&ToChild::Process(Box::new(waiting.plan.process.clone())), &fds).is_err() {
            container.waiting = Some(waiting);
            return container.take_down();
        }
        if let (false, Some(channel)) = (container.is_heard(), &container.channel) {
            let _ = epoll::delete(&self.epoll, channel);
        }
    }

    /// A container made ahead stands. If a name that something is mounted on led through a link, it could lead elsewhere at
    /// the order: no container of that kind is made ahead again.
    pub(super) fn spare_stands(&mut self, key: u64) {
        if self.spares.as_ref().is_some_and(Spares::mounts_changed) {
            self.mounts_changed();
        }
        let Some(container) = self.containers.get_mut(&key) else { return };
        let kind = self.spares.as_mut().and_then(|spares| spares.kind(&container.plan));
        let is_spare = kind.is_some_and(|kind| kind.spares.iter().any(|spare| spare.key == key));
        if !is_spare && container.waiting.is_none() {
            // Given up meanwhile.
            return;
        }
        let table = container.first.as_ref().and_then(|first| mount_table_of(first.pid)).filter(|table| {
            let points: Vec<&str> = table.lines().filter_map(|line| line.split(' ').nth(4)).collect();
            places(&container.plan.sandbox, &container.name_files).iter().all(|place| points.contains(&place.as_str()))
        });
        container.stands = true;
        let kind = self.spares.as_mut().and_then(|spares| spares.kind(&container.plan));
        match (table, container.waiting.is_some()) {
            (Some(_), true) => self.hand_over(key),
            (Some(table), false) => {
                let mut spares = kind.into_iter().flat_map(|kind| &mut kind.spares);
                if let Some(spare) = spares.find(|spare| spare.key == key) {
                    spare.mounts = Some(table);
                }
            }
            (None, _) => {
                if let Some(kind) = kind {
                    kind.possible = false;
                    kind.spares.retain(|spare| spare.key != key);
                }
                container.take_down();
            }
        }
    }

    /// A container that an order waited for was none: it is made anew.
    pub(super) fn launch_anew(&mut self, container: Container) {
        let Container { id: Some(id), waiting: Some(waiting), leases, announce, since, .. } = container else {
            return;
        };
        let Waiting { plan, stdio, fds } = waiting;
        if let Some(kind) = self.spares.as_mut().and_then(|spares| spares.kind(&plan)) {
            kind.again = false;
        }
        if let Err(error) = self.make(Some(id), Some(stdio), fds, announce, Resolved { plan, leases }, since) {
            self.fail(id, error);
        }
    }

    /// Gives back the addresses of spares: somebody asks for one by name.
    pub(super) fn free_addresses(&mut self) {
        let Some(spares) = &mut self.spares else { return };
        for spare in spares.wanted.iter_mut().flat_map(|wanted| std::mem::take(&mut wanted.spares)) {
            self.containers.entry(spare.key).and_modify(|container| {
                container.end();
                container.attachment = Attachment::default();
            });
        }
    }

    /// Ends the spares whose mounts are no longer as they were, and those that don't stand yet: these may have been made
    /// on what has come and gone since.
    pub(super) fn mounts_changed(&mut self) {
        let Some(spares) = &mut self.spares else { return };
        let table = mount_table("self");
        let mut stale = Vec::new();
        for wanted in &mut spares.wanted {
            let now = table.as_ref().map(|table| ground::mounts(&wanted.plan.sandbox, table));
            let holds = |spare: &Spare| spare.mounts.is_some() && now.is_some() && spare.ground.mounts == now;
            stale.extend(wanted.spares.extract_if(.., |spare| !holds(spare)));
        }
        self.discard(stale.into_iter());
    }

    /// Ends the spares on images, and forgets these kinds: a name has changed. Layers that nobody names any more are to be
    /// let go of at once.
    pub(super) fn images_changed(&mut self) {
        let Some(spares) = &mut self.spares else { return };
        // Watched anew when it is needed again: the store as such may be another by then.
        if let Some(names) = spares.images.take() {
            let _ = epoll::delete(&self.epoll, &names);
        }
        let on_images = |wanted: &mut Wanted| matches!(wanted.plan.sandbox.root, Root::Image(_));
        let stale: Vec<Spare> = spares.wanted.extract_if(.., on_images).flat_map(|wanted| wanted.spares).collect();
        self.discard(stale.into_iter());
    }

    /// Ends all spares: the host is no longer as it was when they were made.
    fn discard_all(&mut self) {
        let Some(spares) = &mut self.spares else { return };
        let stale: Vec<Spare> = spares.wanted.iter_mut().flat_map(|wanted| wanted.spares.drain(..)).collect();
        self.discard(stale.into_iter());
    }

    fn discard(&mut self, spares: impl Iterator<Item = Spare>) {
        for spare in spares {
            self.containers.entry(spare.key).and_modify(Container::end);
        }
    }

    /// A spare that ended by itself is none any more.
    pub(super) fn forget_spare(&mut self, key: u64, failed: bool) {
        let Some(spares) = &mut self.spares else { return };
        for wanted in &mut spares.wanted {
            let before = wanted.spares.len();
            wanted.spares.retain(|spare| spare.key != key);
            // Until the kind is asked for twice again: what failed once would fail in a loop.
            let was_its = wanted.spares.len() < before;
            wanted.again &= !was_its;
            // The overlay is refused, and what is done then instead isn't done ahead.
            wanted.possible &= !(was_its && failed && matches!(wanted.plan.sandbox.root, Root::Image(_)));
        }
    }

    /// From when on nobody orders in a row.
    pub(super) fn quiet(&self) -> Instant {
        let last = self.spares.as_ref().and_then(|spares| spares.last_end);
        last.map_or_else(Instant::now, |end| end + PROMPT)
    }

    /// When something is to be done about spares: one is to be made, or is too old. `None` when nothing is.
    pub(super) fn spares_due(&self) -> Option<Instant> {
        let spares = self.spares.as_ref()?;
        let ends = spares.wanted.iter().map(|wanted| wanted.last + LIFE).min();
        let room = spares.have_room();
        if !spares.wanted.iter().any(|wanted| wanted.lacks_one(room)) {
            return ends;
        }
        let ordered = self.containers.values().filter(|container| container.id.is_some());
        if ordered.clone().count() < spares.processors && spares.wanted.iter().any(Wanted::lacks_one_now) {
            return Some(Instant::now());
        }
        // The latest of all: a moment that is past already if none is young.
        let young = ordered.map(|container| container.since + YOUNG);
        young.chain(spares.last_end.map(|end| end + PROMPT)).max().or_else(|| Some(Instant::now()))
    }

    /// Makes one spare that is wanted, and ends those that nobody asks for any more. For a moment without other events.
    pub(super) fn tend_spares(&mut self) {
        let now = Instant::now();
        let Some(spares) = &mut self.spares else { return };
        let old = |wanted: &Wanted| wanted.last + LIFE <= now;
        let forgotten: Vec<Spare> =
            spares.wanted.extract_if(.., |wanted| old(wanted)).flat_map(|wanted| wanted.spares).collect();
        let room = spares.have_room();
        let missing = spares.wanted.iter().find(|wanted| wanted.lacks_one_now());
        let missing = missing.or_else(|| spares.wanted.iter().find(|wanted| wanted.lacks_one(room)));
        let missing = missing.map(|wanted| Resolved { plan: wanted.plan.clone(), leases: wanted.leases.clone() });
        self.discard(forgotten.into_iter());
        if let Some(resolved) = missing {
            self.make_spare(resolved);
        }
    }

    fn make_spare(&mut self, resolved: Resolved) {
        let plan = resolved.plan.clone();
        let ground = Ground::of(&plan.sandbox);
        let made = self.launch_ahead(resolved);
        let Some(wanted) = self.spares.as_mut().and_then(|spares| spares.kind(&plan)) else { return };
        match made {
            Ok(key) => wanted.spares.push(Spare { key, ground, mounts: None }),
            // Whoever asks is told why.
            Err(_) => wanted.again = false,
        }
    }
}
