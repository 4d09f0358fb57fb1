//! Starting further processes in a running container.
//!
//! Everything in the container may be hostile, and lie in wait for whoever enters: with `CAP_SYS_PTRACE` in the initial user
//! namespace no flag of a process keeps others out of its memory and its descriptors (ptrace(2), pidfd_getfd(2)). So who
//! enters has nothing that would be worth taking by the time at which it can be seen. Three processes stand one behind the
//! other, all of them children of the supervisor:
//!
//! 1. **The entrance** ([`start`], [`serve`]): one for each supervisor, outside of every container. It is executed afresh, so
//!    its memory holds nothing of the supervisor's. It is told nothing of any container, and holds its own channel alone.
//! 2. **The intermediate process** (`intermediate`): one for each process that enters, made before it. It is told which
//!    container it is for, enters its namespaces, and waits for the process. Where the container has a PID namespace of its
//!    own, nobody inside can see it: setns(2) puts only its children in there.
//! 3. **The process** itself, which the intermediate process makes in the PID namespace as the last thing it does.
//!
//! What must not be seen is done by the second, before it makes the third; what belongs to a process alone is done by the third.
//! The order and its reasons stand there.

mod entrance;
mod intermediate;

use serde::{Deserialize, Serialize};

use super::complete::Surroundings;
use crate::plan::Plan;
use crate::plan::namespace::Kind;

pub use entrance::{EntranceProcess, serve, start};
pub use intermediate::container_has_ended;

/// What an intermediate process is told of the container that it enters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// The namespaces that are entered.
    pub namespaces: Vec<Kind>,
    /// Its processes need an init of ours: the kernel doesn't end them with the container, whose PID namespace isn't its own.
    pub init: bool,
    /// Out-of-memory score of the container's first process; `None` keeps the supervisor's.
    pub oom_score_adj: Option<i32>,
    /// The user namespace, capabilities and system call filter that limit its processes.
    pub surroundings: Surroundings,
}

impl Destination {
    /// The container of this plan. `filtered`: the supervisor has installed the system call filter for itself.
    #[must_use]
    pub fn of(plan: &Plan, filtered: bool) -> Destination {
        let Plan { sandbox, process } = plan;
        let is_entered = |kind: &Kind| sandbox.namespaces.makes(*kind) || sandbox.namespaces.joins(*kind);
        Destination {
            namespaces: Kind::ALL.into_iter().filter(is_entered).collect(),
            init: !sandbox.namespaces.makes(Kind::Pid),
            oom_score_adj: process.resources.oom_score_adj,
            surroundings: Surroundings::of(sandbox, &process.rights, filtered),
        }
    }
}
