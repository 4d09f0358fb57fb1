//! Entering a user namespace of one's own, as its root.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use nix::sched::CloneFlags;

use crate::calls::CHECK_HOST;
use crate::error::{At, Code, Error, Result};
use crate::ids::maps::{self, MapWriter, UserNamespace, automatic};
use crate::sys::clone::{Side, clone3};
use crate::sys::process::exit_now;

/// An ordinary user, and the ids that they may map beside their own.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Ranges of /etc/subuid: first id, count.
    pub subuids: &'a [(u32, u32)],
    /// Ranges of /etc/subgid.
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

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).at("make a pipe", "")
}

/// The maps of a namespace are written from outside of it: a child stays there and has the helpers do it.
fn with_helpers(user: &UserNamespace) -> Result<()> {
    let UserNamespace::Private { uids, gids, .. } = user else { return Ok(()) };
    let (go, told) = pipe()?;
    let (answer, say) = pipe()?;
    let parent = std::process::id().to_string();
    match clone3(0).at("start the helper for id maps", "")? {
        Side::Child => {
            drop(told);
            let mut byte = [0];
            // End-of-file: the parent couldn't enter a namespace.
            if !matches!(std::fs::File::from(go).read(&mut byte), Ok(1)) {
                exit_now(0);
            }
            let result = maps::run_helper("newuidmap", &parent, uids)
                .and_then(|()| maps::run_helper("newgidmap", &parent, gids));
            let text = serde_json::to_vec(&result.err()).unwrap_or_default();
            let _ = std::fs::File::from(say).write_all(&text);
            exit_now(0)
        }
        Side::Parent(_, pidfd) => {
            drop((go, say));
            let entered = unshare();
            if entered.is_ok() {
                std::fs::File::from(told).write_all(b"g").at("start the helper for id maps", "")?;
            } else {
                drop(told);
            }
            let mut text = Vec::new();
            std::fs::File::from(answer).read_to_end(&mut text).at("wait for the helper for id maps", "")?;
            let _ = rustix::process::waitid(
                rustix::process::WaitId::PidFd(std::os::fd::AsFd::as_fd(&pidfd)),
                rustix::process::WaitIdOptions::EXITED,
            );
            entered?;
            match serde_json::from_slice::<Option<Error>>(&text) {
                Ok(None) => Ok(()),
                Ok(Some(error)) => Err(error),
                Err(_) => Err(Error::new(Code::SetupFailed, "write the id maps", "the helper ended without a word")),
            }
        }
    }
}
