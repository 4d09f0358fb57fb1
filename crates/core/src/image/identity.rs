//! Who handles the files of images: the host's root, or an ordinary user as the root of a user namespace, where the ids of
//! their range in /etc/subuid and /etc/subgid own files as they do in their containers.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use nix::sched::CloneFlags;

use super::store;
use super::unpack::Options;
use crate::error::{At, Code, Error, Result};
use crate::host::Host;
use crate::plan::idmap::{MapWriter, UserNamespace, automatic};
use crate::steps::maps;
use crate::sys::clone::{Side, clone3};
use crate::sys::process::exit_now;

/// Who we are for the files of images.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Where the store is.
    pub directory: PathBuf,
    /// How layers are unpacked.
    pub options: Options,
    /// What the user should know.
    pub warning: Option<String>,
}

/// Who we are without entering anything: enough for verbs that touch no unpacked layer.
///
/// # Errors
/// The user has no home directory.
pub fn outside(host: &Host) -> Result<Identity> {
    let options = if host.privileged { Options::privileged() } else { Options::unprivileged() };
    Ok(Identity { directory: store::directory(host)?, options, warning: None })
}

/// Becomes root of a user namespace, if we aren't the host's root (or somebody's root already). The process must have one
/// thread only, and stays there.
///
/// # Errors
/// User namespaces are switched off, or newuidmap(1) refuses.
pub fn enter(host: &Host) -> Result<Identity> {
    let mut identity = outside(host)?;
    if host.privileged || host.uid == 0 {
        return Ok(identity);
    }
    host.user_namespaces_available()?;
    let ranges = host.id_helpers && !host.subuids.is_empty() && !host.subgids.is_empty();
    let uids = automatic(host.uid, 0, &host.subuids, ranges);
    let gids = automatic(host.gid, 0, &host.subgids, ranges);
    let writer = if ranges { MapWriter::Helpers } else { MapWriter::Process };
    let user = UserNamespace::Private { uids, gids, writer, deny_setgroups: !ranges };
    if ranges {
        with_helpers(&user)?;
    } else {
        unshare()?;
        maps::write_own(&user)?;
        let why = match host.id_helpers {
            true => "you have no range in /etc/subuid and /etc/subgid",
            false => "newuidmap isn't in PATH",
        };
        identity.warning = Some(format!("{why}: all files of images will belong to you"));
    }
    maps::become_mapped(&user)?;
    Ok(identity)
}

fn unshare() -> Result<()> {
    nix::sched::unshare(CloneFlags::CLONE_NEWUSER).at("make a user namespace", "").map_err(|error| {
        error
            .code(Code::Unsupported)
            .hint("something on this host restricts user namespaces: nsrs doctor says what, and what to do")
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
