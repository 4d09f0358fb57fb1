//! What changed in the real tree since the command ran: an apply overwrites nothing that the command has not seen.

use std::collections::HashMap;

use rustix::fs::{Access, AtFlags, Dir, FileType, Stat, accessat, statat};
use rustix::io::{Errno, Result};
use rustix::process::geteuid;

use super::access_guard::{AccessGuard, INSIDE};
use super::attributes::DirectoryAttributes;
use super::baseline::Baseline;
use super::depth::MAX_DEPTH;
use super::file_stamp::{FileId, FileStamp, change_time, file_id};
use super::record::ChangesRecord;

/// The access to a directory that removing an entry takes.
pub(super) const WRITE_ACCESS: Access = Access::WRITE_OK.union(Access::EXEC_OK);

/// The real tree as the command saw it, and what an apply has done to it itself.
#[derive(Debug)]
pub(super) struct ConflictDetector<'a> {
    /// When the layers were new, in nanoseconds since 1970.
    since: i64,
    baseline: Baseline<'a>,
    /// Files with several names that had not changed before the apply started.
    linked_files: HashMap<FileId, FileStamp>,
    /// Directories that this apply has made, by layer and path.
    made_directories: HashMap<(usize, Vec<u8>), FileId>,
}

impl ConflictDetector<'_> {
    pub fn of(record: &ChangesRecord) -> ConflictDetector<'_> {
        let linked_files = record.linked_files.iter().map(|stamp| (stamp.file_id(), *stamp)).collect();
        let baseline = Baseline::of(record);
        ConflictDetector { since: record.since, baseline, linked_files, made_directories: HashMap::new() }
    }

    /// Adds a file with several names, if it has not changed: giving it a name, or taking one away, alters its change
    /// time. Returns the stamp if it is a new one.
    pub fn add_linked_file(&mut self, layer: usize, inner: &[u8], stat: &Stat) -> Option<FileStamp> {
        let is_unchanged = match self.baseline.get(layer, inner) {
            Some(entry) => entry.is_unchanged(stat),
            None => change_time(stat) < self.since,
        };
        let stamp = FileStamp::of(stat);
        (is_unchanged && self.linked_files.insert(stamp.file_id(), stamp) != Some(stamp)).then_some(stamp)
    }

    pub fn add_made_directory(&mut self, layer: usize, inner: &[u8], directory: FileId) {
        self.made_directories.insert((layer, inner.to_vec()), directory);
    }

    /// Whether this directory is the one that this apply has made, or that the command saw: whoever may write to the
    /// directory above could have replaced it. With `force` any that the apply has not made will do.
    pub fn is_expected_directory(&self, layer: usize, inner: &[u8], directory: &Stat, force: bool) -> bool {
        match self.made_directories.get(&(layer, inner.to_vec())) {
            Some(made) => *made == file_id(directory),
            None => force || self.baseline.get(layer, inner).is_none_or(|entry| entry.is_same_file(directory)),
        }
    }

    /// Whether this directory has the attributes that the command saw, those of the layer's directory, or is on the way
    /// from one to the other.
    pub fn has_expected_attributes(
        &self,
        layer: usize,
        inner: &[u8],
        directory: &AccessGuard,
        upper: &AccessGuard,
    ) -> Result<bool> {
        let now = DirectoryAttributes::of_open(directory, &directory.stat)?;
        let new = DirectoryAttributes::of_open(upper, &upper.stat)?;
        Ok(match self.baseline.get(layer, inner) {
            Some(entry) => {
                entry.is_same_file(&directory.stat) && now.is_between(entry.attributes.as_ref().unwrap_or(&new), &new)
            }
            None => change_time(&directory.stat) < self.since || now.is_between(&new, &new),
        })
    }

    /// Whether this entry is another than the command saw, or anything in it has changed since.
    ///
    /// # Errors
    /// It can't be removed: something is mounted in it, or a directory in it can't be read or emptied.
    pub fn has_changed(
        &self,
        layer: usize,
        inner: &[u8],
        parent: &AccessGuard,
        name: &[u8],
        stat: &Stat,
    ) -> Result<bool> {
        let entry = self.baseline.get(layer, inner);
        let since = entry.map_or(self.since, |entry| entry.since);
        let is_same = entry.is_none_or(|entry| {
            entry.is_unchanged(stat) || (entry.is_same_file(stat) && self.is_unchanged_linked_file(stat))
        });
        Ok(self.has_changed_since(since, parent, name, stat, 0)? || !is_same)
    }

    /// Whether it had not changed before the apply started, and only its names are different since then.
    fn is_unchanged_linked_file(&self, stat: &Stat) -> bool {
        self.linked_files.get(&file_id(stat)) == Some(&FileStamp::of(stat))
    }

    /// Whether this, or anything in it, has changed since then. Fails for what couldn't be removed completely: removing
    /// ends at the border of a file system. File times are coarser than writes can follow each other, so a change at that
    /// very moment counts.
    fn has_changed_since(
        &self,
        since: i64,
        parent: &AccessGuard,
        name: &[u8],
        stat: &Stat,
        depth: usize,
    ) -> Result<bool> {
        let mut has_changed = change_time(stat) >= since && !self.is_unchanged_linked_file(stat);
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Ok(has_changed);
        }
        if depth > MAX_DEPTH {
            return Err(Errno::MFILE);
        }
        let directory = AccessGuard::directory(parent, name, INSIDE)?;
        let mut entries: Vec<_> = Dir::read_from(&directory)?.collect::<Result<_>>()?;
        entries.retain(|entry| !matches!(entry.file_name().to_bytes(), b"." | b".."));
        // A directory that can't be emptied must not be begun with.
        if !entries.is_empty() && stat.st_uid != geteuid().as_raw() {
            accessat(&directory, ".", WRITE_ACCESS, AtFlags::EACCESS)?;
        }
        for entry in entries {
            let name = entry.file_name().to_bytes();
            let stat = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
            has_changed |= self.has_changed_since(since, &directory, name, &stat, depth + 1)?;
        }
        Ok(has_changed)
    }
}
