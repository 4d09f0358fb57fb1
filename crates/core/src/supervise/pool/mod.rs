//! Prewarmed containers: while nothing else is to be done, the next container of a kind that is asked for again and again
//! is prepared up to its command, which is all that is left when the request comes.
//!
//! One is used only where that can't be told from a container made at the request: see [`possible`] for the plans, and
//! [`footing`] for what must not have changed since. A request may find its container still being prepared; it then waits
//! for the rest, and gets a container of its own if that comes to nothing.

pub mod footing;
mod image_names;
mod kind;

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nsrs_base::error::{At, Result};
use nsrs_base::sys::poll;
use rustix::event::{PollFd, PollFlags};
use rustix::thread::sched_getaffinity;

use self::footing::Footing;
pub use self::image_names::ImageNames;
use self::kind::PoolKind;
pub use self::kind::Prewarmed;
use super::resolve::Resolved;
use crate::plan::Plan;
use crate::plan::mount::MountSource;
use crate::plan::namespace::Kind;
use crate::plan::root::Root;
use crate::steps::intermediate;

/// Most kinds of containers that are remembered.
const MOST_KINDS: usize = 8;
/// So many of all kinds together are enough: beyond, a kind has one.
const MOST_PREWARMED: usize = 32;
/// A kind that is not asked for this long is forgotten, and its containers ended.
const LIFE: Duration = Duration::from_secs(60);
/// A container that was asked for this recently is still being made, or about to end; nothing is made beside it.
const YOUNG: Duration = Duration::from_millis(3);
/// Who asks within this time of the end of a container asks in a row.
const PROMPT: Duration = Duration::from_millis(1);
/// No container on an image of more layers is prewarmed: each layer that is held is a descriptor.
const MOST_LAYERS: usize = 64;

/// Can a container of this plan be made before it is asked for?
///
/// Not where it would hold what others may want meanwhile (an address by name, a port), where it joins what may be gone
/// by then, or where what it shows is looked up when it is made: on the host's tree, which secrets exist.
#[must_use]
pub fn possible(plan: &Plan) -> bool {
    let Plan { sandbox, process } = plan;
    let unseen = sandbox.changes.is_none();
    let namespaces = &sandbox.namespaces;
    let alone = namespaces.makes(Kind::Mount) && namespaces.makes(Kind::Pid) && !intermediate::is_needed(sandbox);
    let root = match &sandbox.root {
        Root::Directory { .. } => true,
        Root::Image(image) => image.layers.len() <= MOST_LAYERS,
        Root::Host(_) | Root::Shared => false,
    };
    let live = sandbox.mounts.iter().all(|mount| !matches!(mount.source, MountSource::Overlay { .. }));
    let network = sandbox.network.kind().can_be_prewarmed();
    unseen && alone && root && live && network && process.tty.is_none() && !process.args.is_empty()
}

/// The prewarmed containers of an engine, by number: the containers themselves are the engine's.
#[derive(Debug)]
pub struct Pool {
    kinds: Vec<PoolKind>,
    /// When a container that was asked for last ended.
    last_end: Option<Instant>,
    /// The kernel's word on the caller's mounts: it tells when they change.
    mounts: File,
    /// Where as many commands run as there are processors, one made beside them slows them all.
    processors: usize,
    /// Tells when names of images change, once there is a kind on an image.
    images: Option<ImageNames>,
}

impl Pool {
    /// An empty pool, which watches the mounts of the supervisor.
    ///
    /// # Errors
    /// /proc can't be read.
    pub fn open() -> Result<Pool> {
        let step = "watch the mounts";
        let mounts = File::open("/proc/self/mountinfo").at(step, "/proc/self/mountinfo")?;
        let processors = sched_getaffinity(None).map_or(1, |set| set.count() as usize);
        Ok(Pool { kinds: Vec::new(), last_end: None, mounts, processors, images: None })
    }

    /// Readable by `POLLPRI` when the caller's mounts change.
    #[must_use]
    pub fn mounts(&self) -> BorrowedFd<'_> {
        self.mounts.as_fd()
    }

    /// Have the caller's mounts changed since this was last asked, here or by the event loop?
    #[must_use]
    pub fn mounts_changed(&self) -> bool {
        poll::wait(&mut [PollFd::new(&self.mounts, PollFlags::PRI)], Some(Duration::ZERO)).unwrap_or(false)
    }

    /// Names of images are watched already.
    #[must_use]
    pub fn watches_images(&self) -> bool {
        self.images.is_some()
    }

    /// Keeps the watch on names of images.
    pub fn keep_watch(&mut self, names: ImageNames) {
        self.images = Some(names);
    }

    /// Notes that a container of this plan was asked for, and forgets the kind that was not for longest: returns its
    /// containers.
    pub fn note(&mut self, Resolved { plan, leases }: &Resolved) -> Vec<u32> {
        let promptly = self.last_end.is_some_and(|end| end.elapsed() < PROMPT);
        if let Some(kind) = self.kind(plan) {
            (kind.again, kind.promptly, kind.last) = (true, promptly, Instant::now());
            return Vec::new();
        }
        let oldest = (0..self.kinds.len()).min_by_key(|index| self.kinds[*index].last);
        let forgotten = oldest.filter(|_| self.kinds.len() == MOST_KINDS).map(|index| self.kinds.swap_remove(index));
        let mut of_all = Plan::clone(plan);
        of_all.process.timeout_ms = None;
        self.kinds.push(PoolKind::new(Rc::new(of_all), leases.clone(), promptly));
        forgotten.into_iter().flat_map(|mut kind| kind.take_all()).collect()
    }

    /// Takes the container that serves this plan best.
    pub fn take(&mut self, plan: &Plan) -> Option<Prewarmed> {
        self.kind(plan)?.take()
    }

    fn kind(&mut self, plan: &Plan) -> Option<&mut PoolKind> {
        self.kinds.iter_mut().find(|kind| kind.plan.serves(plan))
    }

    /// This very plan, if its kind has it: memory that lives as long as containers lie in it is copied with each new process.
    #[must_use]
    pub fn share(&mut self, plan: Rc<Plan>) -> Rc<Plan> {
        let of_kind = self.kind(&plan).map(|kind| &kind.plan).filter(|of_kind| of_kind.process == plan.process);
        of_kind.map_or(plan, Rc::clone)
    }

    /// A container of this kind that was prewarmed came to nothing while somebody waited for it: none is until it is
    /// asked for twice again.
    pub fn give_up_on(&mut self, plan: &Plan) {
        if let Some(kind) = self.kind(plan) {
            kind.again = false;
        }
    }

    /// Takes in a container that is being prepared; without one it could not be made, and whoever asks is told why.
    pub fn put(&mut self, plan: &Plan, footing: Footing, key: Option<u32>) {
        let Some(kind) = self.kind(plan) else { return };
        match key {
            Some(key) => kind.prewarmed.push(Prewarmed { key, footing, mounts: None }),
            None => kind.again = false,
        }
    }

    /// This container is one of the pool's.
    #[must_use]
    pub fn has(&self, key: u32) -> bool {
        self.kinds.iter().any(|kind| kind.prewarmed.iter().any(|prewarmed| prewarmed.key == key))
    }

    /// One of the pool's containers stands, with these mounts.
    pub fn stands(&mut self, key: u32, mounts: Vec<u8>) {
        let mut all = self.kinds.iter_mut().flat_map(|kind| &mut kind.prewarmed);
        if let Some(prewarmed) = all.find(|prewarmed| prewarmed.key == key) {
            prewarmed.mounts = Some(mounts);
        }
    }

    /// No container of this kind can be prewarmed.
    pub fn never(&mut self, plan: &Plan, key: u32) {
        if let Some(kind) = self.kind(plan) {
            kind.possible = false;
            kind.prewarmed.retain(|prewarmed| prewarmed.key != key);
        }
    }

    /// Forgets a container that ended by itself.
    pub fn forget(&mut self, key: u32, failed: bool) {
        for kind in &mut self.kinds {
            let before = kind.prewarmed.len();
            kind.prewarmed.retain(|prewarmed| prewarmed.key != key);
            // Until the kind is asked for twice again: what failed once would fail in a loop.
            let was_its = kind.prewarmed.len() < before;
            kind.again &= !was_its;
            // The overlay is refused, and what is done then instead isn't done before a request.
            kind.possible &= !(was_its && failed && matches!(kind.plan.sandbox.root, Root::Image(_)));
        }
    }

    /// A container that was asked for has ended.
    pub fn note_end(&mut self) {
        self.last_end = Some(Instant::now());
    }

    /// From when on nobody asks in a row.
    #[must_use]
    pub fn quiet(&self) -> Instant {
        self.last_end.map_or_else(Instant::now, |end| end + PROMPT)
    }

    /// Takes all containers: the host is no longer as it was when they were made.
    pub fn take_all(&mut self) -> Vec<u32> {
        self.kinds.iter_mut().flat_map(PoolKind::take_all).collect()
    }

    /// Takes the containers whose mounts are no longer as they were, and those that don't stand yet: these may have been
    /// made on what has come and gone since.
    pub fn take_stale(&mut self, table: Option<&[u8]>) -> Vec<u32> {
        let mut stale = Vec::new();
        for kind in &mut self.kinds {
            let now = table.map(|table| footing::mounts(&kind.plan, table));
            let holds =
                |prewarmed: &Prewarmed| prewarmed.mounts.is_some() && now.is_some() && prewarmed.footing.mounts == now;
            stale.extend(kind.prewarmed.extract_if(.., |prewarmed| !holds(prewarmed)).map(|prewarmed| prewarmed.key));
        }
        stale
    }

    /// Forgets the kinds on images: a name has changed, and layers that nobody names any more are to be let go of at once.
    /// Returns their containers, and the watch, which is made anew when it is needed: the store may be another by then.
    pub fn forget_images(&mut self) -> (Option<ImageNames>, Vec<u32>) {
        let on_images = |kind: &mut PoolKind| matches!(kind.plan.sandbox.root, Root::Image(_));
        let stale = self.kinds.extract_if(.., on_images).flat_map(|mut kind| kind.take_all()).collect();
        (self.images.take(), stale)
    }

    /// Forgets the kinds that nobody asks for any more, and returns their containers.
    pub fn take_expired(&mut self, now: Instant) -> Vec<u32> {
        let old = |kind: &mut PoolKind| kind.last + LIFE <= now;
        self.kinds.extract_if(.., old).flat_map(|mut kind| kind.take_all()).collect()
    }

    /// A kind that lacks a container.
    #[must_use]
    pub fn missing(&self) -> Option<Resolved> {
        let room = self.has_room();
        let now = self.kinds.iter().find(|kind| kind.lacks_one_now());
        let missing = now.or_else(|| self.kinds.iter().find(|kind| kind.lacks_one(room)))?;
        Some(Resolved { plan: missing.plan.clone(), leases: missing.leases.clone() })
    }

    /// May a kind have more than one?
    fn has_room(&self) -> bool {
        self.kinds.iter().map(|kind| kind.prewarmed.len()).sum::<usize>() < MOST_PREWARMED
    }

    /// When something is to be done: a container is to be made, or is too old. `None` when nothing is. `requested`: when the
    /// commands that run were asked for.
    pub fn due(&self, requested: impl Iterator<Item = Instant> + Clone) -> Option<Instant> {
        let ends = self.kinds.iter().map(|kind| kind.last + LIFE).min();
        let room = self.has_room();
        if !self.kinds.iter().any(|kind| kind.lacks_one(room)) {
            return ends;
        }
        if requested.clone().count() < self.processors && self.kinds.iter().any(PoolKind::lacks_one_now) {
            return Some(Instant::now());
        }
        // The latest of all: a moment that is past already if none is young.
        let young = requested.map(|since| since + YOUNG);
        young.chain(self.last_end.map(|end| end + PROMPT)).max().or_else(|| Some(Instant::now()))
    }
}
