//! From writable layers to a list of changes.

mod entries;
mod walker;

use std::os::fd::AsFd;

use rustix::fs::{FileType, ResolveFlags};
use rustix::io::Errno;

use super::access_guard::AccessGuard;
use super::attributes::DirectoryAttributes;
use super::baseline::{Baseline, BaselineEntry};
use super::lower_directory::LowerDirectory;
use super::{ChangeKind, ChangesRecord, Difference, Listing};
use entries::Level;
use nsrs_base::error::{At, Result};
use walker::Walker;

const STEP: &str = "list the changes";

/// How much of the layers is read, and what happens where reading is refused.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WalkMode<'a> {
    /// List everything; fail at what can't be read.
    Complete,
    /// List everything; mark what can't be read, and find leftovers with this temporary name below.
    ForApply(&'a str),
    /// Only record the baseline: no file is read.
    BaselineOnly,
}

/// Lists the changes that the layers in this directory show, sorted by path.
///
/// A file that was only opened for writing, or was given back its content, has not changed. A change of nothing but
/// times is not listed either.
///
/// # Errors
/// A directory can't be read, or is nested too deep.
pub(super) fn list_changes(layers: impl AsFd, record: &ChangesRecord) -> Result<Listing> {
    walk_layers(layers, record, WalkMode::Complete)
}

/// As [`list_changes`], but marks what can't be read because it belongs to another user, and finds what an interrupted
/// apply left under its temporary name.
///
/// # Errors
/// Those of [`list_changes`].
pub(super) fn list_for_apply(layers: impl AsFd, record: &ChangesRecord, temporary: &str) -> Result<Listing> {
    walk_layers(layers, record, WalkMode::ForApply(temporary))
}

/// Only the state of the real tree behind everything that the layers replace or hide.
///
/// # Errors
/// Those of [`list_changes`].
pub(super) fn read_baseline(layers: impl AsFd, record: &ChangesRecord) -> Result<Vec<BaselineEntry>> {
    walk_layers(layers, record, WalkMode::BaselineOnly).map(|listing| listing.baseline)
}

fn walk_layers(layers: impl AsFd, record: &ChangesRecord, mode: WalkMode<'_>) -> Result<Listing> {
    let mut listing = Listing::default();
    let baseline = Baseline::of(record);
    for (number, layer) in record.layers.iter().enumerate() {
        let name = format!("{number}/upper");
        let upper =
            AccessGuard::directory(&layers, name.as_bytes(), ResolveFlags::NO_SYMLINKS).at(STEP, &layer.path)?;
        let lower = match LowerDirectory::open(&layer.lowers) {
            // What can't be read now could not be read then.
            Err(Errno::NOENT | Errno::ACCESS) => LowerDirectory::default(),
            other => other.at(STEP, &layer.path)?,
        };
        let mut walker = Walker::new(record, number, layer, &baseline, mode, &mut listing);
        let (bits, below) = (upper.stat.st_mode & 0o7777, lower.top());
        if !layer.plain && bits != layer.mode && below.is_none_or(|below| below.stat.st_mode & 0o7777 != bits) {
            walker.report(ChangeKind::Modified, FileType::Directory, vec![Difference::Mode], Vec::new());
        }
        if let Some(below) = below {
            walker.add_baseline(&below.stat, DirectoryAttributes::of_open(below, &below.stat).ok());
        }
        walker.directory(Level { upper: &upper, lower: &lower, depth: 0, plain: layer.plain, hides_lower: false })?;
        walker.finish_hard_links();
    }
    listing.changes.sort_by(|a, b| a.path.split(|byte| *byte == b'/').cmp(b.path.split(|byte| *byte == b'/')));
    Ok(listing)
}
