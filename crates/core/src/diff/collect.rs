//! Listing the changes of a container that has ended, beside the supervisor: a process of its own reads the layers, in the
//! container's user namespace where it had one, for the files belong to ids of that.

use std::fs::File;
use std::io::{BufReader, Write};
use std::os::fd::OwnedFd;

use nix::sched::{CloneFlags, setns};
use rustix::fs::{MemfdFlags, SeekFrom, memfd_create, seek};
use rustix::process::Pid;

use super::apply::Listed;
use super::walk::{bases as bases_below, whole};
use super::{Base, Record, json, notes, raise_limit, text};
use crate::spec::Form;
use nsrs_base::error::{At, Code, Error, Result};
use nsrs_base::ids::maps;
use nsrs_base::ids::maps::{IdMap, UserNamespace};
use nsrs_base::sys::clone::{Side, clone3};
use nsrs_base::sys::process::exit_now;

const STEP: &str = "list the changes";
/// Whom the kernel names where an id has no name in a user namespace (/proc/sys/kernel/overflowuid).
const OVERFLOW: u32 = 65_534;

/// The layers of a container that runs or has run.
#[derive(Debug)]
pub struct Layers {
    /// The directory of the layers.
    pub directory: OwnedFd,
    /// The container's user namespace, if it had one of its own.
    pub user_namespace: Option<OwnedFd>,
    /// What they are.
    pub record: OwnedFd,
}

/// A process that lists changes.
#[derive(Debug)]
pub struct Collector {
    /// Its number.
    pub pid: Pid,
    /// Readable when it has ended.
    pub pidfd: OwnedFd,
    output: OwnedFd,
    bases: OwnedFd,
    is_list: bool,
}

/// What a collector has found.
#[derive(Debug)]
pub struct Collected {
    /// The list, where one was wanted.
    pub list: Option<OwnedFd>,
    /// What is below of all that the layers have or hide.
    pub bases: Vec<Base>,
}

/// What a record is handed over in.
///
/// # Errors
/// No memory is left.
pub fn hand_over(record: &Record) -> Result<OwnedFd> {
    let step = "hand over the writable layers";
    let memory = memfd_create("nsrs-layers", MemfdFlags::CLOEXEC).at(step, "")?;
    let text = serde_json::to_vec(record).map_err(|error| Error::new(Code::SetupFailed, step, error.to_string()))?;
    File::from(memory.try_clone().at(step, "")?).write_all(&text).at(step, "")?;
    Ok(memory)
}

impl Collector {
    /// Starts to look through the layers; for the list, if that is wanted in some form, and for what is below.
    ///
    /// # Errors
    /// No process can be made.
    pub fn start(layers: Layers, user: &UserNamespace, form: Option<Form>) -> Result<Collector> {
        let output = memfd_create("nsrs-changes", MemfdFlags::CLOEXEC).at(STEP, "")?;
        let bases = memfd_create("nsrs-bases", MemfdFlags::CLOEXEC).at(STEP, "")?;
        match clone3(0).at(STEP, "")? {
            Side::Parent(pid, pidfd) => Ok(Collector { pid, pidfd, output, bases, is_list: form.is_some() }),
            Side::Child => {
                let mut output = File::from(output);
                let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
                let done = collect(&layers, user, form, &mut output, &mut File::from(bases));
                exit_now(match done {
                    Ok(()) => 0,
                    Err(error) => {
                        let _ = output.set_len(0);
                        let _ = seek(&output, SeekFrom::Start(0));
                        let _ = serde_json::to_writer(&output, &error);
                        1
                    }
                })
            }
        }
    }

    /// What a process that has ended with this success has found.
    ///
    /// # Errors
    /// It could not list; its reason.
    pub fn finish(self, succeeded: bool) -> Result<Collected> {
        seek(&self.output, SeekFrom::Start(0)).at(STEP, "")?;
        seek(&self.bases, SeekFrom::Start(0)).at(STEP, "")?;
        if succeeded {
            let bases = serde_json::from_reader(BufReader::new(File::from(self.bases))).map_err(broken)?;
            return Ok(Collected { list: self.is_list.then_some(self.output), bases });
        }
        let text = std::io::read_to_string(File::from(self.output)).unwrap_or_default();
        Err(serde_json::from_str(&text)
            .unwrap_or_else(|_| Error::new(Code::SetupFailed, STEP, "the process that does so was ended")))
    }
}

fn broken(error: impl std::fmt::Display) -> Error {
    Error::new(Code::SetupFailed, STEP, error.to_string())
}

fn collect(
    layers: &Layers,
    user: &UserNamespace,
    form: Option<Form>,
    output: &mut File,
    bases: &mut File,
) -> Result<()> {
    seek(&layers.record, SeekFrom::Start(0)).at(STEP, "")?;
    let record = BufReader::new(File::from(layers.record.try_clone().at(STEP, "")?));
    let record: Record = serde_json::from_reader(record).map_err(broken)?;
    if let Some(namespace) = &layers.user_namespace {
        setns(namespace, CloneFlags::CLONE_NEWUSER).at("enter the container's user namespace", "")?;
        maps::become_mapped(user)?;
    }
    raise_limit();
    let Listed { changes, bases: found, .. } = match form {
        Some(_) => whole(&layers.directory, &record)?,
        // Without them the time has to tell what has changed since.
        None => Listed { bases: bases_below(&layers.directory, &record).unwrap_or_default(), ..Listed::default() },
    };
    let found: Vec<Base> = found.into_iter().map(|base| outside_base(base, user)).collect();
    let found = serde_json::to_vec(&found).map_err(broken)?;
    bases.write_all(&found).at(STEP, "")?;
    let list = match form {
        Some(Form::Text) => text(&changes) + &notes(&changes),
        Some(Form::Json) => json(&changes)? + "\n",
        None => String::new(),
    };
    output.write_all(list.as_bytes()).at(STEP, "")
}

/// With the host's ids.
fn outside_base(mut base: Base, user: &UserNamespace) -> Base {
    if let (UserNamespace::Private { uids, gids, .. }, Some(dress)) = (user, &mut base.dress) {
        (dress.uid, dress.gid) = (outside(uids, dress.uid), outside(gids, dress.gid));
    }
    base
}

/// The host's id. That which stands for all without a map could be any, even where it is mapped itself.
fn outside(maps: &[IdMap], inside: Option<u32>) -> Option<u32> {
    let inside = inside.filter(|id| *id != OVERFLOW)?;
    let map = maps.iter().find(|map| inside.checked_sub(map.inside).is_some_and(|offset| offset < map.count))?;
    Some(map.outside + (inside - map.inside))
}
