//! What is needed to read the writable layers of a container: kept beside them as `changes.json`.

use nsrs_base::error::{Code, Error, Result};
use serde::{Deserialize, Serialize};

use super::baseline::BaselineEntry;
use super::file_stamp::FileStamp;

/// The version of the format of `changes.json`, which a reader compares before anything else.
pub const FORMAT: u32 = 2;

/// A writable layer of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpperLayer {
    /// Where it is mounted in the container.
    pub path: String,
    /// The directories of the host below it, the uppermost first.
    pub lowers: Vec<String>,
    /// Whiteouts and opaque directories are marked by extended attributes of users (overlayfs' `userxattr`).
    pub user_xattrs: bool,
    /// Not an overlay, but a new directory in place of the one below: what is missing in it was not removed, unless it
    /// is a link.
    pub plain: bool,
    /// The layers below belong to an image: there is no real tree to apply the changes to.
    pub is_image: bool,
    /// Permission bits that the layer's own directory was made with.
    pub mode: u32,
}

/// What is known of the writable layers of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChangesRecord {
    /// The version of the format that wrote the record: [`FORMAT`].
    pub format: u32,
    /// When the layers were new, in nanoseconds since 1970: the command has not seen what changed below since then.
    pub since: i64,
    /// When the last command started, in nanoseconds since 1970.
    pub began: i64,
    /// Layer N is the directory `N/upper`.
    pub layers: Vec<UpperLayer>,
    /// Where something was mounted in the container: these paths, and the directories made for them, are not changes of
    /// the command.
    pub mount_points: Vec<String>,
    /// Directories made for the command: its working directory, and the volumes of an image.
    #[serde(default)]
    pub made: Vec<String>,
    /// The real tree behind everything that the layers replace or hide. A path without an entry (the supervisor of a
    /// command was killed) is compared by time alone.
    #[serde(default, rename = "bases")]
    pub baseline: Vec<BaselineEntry>,
    /// Files with several names as they were before an apply: replacing one of the names doesn't change the file.
    #[serde(default, rename = "known")]
    pub linked_files: Vec<FileStamp>,
}

impl ChangesRecord {
    /// The record of a container that continues with the layers of an earlier one.
    ///
    /// # Errors
    /// The layers of the earlier one are over another tree.
    pub fn continue_from(&mut self, earlier: ChangesRecord, path: &str) -> Result<()> {
        let places = |record: &ChangesRecord| -> Vec<_> {
            let one = |layer: &UpperLayer| (layer.path.clone(), layer.lowers.clone(), layer.user_xattrs, layer.plain);
            record.layers.iter().map(one).collect()
        };
        if places(&earlier) != places(self) {
            return Err(Error::new(
                Code::InvalidArgument,
                "continue with the kept changes",
                "they belong to another tree",
            )
            .on(path)
            .hint("run from the same directory with the same root and mounts, or choose another directory"));
        }
        self.since = earlier.since;
        for (layer, earlier) in self.layers.iter_mut().zip(&earlier.layers) {
            layer.mode = earlier.mode;
        }
        let merge = |own: &mut Vec<String>, earlier: Vec<String>| {
            own.extend(earlier);
            own.sort();
            own.dedup();
        };
        merge(&mut self.mount_points, earlier.mount_points);
        merge(&mut self.made, earlier.made);
        self.baseline = earlier.baseline;
        self.linked_files = earlier.linked_files;
        Ok(())
    }
}
