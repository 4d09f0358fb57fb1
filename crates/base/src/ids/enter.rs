//! Entering a user namespace of one's own, as its root.

use std::io::{Read, Write};

use nix::sched::CloneFlags;

use crate::calls::CHECK_HOST;
use crate::error::{At, Code, Result};
use crate::ids::maps::{self, MapWriter, UserNamespace, automatic};
use crate::sys::child::{self, dies_with};
use crate::sys::process::exit_now;

/// An ordinary user, and the ids that they may map beside their own.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// Effective user id of the user.
    pub uid: u32,
    /// Effective group id of the user.
    pub gid: u32,
    /// Ranges of /etc/subuid: first id, count.
    pub subuids: &'a [(u32, u32)],
    /// Ranges of /etc/subgid: first id, count.
    pub subgids: &'a [(u32, u32)],
    /// newuidmap(1) and newgidmap(1) are in `PATH`.
    pub has_helpers: bool,
}

/// Becomes root of a new user namespace. The process must have one thread only, and stays there. Returns why only the
/// user's own id is mapped in it, where that is so.
///
/// # Errors
/// The kernel refuses the namespace; newuidmap(1) refuses the ranges.
pub fn become_root(owner: &Owner<'_>) -> Result<Option<&'static str>> {
    let ranges = owner.has_helpers && !owner.subuids.is_empty() && !owner.subgids.is_empty();
    let uids = automatic(owner.uid, 0, owner.subuids, ranges);
    let gids = automatic(owner.gid, 0, owner.subgids, ranges);
    let writer = if ranges { MapWriter::Helpers } else { MapWriter::Process };
    let user = UserNamespace::Private { uids, gids, writer, deny_setgroups: !ranges };
    if ranges {
        with_helpers(&user)?;
    } else {
        unshare()?;
        maps::write_own(&user)?;
    }
    maps::become_mapped(&user)?;
    Ok(match (ranges, owner.has_helpers) {
        (true, _) => None,
        (false, true) => Some("you have no range in /etc/subuid and /etc/subgid"),
        (false, false) => Some("newuidmap isn't in PATH"),
    })
}

fn unshare() -> Result<()> {
    nix::sched::unshare(CloneFlags::CLONE_NEWUSER).at("make a user namespace", "").map_err(|error| {
        error
            .code(Code::Unsupported)
            .hint(format!("something on this host restricts user namespaces: {CHECK_HOST} says what, and what to do"))
    })
}

/// The maps of a namespace are written from outside of it: a child stays there and has the helpers do it.
fn with_helpers(user: &UserNamespace) -> Result<()> {
    let UserNamespace::Private { uids, gids, .. } = user else { return Ok(()) };
    let step = "start the helper for id maps";
    let (mut entered, mut enter) = std::io::pipe().at("make a pipe", "")?;
    let own = rustix::process::getpid();
    let parent = own.to_string();
    let helper = child::ask(step, "", 0, || {
        if !dies_with(own) {
            exit_now(0);
        }
        entered.read_exact(&mut [0]).at(step, "")?;
        maps::run_helper("newuidmap", &parent, uids)?;
        maps::run_helper("newgidmap", &parent, gids)
    })?;
    if let Err(error) = unshare() {
        helper.child.kill();
        let _ = helper.child.wait(None);
        return Err(error);
    }
    enter.write_all(b"g").at(step, "")?;
    helper.wait("write the id maps")
}
