//! Files that have several names (hard links), in a layer and below it.

use std::collections::{BTreeMap, HashMap};

use rustix::fs::{FileType, Stat};

use super::walk::Walker;
use super::{Differs, Kind, Known, Twin};

/// Names that a file has in the layer.
#[derive(Default)]
struct Above {
    /// Those of which the real tree has the very same.
    in_place: Vec<Twin>,
    /// The changes of the others.
    changed: Vec<usize>,
}

/// Names of files that have several.
#[derive(Default)]
pub(super) struct Names {
    /// In the layer, by inode.
    above: BTreeMap<u64, Above>,
    /// Below, by file: how many names it has, and the changes that are of one.
    below: HashMap<(u64, u64), (usize, Vec<usize>)>,
}

impl Walker<'_> {
    /// Notes names of files that have several: the one told last, or with `same` one that has not changed.
    pub(super) fn note_names(&mut self, above: Option<&Stat>, below: Option<&Stat>, same: bool) {
        if self.tells_nothing() {
            return;
        }
        let last = self.listed.changes.len().wrapping_sub(1);
        if let Some(above) = above.filter(|stat| stat.st_nlink > 1) {
            let names = self.names.above.entry(above.st_ino).or_default();
            match below {
                Some(below) if same => names.in_place.push(Twin { inner: self.path.clone(), known: Known::of(below) }),
                _ => names.changed.push(last),
            }
        }
        if let Some(below) = below.filter(|stat| stat.st_nlink > 1 && !same) {
            let count = usize::try_from(below.st_nlink).unwrap_or(usize::MAX);
            self.names.below.entry(Known::of(below).file()).or_insert((count, Vec::new())).1.push(last);
        }
    }

    /// Tells of hard links, when all names of a layer are known.
    pub(super) fn hard_links(&mut self) {
        let Names { above, below } = std::mem::take(&mut self.names);
        for Above { in_place, changed } in above.into_values() {
            let Some(first) = in_place.first() else { continue };
            let twin = Some(Box::new(first.clone()));
            for index in changed {
                self.listed.changes[index].twin.clone_from(&twin);
            }
            for other in in_place.iter().skip(1).filter(|other| other.known.file() != first.known.file()) {
                self.path.clone_from(&other.inner);
                let kind = FileType::from_raw_mode(other.known.mode);
                self.tell(Kind::Modified, kind, vec![Differs::Links], Vec::new());
                if let Some(change) = self.listed.changes.last_mut() {
                    change.twin.clone_from(&twin);
                }
            }
        }
        self.path.clear();
        if self.layer.is_image {
            return;
        }
        for (count, told) in below.into_values() {
            for index in &told {
                let change = &mut self.listed.changes[*index];
                // What was given another type, or made a name of another file, is a new file for sure.
                let written = change.kind == Kind::Modified && change.twin.is_none();
                if written && change.differs != [Differs::Type] {
                    change.other_names = count.saturating_sub(told.len());
                }
            }
        }
    }
}
