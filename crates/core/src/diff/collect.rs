//! Listing the changes of a container that has ended, beside the supervisor: a process of its own reads the layers, in the
//! container's user namespace if it had one, whose ids own the files.

use std::fs::File;
use std::io::{BufReader, Write};
use std::os::fd::OwnedFd;

use nix::sched::{CloneFlags, setns};
use rustix::fs::{MemfdFlags, SeekFrom, memfd_create, seek};
use rustix::process::Pid;

use super::baseline::BaselineEntry;
use super::text::{json, lines, warnings};
use super::walk::{list_changes, read_baseline};
use super::{ChangesRecord, Listing, raise_descriptor_limit};
use crate::spec::Form;
use nsrs_base::error::{At, Code, Error, Result};
use nsrs_base::ids::maps;
use nsrs_base::ids::maps::{IdMap, UserNamespace};
use nsrs_base::sys::child::{self, AnswerPipe, Asked, ChildProcess, dies_with};
use nsrs_base::sys::process::exit_now;
use nsrs_base::sys::wait::Status;

const STEP: &str = "list the changes";
/// The id that the kernel shows for one that a user namespace doesn't map (/proc/sys/kernel/overflowuid).
const OVERFLOW_ID: u32 = 65_534;

/// The layers of a container that runs or has run.
#[derive(Debug)]
pub struct ContainerLayers {
    /// The directory of the layers.
    pub directory: OwnedFd,
    /// The container's user namespace, if it had one of its own.
    pub user_namespace: Option<OwnedFd>,
    /// The [`ChangesRecord`] in memory, as [`hand_over`] writes it.
    pub record: OwnedFd,
}

/// A process that lists changes.
#[derive(Debug)]
pub struct Collector {
    /// Its process id, for the supervisor, which reaps it.
    pub pid: Pid,
    /// Readable once it has ended.
    pub pidfd: OwnedFd,
    answer: AnswerPipe<()>,
    output: OwnedFd,
    baseline: OwnedFd,
    is_list: bool,
}

/// What a collector has found.
#[derive(Debug)]
pub struct Collected {
    /// The list as text or JSON, if one was wanted.
    pub list: Option<OwnedFd>,
    /// The real tree behind everything that the layers replace or hide.
    pub baseline: Vec<BaselineEntry>,
}

/// Writes a record into memory, to be passed to another process.
///
/// # Errors
/// No memory is left.
pub fn hand_over(record: &ChangesRecord) -> Result<OwnedFd> {
    let step = "hand over the writable layers";
    let memory = memfd_create("nsrs-layers", MemfdFlags::CLOEXEC).at(step, "")?;
    let text = serde_json::to_vec(record).map_err(|error| Error::new(Code::SetupFailed, step, error.to_string()))?;
    File::from(memory.try_clone().at(step, "")?).write_all(&text).at(step, "")?;
    Ok(memory)
}

impl Collector {
    /// Starts to read the layers: for the list, if one is wanted, and for the baseline.
    ///
    /// # Errors
    /// No process can be made.
    pub fn start(layers: ContainerLayers, user: &UserNamespace, form: Option<Form>) -> Result<Collector> {
        let output = memfd_create("nsrs-changes", MemfdFlags::CLOEXEC).at(STEP, "")?;
        let baseline = memfd_create("nsrs-baseline", MemfdFlags::CLOEXEC).at(STEP, "")?;
        let (mut list, mut below) = (duplicate(&output)?, duplicate(&baseline)?);
        let own = rustix::process::getpid();
        let Asked { child: ChildProcess { pid, pidfd }, answer } = child::ask(STEP, "", 0, || {
            if !dies_with(own) {
                exit_now(1);
            }
            collect(&layers, user, form, &mut list, &mut below)
        })?;
        Ok(Collector { pid, pidfd, answer, output, baseline, is_list: form.is_some() })
    }

    /// What the process has found, once it has ended with this status.
    ///
    /// # Errors
    /// It failed; the error is its own.
    pub fn finish(self, status: Option<Status>) -> Result<Collected> {
        self.answer.read()?.ok_or_else(|| child::no_answer(STEP, status))?;
        seek(&self.output, SeekFrom::Start(0)).at(STEP, "")?;
        seek(&self.baseline, SeekFrom::Start(0)).at(STEP, "")?;
        let baseline = serde_json::from_reader(BufReader::new(File::from(self.baseline))).map_err(failed)?;
        Ok(Collected { list: self.is_list.then_some(self.output), baseline })
    }
}

fn duplicate(memory: &OwnedFd) -> Result<File> {
    memory.try_clone().map(File::from).at(STEP, "")
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::new(Code::SetupFailed, STEP, error.to_string())
}

fn collect(
    layers: &ContainerLayers,
    user: &UserNamespace,
    form: Option<Form>,
    output: &mut File,
    baseline: &mut File,
) -> Result<()> {
    seek(&layers.record, SeekFrom::Start(0)).at(STEP, "")?;
    let record = BufReader::new(File::from(layers.record.try_clone().at(STEP, "")?));
    let record: ChangesRecord = serde_json::from_reader(record).map_err(failed)?;
    if let Some(namespace) = &layers.user_namespace {
        setns(namespace, CloneFlags::CLONE_NEWUSER).at("enter the container's user namespace", "")?;
        maps::become_mapped(user)?;
    }
    raise_descriptor_limit();
    let Listing { changes, baseline: found, .. } = match form {
        Some(_) => list_changes(&layers.directory, &record)?,
        // Without a baseline times alone show what has changed since.
        None => {
            let baseline = read_baseline(&layers.directory, &record).unwrap_or_default();
            Listing { baseline, ..Listing::default() }
        }
    };
    let found: Vec<BaselineEntry> = found.into_iter().map(|base| with_host_ids(base, user)).collect();
    let found = serde_json::to_vec(&found).map_err(failed)?;
    baseline.write_all(&found).at(STEP, "")?;
    let list = match form {
        Some(Form::Text) => lines(&changes) + &warnings(&changes),
        Some(Form::Json) => json(&changes)? + "\n",
        None => String::new(),
    };
    output.write_all(list.as_bytes()).at(STEP, "")
}

/// The entry with ids of the host instead of the user namespace's.
fn with_host_ids(mut entry: BaselineEntry, user: &UserNamespace) -> BaselineEntry {
    if let (UserNamespace::Private { uids, gids, .. }, Some(attributes)) = (user, &mut entry.attributes) {
        (attributes.uid, attributes.gid) = (host_id(uids, attributes.uid), host_id(gids, attributes.gid));
    }
    entry
}

/// The id on the host. The overflow id could stand for any that isn't mapped, even where it is mapped itself.
fn host_id(maps: &[IdMap], inside: Option<u32>) -> Option<u32> {
    let inside = inside.filter(|id| *id != OVERFLOW_ID)?;
    let map = maps.iter().find(|map| inside.checked_sub(map.inside).is_some_and(|offset| offset < map.count))?;
    Some(map.outside + (inside - map.inside))
}
