//! A directory in which the changes of commands are kept (`--upper`).
//!
//! `layers/N/{upper,work}` are the writable layers, `changes.json` says what they are over. Whoever works with the directory
//! holds a lock on it.

use std::collections::{HashMap, HashSet};
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, Dir, FlockOperation, Gid, Mode, OFlags, Uid, chownat, flock, fstat, mkdir, mkdirat, openat, renameat,
    statat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::apply::AppliedChange;
use super::baseline::BaselineEntry;
use super::file_stamp::{FileStamp, file_id};
use super::record::ChangesRecord;
use super::record_file::{self, DRAFT, RECORD, refuse_foreign};
use crate::plan::mount::{Mount, MountSource};
use crate::plan::sandbox::Sandbox;
use nsrs_base::calls::RUN;
use nsrs_base::error::{At, Code, Error, Result};
use nsrs_base::host::Host;
use nsrs_base::ids::maps::{IdMap, UserNamespace};
use nsrs_base::options::{DISCARD, UPPER};
use nsrs_base::sys::child;
use nsrs_base::text::escaped;
use nsrs_base::tree::remove::remove;
use nsrs_store::store_access::StoreAccess;

const LAYERS: &str = "layers";
/// The layers while they are removed.
const DISCARDED: &str = "layers.gone";
const DISCARDED_C: &CStr = c"layers.gone";

/// A directory of kept changes, locked.
#[derive(Debug)]
pub struct ChangesDirectory {
    /// The directory itself. The lock belongs to this descriptor.
    pub directory: OwnedFd,
    /// The path as the caller gave it.
    pub path: String,
}

fn exists(directory: impl AsFd, name: &str) -> bool {
    statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

impl ChangesDirectory {
    fn open(path: &str) -> Result<ChangesDirectory> {
        let step = "open the directory of kept changes";
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| {
            let error = Error::os(step, path, errno);
            if matches!(errno, Errno::NOENT | Errno::NOTDIR) { error.code(Code::InvalidArgument) } else { error }
        })?;
        refuse_foreign(&directory, path)?;
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => {
                Err(Error::new(Code::InUse, "use the kept changes", "another command is using them")
                    .on(path)
                    .hint("wait for that command, or choose another directory"))
            }
            other => other.at(step, path).map(|()| ChangesDirectory { directory, path: path.to_owned() }),
        }
    }

    /// Creates the directory if it is missing, and makes it ready for a container of this sandbox.
    ///
    /// # Errors
    /// It holds something else; another container uses it; this container could write to it; it can't be created.
    pub fn prepare(path: &str, sandbox: &Sandbox) -> Result<ChangesDirectory> {
        let step = "prepare the directory for changes";
        refuse_writable_mounts(path, &sandbox.mounts)?;
        match mkdir(path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(Error::os(step, path, errno).code(Code::InvalidArgument)),
        }
        let changes = ChangesDirectory::open(path)?;
        if !exists(&changes.directory, LAYERS) {
            let mut entries = Dir::read_from(&changes.directory).at(step, path)?.filter_map(std::result::Result::ok);
            if entries.any(|entry| !matches!(entry.file_name().to_bytes(), b"." | b"..")) {
                return Err(Error::new(
                    Code::InvalidArgument,
                    "keep changes in",
                    format!("not empty, and not made by {UPPER}"),
                )
                .about(UPPER)
                .on(path)
                .hint(format!("{UPPER} takes a new or empty directory, or one that an earlier {UPPER} made")));
            }
            mkdirat(&changes.directory, LAYERS, Mode::RWXU).at(step, path)?;
        }
        // What the container's root creates belongs to the id that its own is mapped to. The directory itself, and the
        // record of what the layers are over, stay out of its reach.
        let root_of = |maps: &[IdMap]| maps.iter().find(|map| map.inside == 0).or(maps.first()).map(|map| map.outside);
        if let UserNamespace::Private { uids, gids, .. } = &sandbox.user_namespace
            && let (Some(uid), Some(gid)) = (root_of(uids), root_of(gids))
            && geteuid().is_root()
        {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            chownat(&changes.directory, LAYERS, uid, gid, AtFlags::SYMLINK_NOFOLLOW).at(step, path)?;
        }
        Ok(changes)
    }

    /// Opens a directory that a container has written to.
    ///
    /// # Errors
    /// There are no kept changes in it.
    pub fn find(path: &str) -> Result<(ChangesDirectory, ChangesRecord)> {
        let changes = ChangesDirectory::open(path)?;
        let record = changes.record()?.ok_or_else(|| match exists(&changes.directory, DISCARDED) {
            true => no_changes(path)
                .because("the changes were discarded, but some files remain")
                .hint(format!("nsrs apply {DISCARD} removes them")),
            false => no_changes(path),
        })?;
        Ok((changes, record))
    }

    /// Opens a directory of kept changes, whatever is left of it.
    ///
    /// # Errors
    /// There is nothing of kept changes in it.
    pub fn find_any(path: &str) -> Result<ChangesDirectory> {
        let changes = ChangesDirectory::open(path)?;
        if [RECORD, LAYERS, DISCARDED].iter().any(|name| exists(&changes.directory, name)) {
            Ok(changes)
        } else {
            Err(no_changes(path))
        }
    }

    /// Removes what nsrs made in the directory, and the directory itself if nothing else is in it; returns the names of
    /// what else there is.
    ///
    /// # Errors
    /// Something can't be removed.
    pub fn discard(&self) -> Result<Vec<String>> {
        let step = "discard the kept changes";
        // A part of a layer would show deletions that never were: it must stop being one first.
        match renameat(&self.directory, LAYERS, &self.directory, DISCARDED) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(Error::os(step, &self.path, errno)),
        }
        for name in [RECORD, DRAFT] {
            match unlinkat(&self.directory, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(Error::os(step, format!("{}/{name}", self.path), errno)),
            }
        }
        self.remove_layers(step)?;
        let mut others = Vec::new();
        for entry in Dir::read_from(&self.directory).at(step, &self.path)? {
            let entry = entry.at(step, &self.path)?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                others.push(escaped(entry.file_name().to_bytes()));
            }
        }
        if others.is_empty() {
            self.remove_itself(step)?;
        }
        others.sort();
        Ok(others)
    }

    /// Files in the layers may belong to other ids of the container: an ordinary user removes them as they were made, in
    /// a user namespace.
    fn remove_layers(&self, step: &str) -> Result<()> {
        let remove = || remove(&self.directory, DISCARDED_C).at(step, format!("{}/{DISCARDED}", self.path));
        match remove() {
            Err(error) if matches!(error.errno, Some(libc::EACCES | libc::EPERM)) && !geteuid().is_root() => {}
            other => return other,
        }
        let host = Host::probe();
        let child = child::ask(step, "", 0, || StoreAccess::enter_as_root(&host).and_then(|_| remove()))?;
        let _ = child.wait(step);
        // Succeeds if nothing is left; otherwise its error says why.
        remove().map_err(|error| error.hint("files in it belong to other users: root can remove them"))
    }

    /// Removes the directory, which is empty, if its path still leads to it.
    fn remove_itself(&self, step: &str) -> Result<()> {
        let path = std::fs::canonicalize(&self.path).at(step, &self.path)?;
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = rustix::fs::open(parent, flags, Mode::empty()).at(step, &self.path)?;
        let found = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).at(step, &self.path)?;
        let own = fstat(&self.directory).at(step, &self.path)?;
        if file_id(&found) != file_id(&own) {
            return Err(Error::new(Code::InUse, step, "the directory was replaced in the meantime").on(&self.path));
        }
        unlinkat(&parent, name, AtFlags::REMOVEDIR).at(step, &self.path)
    }

    /// Opens the directory of the layers.
    ///
    /// # Errors
    /// It is missing.
    pub fn layers(&self) -> Result<OwnedFd> {
        open_layers(&self.directory, OFlags::RDONLY).at("open the kept changes", &self.path)
    }

    /// Replaces the record by the draft that a container has written.
    ///
    /// # Errors
    /// Those of renameat(2).
    pub fn commit_draft(&self) -> Result<()> {
        record_file::commit_draft(&self.directory, &self.path)
    }

    /// Reads the record; `None`: there isn't one.
    ///
    /// # Errors
    /// Those of [`record_file::read_record`].
    pub fn record(&self) -> Result<Option<ChangesRecord>> {
        record_file::read_record(&self.directory, &self.path)
    }

    fn rewrite(&self, record: &ChangesRecord) -> Result<()> {
        let draft = record_file::create_draft(&self.directory).at("record the kept changes", &self.path)?;
        record_file::write_draft(&draft, &self.path, record)?;
        self.commit_draft()
    }

    /// Adds the state of the real tree at the end of a container. Entries of an earlier container stay as they are.
    ///
    /// # Errors
    /// The record can't be read or written.
    pub fn add_baseline(&self, entries: Vec<BaselineEntry>) -> Result<()> {
        let Some(mut record) = self.record()? else { return Ok(()) };
        let known: HashSet<_> = record.baseline.iter().map(|entry| (entry.layer, entry.inner.clone())).collect();
        let is_new = |entry: &BaselineEntry| !known.contains(&(entry.layer, entry.inner.clone()));
        let new: Vec<BaselineEntry> = entries.into_iter().filter(is_new).collect();
        if new.is_empty() {
            return Ok(());
        }
        record.baseline.extend(new);
        self.rewrite(&record)
    }

    /// Drops the entries of what an apply has replaced: that state of the real tree is gone.
    ///
    /// # Errors
    /// The record can't be read or written.
    pub fn drop_baseline(&self, applied: &[AppliedChange]) -> Result<()> {
        let Some(mut record) = self.record()? else { return Ok(()) };
        let gone: HashMap<(usize, String), bool> =
            applied.iter().map(|applied| ((applied.layer, escaped(&applied.inner)), applied.whole)).collect();
        let is_gone = |entry: &BaselineEntry| {
            let at = |end: usize| gone.get(&(entry.layer, entry.inner[..end].to_owned())).copied();
            at(entry.inner.len()).is_some() || entry.inner.match_indices('/').any(|(end, _)| at(end) == Some(true))
        };
        let before = record.baseline.len();
        record.baseline.retain(|entry| !is_gone(entry));
        if record.baseline.len() == before { Ok(()) } else { self.rewrite(&record) }
    }

    /// Adds files that an apply is about to give names to, or to take names from.
    ///
    /// # Errors
    /// The record can't be written.
    pub fn add_linked_files(&self, record: &ChangesRecord, new: Vec<FileStamp>) -> Result<()> {
        if new.is_empty() {
            return Ok(());
        }
        let mut record = record.clone();
        record.linked_files.extend(new);
        self.rewrite(&record)
    }
}

fn no_changes(path: &str) -> Error {
    Error::new(Code::InvalidArgument, "read the kept changes", "no changes are kept here")
        .on(path)
        .hint(format!("give a directory that {RUN} with {UPPER} made"))
}

/// Refuses a mount by which the container could write to the directory of its changes: it could make them apply to any
/// tree.
fn refuse_writable_mounts(path: &str, mounts: &[Mount]) -> Result<()> {
    let real = |path: &Path| match (path.canonicalize(), path.parent().map(Path::canonicalize), path.file_name()) {
        (Ok(real), ..) => real,
        // It will be created.
        (Err(_), Some(Ok(parent)), Some(name)) => parent.join(name),
        _ => path.to_owned(),
    };
    let directory = real(Path::new(path));
    for mount in mounts.iter().filter(|mount| !mount.attributes.read_only) {
        let MountSource::Bind { path: source, .. } = &mount.source else { continue };
        let source = real(Path::new(source));
        if directory.starts_with(&source) || source.starts_with(&directory) {
            return Err(Error::new(
                Code::InvalidArgument,
                "keep changes in",
                "the container could write to it through a mount",
            )
            .on(format!("{path} with {}", mount.option))
            .hint("choose a directory outside of the mount, or mount read-only"));
        }
    }
    Ok(())
}

/// Opens the directory of the layers in a directory of kept changes.
///
/// # Errors
/// Those of openat(2).
pub fn open_layers(directory: impl AsFd, access: OFlags) -> rustix::io::Result<OwnedFd> {
    let flags = access | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(directory, LAYERS, flags, Mode::empty())
}

/// Whether both descriptors are of the same directory.
#[must_use]
pub fn is_same_directory(a: impl AsFd, b: impl AsFd) -> bool {
    matches!((fstat(a), fstat(b)), (Ok(a), Ok(b)) if file_id(&a) == file_id(&b))
}
