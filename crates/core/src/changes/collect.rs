//! Listing the changes of a container that has ended, beside the supervisor: a process of its own reads the layers, in the
//! container's user namespace where it had one, for the files belong to ids of that.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use nix::sched::{CloneFlags, setns};
use rustix::fs::{MemfdFlags, SeekFrom, memfd_create, seek};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use super::{Record, json, text, walk};
use crate::error::{At, Code, Error, Result};
use crate::plan::idmap::UserNamespace;
use crate::steps::maps;
use crate::sys::clone::{Side, clone3};
use crate::sys::process::exit_now;

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

/// In which form the list is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Form {
    /// For people.
    #[default]
    Text,
    /// As a JSON document.
    Json,
}

/// A process that lists changes.
#[derive(Debug)]
pub struct Collector {
    /// Its number.
    pub pid: Pid,
    /// Readable when it has ended.
    pub pidfd: OwnedFd,
    output: OwnedFd,
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
    /// Starts to list.
    ///
    /// # Errors
    /// No process can be made.
    pub fn start(layers: Layers, user: &UserNamespace, form: Form) -> Result<Collector> {
        let step = "list the changes";
        let output = memfd_create("nsrs-changes", MemfdFlags::CLOEXEC).at(step, "")?;
        match clone3(0).at(step, "")? {
            Side::Parent(pid, pidfd) => Ok(Collector { pid, pidfd, output }),
            Side::Child => {
                let mut output = File::from(output);
                let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
                let done = list(&layers, user, form).and_then(|text| output.write_all(text.as_bytes()).at(step, ""));
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

    /// The list of a process that has ended with this success.
    ///
    /// # Errors
    /// It could not list; its reason.
    pub fn finish(self, succeeded: bool) -> Result<OwnedFd> {
        let step = "list the changes";
        seek(&self.output, SeekFrom::Start(0)).at(step, "")?;
        if succeeded {
            return Ok(self.output);
        }
        let text = std::io::read_to_string(File::from(self.output)).unwrap_or_default();
        Err(serde_json::from_str(&text)
            .unwrap_or_else(|_| Error::new(Code::SetupFailed, step, "the process that does so was ended")))
    }
}

fn list(layers: &Layers, user: &UserNamespace, form: Form) -> Result<String> {
    let step = "list the changes";
    seek(&layers.record, SeekFrom::Start(0)).at(step, "")?;
    let record = File::from(layers.record.try_clone().at(step, "")?);
    let record: Record =
        serde_json::from_reader(record).map_err(|error| Error::new(Code::SetupFailed, step, error.to_string()))?;
    if let Some(namespace) = &layers.user_namespace {
        setns(namespace, CloneFlags::CLONE_NEWUSER).at("enter the container's user namespace", "")?;
        maps::become_mapped(user)?;
    }
    // A directory in a directory in a directory is as many descriptors.
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let changes = walk(&layers.directory, &record)?;
    Ok(match form {
        Form::Text => text(&changes),
        Form::Json => json(&changes) + "\n",
    })
}
