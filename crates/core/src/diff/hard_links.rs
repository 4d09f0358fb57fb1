//! Files with several names (hard links), in a layer and below it.

use std::collections::{BTreeMap, HashMap};

use rustix::fs::Stat;

use super::change::ExistingLink;
use super::file_stamp::{FileId, FileStamp, file_id};
use super::{Change, ChangeKind, Difference};

/// The names that one file has in the layer.
#[derive(Default)]
struct UpperFile {
    /// Names under which the real tree has the very same file.
    unchanged: Vec<ExistingLink>,
    /// Index of the change of every other name.
    changed: Vec<usize>,
}

/// The names that one file has below the layer.
struct LowerFile {
    /// How many there are in all.
    count: usize,
    /// Indexes of the changes of those that the layer shows.
    changed: Vec<usize>,
}

/// The files with several names that a walk through one layer has met.
#[derive(Default)]
pub(super) struct HardLinks {
    /// Files of the layer itself, by inode number: a layer is one file system.
    upper: BTreeMap<u64, UpperFile>,
    lower: HashMap<FileId, LowerFile>,
}

impl HardLinks {
    /// Adds a name whose change has this index.
    pub fn add_changed(&mut self, index: usize, upper: Option<&Stat>, lower: Option<&Stat>) {
        if let Some(upper) = upper.filter(|stat| stat.st_nlink > 1) {
            self.upper.entry(upper.st_ino).or_default().changed.push(index);
        }
        if let Some(lower) = lower.filter(|stat| stat.st_nlink > 1) {
            let count = usize::try_from(lower.st_nlink).unwrap_or(usize::MAX);
            let new = || LowerFile { count, changed: Vec::new() };
            self.lower.entry(file_id(lower)).or_insert_with(new).changed.push(index);
        }
    }

    /// Adds a name of a file that is the same in the layer and below it.
    pub fn add_unchanged(&mut self, inner: &[u8], upper: &Stat, lower: &Stat) {
        if upper.st_nlink > 1 {
            let link = ExistingLink { inner: inner.to_vec(), stamp: FileStamp::of(lower) };
            self.upper.entry(upper.st_ino).or_default().unchanged.push(link);
        }
    }

    /// Points every change at a name under which the real tree has the file already. Returns the names that became names
    /// of another file, each with the name of that.
    pub fn relink(&mut self, changes: &mut [Change]) -> Vec<(ExistingLink, ExistingLink)> {
        let mut relinked = Vec::new();
        for UpperFile { unchanged, changed } in std::mem::take(&mut self.upper).into_values() {
            let Some((first, others)) = unchanged.split_first() else { continue };
            for index in changed {
                changes[index].existing_link = Some(Box::new(first.clone()));
            }
            let is_other = |link: &&ExistingLink| link.stamp.file_id() != first.stamp.file_id();
            relinked.extend(others.iter().filter(is_other).map(|link| (link.clone(), first.clone())));
        }
        relinked
    }

    /// Counts, for every modified file, the names below that the layer doesn't show.
    pub fn count_other_names(self, changes: &mut [Change]) {
        for LowerFile { count, changed } in self.lower.into_values() {
            for index in &changed {
                let change = &mut changes[*index];
                // With another type, or as a name of another file, it is certainly a new file.
                let written = change.kind == ChangeKind::Modified && change.existing_link.is_none();
                if written && change.differences != [Difference::Type] {
                    change.other_names = count.saturating_sub(changed.len());
                }
            }
        }
    }
}
