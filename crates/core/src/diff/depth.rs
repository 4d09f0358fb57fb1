//! How deep trees may be nested: every directory on the way to an entry is held open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How many directories an entry may be in.
pub(super) const MAX_DEPTH: usize = 1500;

/// Said of deeper entries, and of those for which the descriptors don't suffice.
pub(super) const TOO_DEEP: &str = "directories are nested too deep";

/// Raises the limit of open files (`RLIMIT_NOFILE`) to what this process may have.
pub fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}
