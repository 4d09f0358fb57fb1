//! Kept changes, applied to the real tree.
//!
//! The layers were written by a command that nobody need trust: whatever they hold, no path of theirs is resolved through a
//! link, and none leads out of the directory that the layer was over, nor into another file system. The real tree may have
//! changed since the command ran, and others may change it at the same time: each step starts from a descriptor of its
//! directory.

mod errors;
#[cfg(test)]
mod tests;
mod trees;

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Access, AtFlags, FileType, Stat, fstat, statat};
use rustix::io::Errno;

use super::access_guard::AccessGuard;
use super::attributes::copy_to_directory;
use super::change::ExistingLink;
use super::conflict::{ConflictDetector, WRITE_ACCESS};
use super::file_stamp::{FileId, FileStamp, file_id};
use super::replace::{TargetName, clear_temporary, remove_name, replace_by_directory, replace_by_file};
use super::walk::list_for_apply;
use super::{Change, ChangeKind, ChangesRecord, Listing, describe_hazards};
use errors::{STEP, conflict, failed, replaced};
use nsrs_base::error::{Code, Error, Result};
use nsrs_base::options::{FORCE, PRIVILEGED_FILES, UPPER};
use nsrs_base::text::escaped;
use nsrs_base::tree::{xattrs, xattrs_of};
use trees::{DirectoryPair, Trees, split};

/// What an apply may do besides the ordinary. The default: nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Consent {
    /// Overwrite what has changed in the real tree since the command ran.
    pub force: bool,
    /// Apply files that give rights: set-user-ID and set-group-ID bits, file capabilities, devices.
    pub privileged: bool,
}

/// Applies the changes of one record.
#[derive(Debug)]
pub struct Apply<'a> {
    trees: Trees<'a>,
    conflicts: ConflictDetector<'a>,
    /// A name in the real tree of each file with several names that was applied, by layer and inode there.
    applied_files: HashMap<(usize, u64), ExistingLink>,
    /// The name under which new files are made.
    temporary: String,
    /// Directories with a temporary file of an interrupted apply, see [`Listing::leftovers`].
    leftovers: Vec<(usize, Vec<u8>)>,
    applied: Vec<AppliedChange>,
}

/// A change that was applied: what was there before is gone.
#[derive(Debug)]
pub struct AppliedChange {
    pub(super) layer: usize,
    /// Path relative to the layer's root, without a slash at its ends.
    pub(super) inner: Vec<u8>,
    /// Everything that was below the path is gone, too.
    pub(super) whole: bool,
}

impl AppliedChange {
    fn of(change: &Change) -> AppliedChange {
        let whole = change.kind == ChangeKind::Deleted || change.file_type != FileType::Directory;
        AppliedChange { layer: change.layer, inner: change.inner.clone(), whole }
    }
}

/// How far a change is applied. Directories get their attributes when everything is in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Done,
    /// A directory that existed lacks its attributes.
    AttributesLeft(FileId),
    /// A new directory lacks its attributes and times.
    NewDirectory(FileId),
}

/// Lists the changes as an apply at this moment would make them.
///
/// # Errors
/// A directory can't be read or is nested too deep; the layers are over an image.
pub fn list(layers: impl AsFd, record: &ChangesRecord) -> Result<Listing> {
    if let Some(layer) = record.layers.iter().find(|layer| layer.is_image || layer.lowers.len() != 1) {
        return Err(Error::new(Code::Unsupported, "apply the changes", "the layers of an image can't be changed")
            .on(&layer.path)
            .hint(format!("run with the same {UPPER} to continue with them")));
    }
    let temporary = temporary_name(&layers, record);
    list_for_apply(layers, record, &temporary)
}

/// The temporary name. It is the same for every apply of these changes, of which there is one at a time, so that each finds
/// what an interrupted one has left.
fn temporary_name(layers: impl AsFd, record: &ChangesRecord) -> String {
    let ino = fstat(layers).map_or(0, |stat| stat.st_ino);
    format!(".nsrs-apply-{:x}-{ino:x}", record.since)
}

impl Apply<'_> {
    /// Opens the trees.
    ///
    /// # Errors
    /// One is gone.
    pub fn new(layers: impl AsFd, record: &ChangesRecord) -> Result<Apply<'_>> {
        Ok(Apply {
            temporary: temporary_name(&layers, record),
            trees: Trees::open(layers, record)?,
            conflicts: ConflictDetector::of(record),
            applied_files: HashMap::new(),
            leftovers: Vec::new(),
            applied: Vec::new(),
        })
    }

    /// Also removes what an interrupted apply has left.
    #[must_use]
    pub fn with_leftovers_of(mut self, listing: &Listing) -> Self {
        self.leftovers.clone_from(&listing.leftovers);
        self
    }

    /// Recognizes the files with several names that have not changed. Returns those that the record does not have yet.
    pub fn add_linked_files(&mut self, changes: &[Change]) -> Vec<FileStamp> {
        let mut new = Vec::new();
        for change in changes {
            let link = change.existing_link.as_ref().map(|link| &link.inner);
            for inner in [Some(&change.inner), link].into_iter().flatten() {
                let parent = self.trees.target_parent(change.layer, inner, Access::EXEC_OK);
                let Ok(Some((parent, name))) = parent else { continue };
                let Ok(stat) = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
                let has_several_names = stat.st_nlink > 1 || link == Some(inner);
                if FileType::from_raw_mode(stat.st_mode) != FileType::Directory && has_several_names {
                    new.extend(self.conflicts.add_linked_file(change.layer, inner, &stat));
                }
            }
        }
        new
    }

    /// Applies all changes that can be; returns why the others were not. Call [`Apply::add_linked_files`] first.
    pub fn all(&mut self, changes: &[Change], consent: Consent) -> Vec<Error> {
        let mut errors = self.remove_leftovers();
        let mut directories = Vec::new();
        for change in changes {
            match self.one(change, consent) {
                Ok(Progress::Done) => self.applied.push(AppliedChange::of(change)),
                Ok(Progress::AttributesLeft(id)) => directories.push((change, id, false)),
                Ok(Progress::NewDirectory(id)) => {
                    self.conflicts.add_made_directory(change.layer, &change.inner, id);
                    directories.push((change, id, true));
                }
                Err(error) => errors.push(error),
            }
        }
        // Last: the attributes may open a directory to others, who must not find incomplete entries; and its times change
        // with its entries.
        for (change, id, is_new) in directories.into_iter().rev() {
            match self.apply_attributes(change, id, is_new) {
                Ok(()) => self.applied.push(AppliedChange::of(change)),
                Err(error) => errors.push(error),
            }
        }
        errors
    }

    /// Removes what an interrupted apply has left: a part of a file, or a directory that was being removed.
    pub fn remove_leftovers(&self) -> Vec<Error> {
        let mut errors = Vec::new();
        for (layer, inner) in &self.leftovers {
            let directory = self.trees.target_directory(*layer, inner, WRITE_ACCESS);
            if let Err(errno) = directory.and_then(|directory| clear_temporary(&directory, &self.temporary)) {
                let subject = format!("{}/{}", escaped(inner), self.temporary);
                errors.push(Error::os("remove what an interrupted apply left", subject, errno));
            }
        }
        errors
    }

    /// Writes the real trees to disk (syncfs(2)).
    ///
    /// # Errors
    /// The disk refuses.
    pub fn sync(&self) -> Result<()> {
        self.trees.sync()
    }

    /// The changes that were applied.
    #[must_use]
    pub fn applied(&self) -> &[AppliedChange] {
        &self.applied
    }

    /// Applies one change, except for the attributes of a directory.
    fn one(&mut self, change: &Change, consent: Consent) -> Result<Progress> {
        refuse_without_consent(change, consent)?;
        let subject = escaped(&change.path);
        let fail = |errno: Errno| failed(&subject, errno);
        let parent = self.trees.target_parent(change.layer, &change.inner, WRITE_ACCESS).map_err(fail)?;
        let Some((parent, name)) = parent else {
            return self.existing_directory(change, consent).map(Progress::AttributesLeft);
        };
        let (above, _) = split(&change.inner);
        if !self.conflicts.is_expected_directory(change.layer, above, &parent.stat, consent.force) {
            return Err(replaced(subject));
        }
        let old = match statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => None,
            other => Some(other.map_err(fail)?),
        };
        let is_directory = |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let stays = change.kind == ChangeKind::Modified
            && change.file_type == FileType::Directory
            && old.as_ref().is_some_and(is_directory);
        if stays {
            return self.existing_directory(change, consent).map(Progress::AttributesLeft);
        }
        self.refuse_conflict(change, consent, &parent, name, old.as_ref())?;
        let target = TargetName {
            directory: &parent,
            name,
            temporary: &self.temporary,
            must_be_new: change.kind == ChangeKind::Added && !consent.force,
            old: old.as_ref().map(file_id),
        };
        if change.kind == ChangeKind::Deleted {
            return remove_name(target).map(|()| Progress::Done).map_err(fail);
        }
        if change.file_type == FileType::Directory {
            // With its attributes at once: an apply that continues finds it as the layer has it.
            let upper = self.trees.upper_directory(change).map_err(fail)?;
            return replace_by_directory(&upper, target).map(Progress::NewDirectory).map_err(fail);
        }
        let (upper, name, stat) = self.trees.upper_file(change).map_err(fail)?;
        let link_to = self.existing_file(change, &upper, name, &stat).map_err(fail)?;
        replace_by_file(&upper, &stat, target, link_to.as_ref()).map_err(fail)?;
        if stat.st_nlink > 1 && link_to.is_none() {
            let applied = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(fail)?;
            let link = ExistingLink { inner: change.inner.clone(), stamp: FileStamp::of(&applied) };
            self.applied_files.insert((change.layer, stat.st_ino), link);
        }
        Ok(Progress::Done)
    }

    /// Refuses to overwrite what has changed since the command ran.
    fn refuse_conflict(
        &self,
        change: &Change,
        consent: Consent,
        parent: &AccessGuard,
        name: &[u8],
        old: Option<&Stat>,
    ) -> Result<()> {
        let subject = escaped(&change.path);
        let Some(old) = old else {
            if change.kind != ChangeKind::Modified || consent.force {
                return Ok(());
            }
            let why = "it was removed since the command ran";
            return Err(Error::new(Code::InUse, STEP, why).on(subject).hint(format!("{FORCE} creates it again")));
        };
        // Asked with `force` as well: it fails for what can't be removed.
        let has_changed = self
            .conflicts
            .has_changed(change.layer, &change.inner, parent, name, old)
            .map_err(|errno| failed(&subject, errno))?;
        if consent.force {
            return Ok(());
        }
        if has_changed || change.kind == ChangeKind::Added {
            return Err(conflict(subject));
        }
        if change.other_names > 0 && old.st_nlink > 1 {
            let why = format!("it is a hard link: {}", change.other_names_clause());
            return Err(Error::new(Code::InUse, STEP, why)
                .on(subject)
                .hint(format!("{FORCE} makes it a file of its own")));
        }
        Ok(())
    }

    /// Opens the file of the real tree that the changed one is another name of, if it is in place and unchanged.
    fn existing_file(
        &self,
        change: &Change,
        upper: &AccessGuard,
        name: &[u8],
        stat: &Stat,
    ) -> rustix::io::Result<Option<OwnedFd>> {
        let link = self.applied_files.get(&(change.layer, stat.st_ino)).or(change.existing_link.as_deref());
        let Some(link) = link.filter(|_| stat.st_nlink > 1) else { return Ok(None) };
        let Some(file) = self.trees.target_file(change.layer, &link.inner)? else { return Ok(None) };
        let is_same = FileStamp::of(&fstat(&file)?) == link.stamp && xattrs_of(&file)? == xattrs(upper, name)?;
        Ok(is_same.then_some(file))
    }

    /// Makes sure that a directory that existed is the one that the command saw, and returns which one it is.
    fn existing_directory(&self, change: &Change, consent: Consent) -> Result<FileId> {
        let subject = escaped(&change.path);
        let act = || {
            let DirectoryPair { target, upper } = self.trees.directory_pair(change)?;
            let is_expected = consent.force
                || self.conflicts.has_expected_attributes(change.layer, &change.inner, &target, &upper)?;
            Ok(is_expected.then(|| file_id(&target.stat)))
        };
        match act() {
            Ok(Some(id)) => Ok(id),
            Ok(None) => Err(conflict(subject)),
            Err(errno) => Err(failed(&subject, errno)),
        }
    }

    /// Gives a directory the attributes of the layer's; a new one its times too.
    fn apply_attributes(&self, change: &Change, id: FileId, is_new: bool) -> Result<()> {
        let subject = escaped(&change.path);
        let fail = |errno| failed(&subject, errno);
        let DirectoryPair { target, upper } = self.trees.directory_pair(change).map_err(fail)?;
        if file_id(&target.stat) != id {
            return Err(replaced(subject));
        }
        copy_to_directory(&target, &upper, is_new).map_err(fail)?;
        target.keep_mode();
        Ok(())
    }
}

/// Refuses a change that gives rights, without consent, and one that can't be read.
fn refuse_without_consent(change: &Change, consent: Consent) -> Result<()> {
    let subject = escaped(&change.path);
    if !change.hazards.is_empty() && !consent.privileged {
        return Err(Error::new(Code::InvalidArgument, STEP, format!("it {}", describe_hazards(&change.hazards)))
            .on(subject)
            .hint(format!("look at it; {PRIVILEGED_FILES} applies such files, too")));
    }
    if change.unreadable {
        return Err(Error::os(STEP, &subject, Errno::ACCESS).hint(
            "it belongs to another user of the container: root can apply it after chown root of the directory and its changes.json",
        ));
    }
    Ok(())
}
