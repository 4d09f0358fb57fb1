//! The state of the real tree when a command had ended: what differs from it now has changed since.

use std::collections::HashMap;

use rustix::fs::Stat;
use serde::{Deserialize, Serialize};

use super::attributes::DirectoryAttributes;
use super::file_stamp::change_time;
use super::record::ChangesRecord;
use nsrs_base::text::escaped;

/// A path of the real tree that a layer replaces or hides, as the first command that did so left it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BaselineEntry {
    /// Index of the layer in [`ChangesRecord::layers`].
    pub layer: usize,
    /// Path in the layer, [`escaped`].
    pub inner: String,
    /// Inode number. The file system isn't recorded: its device number may change with a reboot.
    pub ino: u64,
    /// Change time (ctime), in nanoseconds since 1970.
    pub changed: i64,
    /// When that command started, in nanoseconds since 1970: it may not have seen what changed since then.
    pub since: i64,
    /// The attributes of a directory.
    #[serde(default, rename = "dress", skip_serializing_if = "Option::is_none")]
    pub attributes: Option<DirectoryAttributes>,
}

impl BaselineEntry {
    /// Whether this is unchanged, and was so when the command saw it. File times are coarser than writes can follow each
    /// other, so a change at that very moment counts.
    pub(super) fn is_unchanged(&self, stat: &Stat) -> bool {
        self.is_same_file(stat) && self.changed == change_time(stat) && self.changed < self.since
    }

    /// Whether it is the same file or directory, changed or not.
    pub(super) fn is_same_file(&self, stat: &Stat) -> bool {
        self.ino == stat.st_ino
    }
}

/// The entries of a record, by layer and path.
#[derive(Debug)]
pub(super) struct Baseline<'a>(HashMap<(usize, &'a str), &'a BaselineEntry>);

impl<'a> Baseline<'a> {
    pub fn of(record: &'a ChangesRecord) -> Baseline<'a> {
        Baseline(record.baseline.iter().map(|entry| ((entry.layer, entry.inner.as_str()), entry)).collect())
    }

    pub fn get(&self, layer: usize, inner: &[u8]) -> Option<&'a BaselineEntry> {
        if self.0.is_empty() { None } else { self.0.get(&(layer, escaped(inner).as_str())).copied() }
    }
}
