//! One change, as it is listed and applied.

use rustix::fs::FileType;
use serde::Serialize;

use super::file_stamp::FileStamp;

/// What happened to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// The path did not exist.
    Added,
    /// It exists with other content or attributes.
    Modified,
    /// The path is gone, with everything in it.
    Deleted,
}

/// What of a modified path is different.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Difference {
    /// The file type: a directory instead of a file, say.
    Type,
    /// The content of a file, the target of a link, the number of a device.
    Content,
    /// The permission bits, set-user-ID, set-group-ID and the sticky bit included.
    Mode,
    /// The id of the user or of the group.
    Owner,
    /// The extended attributes (xattr(7)), access lists included.
    Xattrs,
    /// The path became another name of a file that is otherwise the same.
    Links,
}

/// Why a file could give its users more rights than the command had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hazard {
    /// The set-user-ID bit is set.
    SetUserId,
    /// The set-group-ID bit is set.
    SetGroupId,
    /// The file has file capabilities (capabilities(7)).
    Capabilities,
    /// The file is a device.
    Device,
}

/// A name that a file has in the real tree already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExistingLink {
    /// Path of the name in the layer.
    pub(super) inner: Vec<u8>,
    pub(super) stamp: FileStamp,
}

/// What a command did to one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whether the path is new, modified or gone.
    pub kind: ChangeKind,
    /// Path in the container, absolute.
    pub path: Vec<u8>,
    /// The type that the path has now; of a deleted path, the type it had.
    pub file_type: FileType,
    /// What is different; empty unless modified.
    pub differences: Vec<Difference>,
    /// What to consider before the change is applied.
    pub hazards: Vec<Hazard>,
    /// Index of the layer that shows the change.
    pub layer: usize,
    /// Path in the layer, without a slash at its ends.
    pub inner: Vec<u8>,
    /// How many names (hard links) the modified file has below besides those that the layer shows. They keep their
    /// content: overlayfs copies a file for one name. Without an overlay the command may have changed it for all.
    pub other_names: usize,
    /// A name under which the real tree has this very file already.
    pub existing_link: Option<Box<ExistingLink>>,
    /// The content can't be read: the file belongs to another user of the container.
    pub unreadable: bool,
}

impl Change {
    /// What becomes of the other names of a file that is applied, as a clause.
    pub(super) fn other_names_clause(&self) -> String {
        match self.other_names {
            1 => "the file's other name keeps its content".into(),
            count => format!("the file's {count} other names keep their content"),
        }
    }
}

/// Why a file with these hazards is dangerous, as the end of a sentence.
#[must_use]
pub fn describe_hazards(hazards: &[Hazard]) -> String {
    let one = |hazard: &Hazard| match hazard {
        Hazard::SetUserId => "runs with its owner's rights (set-user-ID)",
        Hazard::SetGroupId => "runs with its group's rights (set-group-ID)",
        Hazard::Capabilities => "has file capabilities",
        Hazard::Device => "is a device",
    };
    hazards.iter().map(one).collect::<Vec<_>>().join(", ")
}
