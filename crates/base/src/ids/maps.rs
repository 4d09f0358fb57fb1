//! User namespaces and their id maps (user_namespaces(7)): what a map is, writing it, and becoming an id that is mapped.

use std::fmt;

use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::error::{At, Code, Error, Result};
use crate::sys::helper;
use serde::{Deserialize, Serialize};

/// A range of ids: `count` ids from `inside` on stand for those from `outside` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    /// First id in the container.
    pub inside: u32,
    /// First id on the host.
    pub outside: u32,
    /// Number of ids in the range.
    pub count: u32,
}

impl fmt::Display for IdMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.inside, self.outside, self.count)
    }
}

/// Who has the right to write the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MapWriter {
    /// The new process itself: one line for the caller's own id needs no right.
    Process,
    /// The supervisor, which has `CAP_SETUID` and `CAP_SETGID`.
    Supervisor,
    /// The set-user-ID programs newuidmap(1) and newgidmap(1), which check /etc/subuid and /etc/subgid.
    Helpers,
}

/// The user namespace of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[derive(Default)]
pub enum UserNamespace {
    /// The caller's own: no new one is made.
    #[default]
    Host,
    /// An existing one, which the container joins.
    Joined,
    /// A new one with these maps.
    Private {
        /// The map of user ids.
        uids: Vec<IdMap>,
        /// The map of group ids.
        gids: Vec<IdMap>,
        /// Who has the right to write both maps.
        writer: MapWriter,
        /// setgroups(2) is refused in the namespace, as the kernel demands of callers without rights.
        deny_setgroups: bool,
    },
}

impl UserNamespace {
    /// Whether a new user namespace is made.
    #[must_use]
    pub fn is_private(&self) -> bool {
        matches!(self, UserNamespace::Private { .. })
    }
}

/// The map of a caller without rights: their own id, and their subordinate range where there is one.
#[must_use]
pub fn automatic(id: u32, inside: u32, ranges: &[(u32, u32)], with_range: bool) -> Vec<IdMap> {
    let mut maps = vec![IdMap { inside, outside: id, count: 1 }];
    if with_range {
        let mut next = inside + 1;
        for (start, count) in ranges {
            let count = (*count).min(u32::MAX - 1 - next);
            maps.push(IdMap { inside: next, outside: *start, count });
            next += count;
        }
    }
    maps
}

/// Text of a map for /proc/PID/uid_map (user_namespaces(7)).
#[must_use]
pub fn text(maps: &[IdMap]) -> String {
    maps.iter().map(|map| format!("{} {} {}\n", map.inside, map.outside, map.count)).collect()
}

/// Writes the maps of a process from the side that has the right to.
///
/// # Errors
/// The kernel refuses a map; the error names the file.
pub fn write(process: &str, uids: &[IdMap], gids: &[IdMap], deny_setgroups: bool) -> Result<()> {
    let put = |file: &str, text: &str| {
        let path = format!("/proc/{process}/{file}");
        // One write(2): the kernel takes a map whole or not at all.
        std::fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()))
            .at("write the id map", path)
    };
    if deny_setgroups {
        put("setgroups", "deny")?;
    }
    put("gid_map", &text(gids))?;
    put("uid_map", &text(uids))
}

/// The new process's own part: writes the map of its own id, if that is how it is done.
///
/// # Errors
/// Fails as [`write`] does.
pub fn write_own(user: &UserNamespace) -> Result<()> {
    match user {
        UserNamespace::Private { uids, gids, writer: MapWriter::Process, deny_setgroups } => {
            write("self", uids, gids, *deny_setgroups).map_err(|error| match error.errno {
                Some(libc::EPERM | libc::EACCES) => error.code(Code::Unsupported).hint(
                    "something on this host restricts user namespaces: AppArmor on Ubuntu 24.04 (sysctl \
                     kernel.apparmor_restrict_unprivileged_userns=0, or a profile for nsrs), or an outer container's seccomp profile",
                ),
                _ => error,
            })
        }
        _ => Ok(()),
    }
}

/// Becomes an id of the new user namespace: without one, every file that is made would belong to nobody.
///
/// # Errors
/// The kernel refuses the change.
pub fn become_mapped(user: &UserNamespace) -> Result<()> {
    let UserNamespace::Private { uids, gids, writer, deny_setgroups } = user else { return Ok(()) };
    if *writer == MapWriter::Process {
        return Ok(());
    }
    let first = |maps: &[IdMap]| match maps.iter().any(|map| map.inside == 0) {
        true => 0,
        false => maps.first().map_or(0, |map| map.inside),
    };
    let (uid, gid) = (Uid::from_raw(first(uids)), Gid::from_raw(first(gids)));
    if !deny_setgroups {
        set_thread_groups(&[]).at("drop the supplementary groups", "")?;
    }
    set_thread_res_gid(gid, gid, gid).at("become the group", gid.as_raw())?;
    set_thread_res_uid(uid, uid, uid).at("become the user", uid.as_raw())
}

/// Becomes the root of a user namespace that was joined, as nsenter(1) does: files that are made belong to somebody who is
/// mapped there. Where it has no root, or none that we may become, we stay who we are.
pub fn become_root_of_joined() {
    let _ = set_thread_groups(&[]);
    let _ = set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT);
    let _ = set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT);
}

/// Has newuidmap(1) or newgidmap(1) write a map.
///
/// # Errors
/// The program is missing, or refuses; its own words are in the error.
pub fn run_helper(program: &str, process: &str, maps: &[IdMap]) -> Result<()> {
    let step = format!("write the id map with {program}");
    let numbers = maps.iter().flat_map(|map| [map.inside, map.outside, map.count]).map(|number| number.to_string());
    let ended = helper::run(&step, std::process::Command::new(program).arg(process).args(numbers)).map_err(
        |error| match error.errno {
            None => error,
            Some(_) => {
                error.code(Code::Unsupported).hint("install newuidmap and newgidmap (Debian: apt-get install uidmap)")
            }
        },
    )?;
    if ended.success {
        return Ok(());
    }
    Err(Error::new(Code::Unsupported, step, ended.why())
        .hint("the ranges must be listed for this user in /etc/subuid and /etc/subgid"))
}
