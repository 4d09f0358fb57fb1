//! Telling the supervisor of the writable layers, where the command's changes are wanted.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Mode, OFlags, openat};
use rustix::time::{ClockId, clock_gettime};

use super::Inputs;
use super::channel::{Channel, FromChild};
use super::scratch::Scratch;
use crate::diff::changes_directory::{is_same_directory, open_layers};
use crate::diff::collect::hand_over;
use crate::diff::{ChangesRecord, record, record_file};
use crate::plan::Plan;
use crate::plan::root::Root;
use crate::plan::sandbox::Sandbox;
use nsrs_base::error::{At, Code, Error, Result, show};
use nsrs_base::host::mountinfo;

/// The directory in which the changes are kept, as this mount namespace has it.
pub struct Kept {
    path: String,
    /// What an earlier container has noted.
    earlier: Option<ChangesRecord>,
    /// For the next record: what the container's root can't open any more it can still write to.
    draft: File,
    /// The directory of the layers in it.
    pub layers: OwnedFd,
}

/// Opens the directory in which the changes are kept; as the caller.
///
/// # Errors
/// It is not the one that was prepared.
pub fn open_kept(path: &str, prepared: &OwnedFd) -> Result<Kept> {
    let step = "open the directory for changes";
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(path, flags, Mode::empty()).at(step, path)?;
    if !is_same_directory(&directory, prepared) {
        return Err(Error::new(Code::SetupFailed, step, "it was exchanged meanwhile").on(path));
    }
    // Not for reading: it may belong to the container's root, whose ids aren't mapped yet.
    let layers = open_layers(&directory, OFlags::PATH).at(step, path)?;
    let earlier = record_file::read_record(&directory, path)?;
    let draft = record_file::create_draft(&directory).at(step, path)?;
    Ok(Kept { path: path.to_owned(), earlier, draft, layers })
}

/// As [`open_kept`], where a plan wants one.
pub fn open(sandbox: &Sandbox, inputs: &Inputs) -> Result<Option<Kept>> {
    let path = sandbox.changes.as_ref().and_then(|changes| changes.upper.as_ref());
    match (path, &inputs.kept) {
        (Some(path), Some(prepared)) => open_kept(path, prepared).map(Some),
        _ => Ok(None),
    }
}

/// Notes what the layers are, and hands them over. When all mounts stand, and before the command.
///
/// # Errors
/// The kept ones are of another tree.
pub fn send_to_supervisor(
    plan: &Plan,
    scratch: &Scratch,
    kept: Option<Kept>,
    proc: &OwnedFd,
    channel: &Channel,
) -> Result<()> {
    if plan.sandbox.changes.is_none() {
        return Ok(());
    }
    let step = "hand over the writable layers";
    let (layers, directory) = scratch.made();
    // The clock that files are stamped by, which is late at times.
    let now = clock_gettime(ClockId::RealtimeCoarse);
    let began = now.tv_sec * 1_000_000_000 + now.tv_nsec;
    let mut record = ChangesRecord {
        format: record::FORMAT,
        since: began,
        began,
        layers: layers.to_vec(),
        mount_points: mount_points(proc)?,
        made: made_at_start(plan),
        baseline: Vec::new(),
        linked_files: Vec::new(),
    };
    if let Some(Kept { path, earlier, draft, .. }) = kept {
        if let Some(earlier) = earlier {
            record.continue_from(earlier, &path)?;
        }
        // The supervisor commits it.
        record_file::write_draft(&draft, &path, &record)?;
    }
    let memory = hand_over(&record)?;
    let mut fds = vec![directory.as_fd(), memory.as_fd()];
    let namespace = if plan.sandbox.user_namespace.is_private() {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Some(openat(proc, "self/ns/user", flags, Mode::empty()).at(step, "/proc/self/ns/user")?)
    } else {
        None
    };
    fds.extend(namespace.as_ref().map(AsFd::as_fd));
    channel.send(&FromChild::Layers, &fds)
}

/// What the container's start makes where it is missing; of the kernel's own, what is mounted there may be missing too.
fn made_at_start(plan: &Plan) -> Vec<String> {
    let own = ["/proc", "/sys", "/dev"].map(str::to_owned).into_iter();
    let Root::Image(image) = &plan.sandbox.root else { return own.collect() };
    let all = std::iter::once(&plan.process.workdir).chain(&image.volumes);
    let clean = |path: &String| {
        path.split('/').filter(|part| !matches!(*part, "" | ".")).fold(String::new(), |path, part| path + "/" + part)
    };
    own.chain(all.map(clean)).filter(|path| !path.is_empty()).collect()
}

/// Where something is mounted in this root.
fn mount_points(proc: &OwnedFd) -> Result<Vec<String>> {
    let table = openat(proc, "self/mountinfo", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let table = mountinfo::read_from(File::from(table.at("read the mount table", "/proc/self/mountinfo")?))?;
    let point = |mount: mountinfo::MountEntry| {
        // By another name it would be taken for a part of the changes.
        mount.point.into_os_string().into_string().map_err(|point| {
            let step = "record the mount points";
            Error::new(Code::Unsupported, step, "the name is not UTF-8").on(show(point.as_bytes()))
        })
    };
    mountinfo::parse(&table)?.into_iter().map(point).collect()
}
