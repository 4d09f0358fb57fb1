//! What will be done, fully resolved: no option is left open, nothing has been touched yet.
//!
//! A plan has two halves, as the OCI runtime specification has: the sandbox, and a process in it.
//!
//! [`resolve`] is pure: a [`Spec`] and the facts of the host go in, and a [`Plan`] or *every* problem comes out. The
//! supervisor walks the host's side of a plan, the container's first process walks the rest.

pub mod capability;
pub mod changes;
pub mod enter;
pub mod env;
pub mod explain;
pub mod hide;
pub mod idmap;
pub mod image;
pub mod limits;
pub mod mount;
pub mod namespace;
pub mod network;
pub mod process;
pub mod pseudo;
mod resolve;
pub mod root;
pub mod sandbox;
pub mod size;
pub mod sysctl;

use serde::{Deserialize, Serialize};

pub use resolve::resolve;

use self::process::Process;
use self::sandbox::Sandbox;
use nsrs_base::error::Error;

/// A container, resolved: what the supervisor and the container's first process will do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// What is made before a process can run in it.
    #[serde(flatten)]
    pub sandbox: Sandbox,
    /// The first process in it.
    pub process: Process,
}

impl Plan {
    /// Whether a container prewarmed for this plan can run the other: sandboxes are equal, and so is what of the process is
    /// done before it is known.
    #[must_use]
    pub fn serves(&self, other: &Plan) -> bool {
        let Plan { sandbox, process } = self;
        sandbox.serves(&other.sandbox) && process.prepares(&sandbox.root, &other.process)
    }
}

/// Collects every problem of a call, so that all are reported together.
#[derive(Debug, Default)]
pub struct Problems(Vec<Error>);

impl Problems {
    /// Keeps the error of a result and hands on its value.
    pub fn take<T>(&mut self, result: Result<T, Error>) -> Option<T> {
        result.map_err(|error| self.0.push(error)).ok()
    }

    /// As [`Problems::take`], with a stand-in that only keeps the resolution going to the next problem.
    pub fn or<T: Default>(&mut self, result: Result<T, Error>) -> T {
        self.take(result).unwrap_or_default()
    }

    /// The values of the results that are good.
    pub fn all<T>(&mut self, results: impl IntoIterator<Item = Result<T, Error>>) -> Vec<T> {
        results.into_iter().filter_map(|result| self.take(result)).collect()
    }

    /// Notes several problems, which are told in this order.
    pub fn extend(&mut self, errors: impl IntoIterator<Item = Error>) {
        self.0.extend(errors);
    }

    /// Notes a problem, behind those that are noted already.
    pub fn push(&mut self, error: Error) {
        self.0.push(error);
    }

    /// The value, if there was no problem at all.
    ///
    /// # Errors
    /// Every problem that was noted.
    pub fn finish<T>(self, value: T) -> Result<T, Vec<Error>> {
        if self.0.is_empty() { Ok(value) } else { Err(self.0) }
    }
}
