//! A kind of container that was asked for, and the prewarmed ones of it.

use std::rc::Rc;
use std::time::Instant;

use super::footing::Footing;
use crate::plan::Plan;
use crate::supervise::images::Leases;

/// Most prewarmed containers of a kind.
const MOST_EACH: usize = 8;

/// A container without a command.
#[derive(Debug)]
pub struct Prewarmed {
    /// The engine's number for it.
    pub key: u32,
    /// What it was made on.
    pub footing: Footing,
    /// Its own mounts when it stood, as /proc/PID/mountinfo tells them; `None` until it stands.
    pub mounts: Option<Vec<u8>>,
}

/// A kind of container that was asked for.
#[derive(Debug)]
pub struct PoolKind {
    /// The plan of all of them, without a time limit.
    pub plan: Rc<Plan>,
    /// The layers of its image.
    pub leases: Leases,
    /// It was asked for more than once: likely it will be again.
    pub again: bool,
    /// It can be prewarmed, as far as is known.
    pub possible: bool,
    /// The last request came right after the end of a container.
    pub promptly: bool,
    /// When it was last asked for.
    pub last: Instant,
    /// So many are kept: one more than before whenever a request found none that stood.
    stock: usize,
    /// Those that were prepared, oldest first.
    pub prewarmed: Vec<Prewarmed>,
}

impl PoolKind {
    /// A kind that is asked for the first time.
    #[must_use]
    pub fn new(plan: Rc<Plan>, leases: Leases, promptly: bool) -> PoolKind {
        let (last, prewarmed) = (Instant::now(), Vec::new());
        PoolKind { plan, leases, again: false, possible: true, promptly, last, stock: 1, prewarmed }
    }

    /// One more is wanted; with `room` as many as its stock, else one.
    #[must_use]
    pub fn lacks_one(&self, room: bool) -> bool {
        let stock = if room { self.stock } else { 1 };
        self.again && self.possible && self.prewarmed.len() < stock
    }

    /// Who asks in a row and finds nothing does better with one prepared while the last command still runs, which slows that
    /// one; anybody else does worse.
    #[must_use]
    pub fn lacks_one_now(&self) -> bool {
        self.lacks_one(false) && self.promptly && self.prewarmed.is_empty()
    }

    /// The oldest that stands, or else the one that will first.
    pub fn take(&mut self) -> Option<Prewarmed> {
        let standing = self.prewarmed.iter().position(|prewarmed| prewarmed.mounts.is_some());
        if standing.is_none() && self.again {
            self.stock = MOST_EACH.min(self.stock + 1);
        }
        let index = standing.or((!self.prewarmed.is_empty()).then_some(0))?;
        Some(self.prewarmed.remove(index))
    }

    /// Takes every prewarmed container of this kind, and returns their numbers.
    pub fn take_all(&mut self) -> impl Iterator<Item = u32> + use<> {
        std::mem::take(&mut self.prewarmed).into_iter().map(|prewarmed| prewarmed.key)
    }
}
