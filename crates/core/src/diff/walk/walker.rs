//! Where a walk through one layer is, and what it adds to the listing.

use rustix::fs::{FileType, Stat};

use super::{STEP, WalkMode};
use crate::diff::attributes::DirectoryAttributes;
use crate::diff::baseline::{Baseline, BaselineEntry};
use crate::diff::depth::TOO_DEEP;
use crate::diff::file_stamp::change_time;
use crate::diff::hard_links::HardLinks;
use crate::diff::{Change, ChangeKind, ChangesRecord, Difference, Hazard, Listing, UpperLayer};
use nsrs_base::error::{At, Code, Error, Result};
use nsrs_base::text::escaped;

pub(super) struct Walker<'a> {
    record: &'a ChangesRecord,
    pub number: usize,
    pub layer: &'a UpperLayer,
    /// Of an earlier command on the same layers.
    pub baseline: &'a Baseline<'a>,
    pub mode: WalkMode<'a>,
    pub listing: &'a mut Listing,
    /// Where the walk is: the path relative to the layer's root, without a slash at its ends.
    pub path: Vec<u8>,
    hard_links: HardLinks,
}

impl<'a> Walker<'a> {
    pub fn new(
        record: &'a ChangesRecord,
        number: usize,
        layer: &'a UpperLayer,
        baseline: &'a Baseline<'a>,
        mode: WalkMode<'a>,
        listing: &'a mut Listing,
    ) -> Walker<'a> {
        Walker { record, number, layer, baseline, mode, listing, path: Vec::new(), hard_links: HardLinks::default() }
    }

    /// The path in the container.
    fn container_path(&self) -> Vec<u8> {
        let mut path = self.layer.path.trim_end_matches('/').as_bytes().to_vec();
        if !self.path.is_empty() || path.is_empty() {
            path.push(b'/');
            path.extend_from_slice(&self.path);
        }
        path
    }

    /// Runs something for the entry with this name in the current directory.
    pub fn within(&mut self, name: &[u8], act: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let length = self.path.len();
        if length > 0 {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
        let result = act(self);
        self.path.truncate(length);
        result
    }

    pub fn at<T>(&self, result: rustix::io::Result<T>) -> Result<T> {
        result.at(STEP, escaped(&self.container_path())).map_err(|error| match error.errno {
            Some(libc::EMFILE) => self.too_deep(),
            _ => error,
        })
    }

    pub fn too_deep(&self) -> Error {
        // The beginning of such a path says enough.
        let path = self.container_path();
        Error::new(Code::Unsupported, STEP, TOO_DEEP).on(escaped(&path[..path.len().min(200)]))
    }

    pub fn is_for_apply(&self) -> bool {
        matches!(self.mode, WalkMode::ForApply(_))
    }

    pub fn is_baseline_only(&self) -> bool {
        self.mode == WalkMode::BaselineOnly
    }

    pub fn is_mount_point(&self) -> bool {
        let path = self.container_path();
        self.record.mount_points.iter().any(|point| point.as_bytes() == path)
    }

    /// Whether something was mounted here or below: then it existed before the command.
    pub fn leads_to_mount_point(&self) -> bool {
        self.leads_to(&self.record.mount_points)
    }

    /// Whether it was made for the command, or leads to what was.
    pub fn leads_to_made(&self) -> bool {
        self.leads_to(&self.record.made)
    }

    fn leads_to(&self, places: &[String]) -> bool {
        let mut path = self.container_path();
        path.push(b'/');
        places.iter().any(|place| [place.as_bytes(), b"/"].concat().starts_with(&path))
    }

    /// Adds a change of the current path.
    pub fn report(
        &mut self,
        kind: ChangeKind,
        file_type: FileType,
        differences: Vec<Difference>,
        hazards: Vec<Hazard>,
    ) {
        if self.is_baseline_only() {
            return;
        }
        self.listing.changes.push(Change {
            kind,
            path: self.container_path(),
            file_type,
            differences,
            hazards,
            layer: self.number,
            inner: self.path.clone(),
            other_names: 0,
            existing_link: None,
            unreadable: false,
        });
    }

    /// Whether the last change is one of the current path.
    pub fn is_reported(&self) -> bool {
        let last = self.listing.changes.last();
        last.is_some_and(|change| change.layer == self.number && change.inner == self.path)
    }

    /// Marks the change that was listed last as one that couldn't be read in full.
    pub fn mark_unreadable(&mut self) {
        if let Some(change) = self.listing.changes.last_mut() {
            change.unreadable = true;
        }
    }

    /// Reports that the current path is gone.
    pub fn report_deleted(&mut self, was: &Stat) {
        let file_type = FileType::from_raw_mode(was.st_mode);
        self.report(ChangeKind::Deleted, file_type, Vec::new(), Vec::new());
        if file_type != FileType::Directory {
            self.add_changed_name(None, Some(was));
        }
    }

    /// Adds a name whose change was reported last to the files with several names.
    pub fn add_changed_name(&mut self, upper: Option<&Stat>, lower: Option<&Stat>) {
        if let Some(last) = self.listing.changes.len().checked_sub(1).filter(|_| !self.is_baseline_only()) {
            self.hard_links.add_changed(last, upper, lower);
        }
    }

    pub fn add_unchanged_name(&mut self, upper: &Stat, lower: &Stat) {
        self.hard_links.add_unchanged(&self.path, upper, lower);
    }

    /// Reports hard links, once all names in the layer are known.
    pub fn finish_hard_links(mut self) {
        for (name, other) in self.hard_links.relink(&mut self.listing.changes) {
            self.path = name.inner;
            let file_type = FileType::from_raw_mode(name.stamp.mode);
            self.report(ChangeKind::Modified, file_type, vec![Difference::Links], Vec::new());
            if let Some(change) = self.listing.changes.last_mut() {
                change.existing_link = Some(Box::new(other));
            }
        }
        if !self.layer.is_image {
            self.hard_links.count_other_names(&mut self.listing.changes);
        }
    }

    /// Adds the real tree's state of the current path to the baseline, unless it is below an image or not wanted.
    pub fn add_baseline(&mut self, stat: &Stat, attributes: Option<DirectoryAttributes>) {
        if self.is_for_apply() || self.layer.is_image {
            return;
        }
        self.listing.baseline.push(BaselineEntry {
            layer: self.number,
            inner: escaped(&self.path),
            ino: stat.st_ino,
            changed: change_time(stat),
            since: self.record.began,
            attributes,
        });
    }
}
