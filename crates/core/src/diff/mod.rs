//! What a command changed of the tree it saw: read from the writable layers of its overlays, kept, and brought into the
//! real tree.

pub mod apply;
mod base;
pub mod collect;
mod compare;
pub mod keep;
mod lower;
mod meanwhile;
mod names;
mod open;
mod place;
#[cfg(test)]
mod tests;
mod walk;

use std::fmt::Write as _;

use rustix::fs::{FileType, Stat};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

pub use base::{Base, Dress};
pub use walk::{raise_limit, walk};

/// A writable layer and the place it stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Layer {
    /// Path in the container.
    pub path: String,
    /// The directories of the host that it is over, the uppermost first.
    pub lowers: Vec<String>,
    /// Whiteouts and the like stand in attributes of users.
    pub user_xattrs: bool,
    /// No overlay, but a directory made anew in the place of the one below: what is missing in it was not removed, unless it
    /// is a link.
    pub plain: bool,
    /// It is over layers of an image: there is no real tree into which it could be brought.
    pub is_image: bool,
    /// Mode of the layer's own directory as it was made.
    pub mode: u32,
}

/// What is needed to read the layers of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Of this format; see [`keep::FORMAT`].
    pub format: u32,
    /// When the layers were new, in nanoseconds since 1970: what has changed below since then, the command has not seen.
    pub since: i64,
    /// When the last command began.
    pub began: i64,
    /// Number N lies in `N/upper`.
    pub layers: Vec<Layer>,
    /// Where something was mounted in the container: these places, and what had to be made on the way, are not the
    /// command's.
    pub mount_points: Vec<String>,
    /// Directories that had to be there for the command: its working directory, and an image's volumes.
    #[serde(default)]
    pub made: Vec<String>,
    /// What was below of all that the layers have or hide. What has none of its own (a command's supervisor was killed) is held
    /// against the time alone.
    #[serde(default)]
    pub bases: Vec<Base>,
    /// Files of several names as they were before an apply: when it replaces one of the names the file itself has not
    /// changed.
    #[serde(default)]
    pub known: Vec<Known>,
}

/// A file as it can be known again when it has got or lost a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Known {
    /// Its file system.
    pub dev: u64,
    /// Its inode.
    pub ino: u64,
    /// Bytes.
    pub size: i64,
    /// When it was written, in nanoseconds since 1970.
    pub written: i64,
    /// Type and mode.
    pub mode: u32,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

impl Known {
    pub(crate) fn of(stat: &Stat) -> Known {
        Known {
            dev: stat.st_dev,
            ino: stat.st_ino,
            size: stat.st_size,
            written: stat.st_mtime * 1_000_000_000 + stat.st_mtime_nsec as i64,
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
        }
    }

    /// Which file it is.
    pub(crate) fn file(&self) -> (u64, u64) {
        (self.dev, self.ino)
    }
}

/// A name of a file in the real tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Twin {
    /// The name's path in the layer.
    pub inner: Vec<u8>,
    /// The file.
    pub known: Known,
}

/// What happened to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It was not there.
    Added,
    /// It is another than it was.
    Modified,
    /// It is gone, with everything in it.
    Deleted,
}

/// In what a modified path differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Differs {
    /// A directory instead of a file, or the like.
    Type,
    /// What the file holds, where the link points, which device it is.
    Content,
    /// Mode.
    Mode,
    /// User or group.
    Owner,
    /// Extended attributes.
    Xattrs,
    /// It has become another name of a file that is otherwise the same.
    Links,
}

/// Why a file could give somebody more rights than the command had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hazard {
    /// Its set-user-ID bit is set.
    SetUserId,
    /// Its set-group-ID bit is set.
    SetGroupId,
    /// It has file capabilities.
    Capabilities,
    /// It is a device.
    Device,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What happened.
    pub kind: Kind,
    /// Path in the container, absolute.
    pub path: Vec<u8>,
    /// What it is now; of what was deleted, what it was.
    pub file_type: FileType,
    /// Of what was modified, in what.
    pub differs: Vec<Differs>,
    /// What is to be thought about before it comes into the real tree.
    pub hazards: Vec<Hazard>,
    /// Which layer tells it.
    pub layer: usize,
    /// Its path in the layer, without a slash at its ends.
    pub inner: Vec<u8>,
    /// How many names (hard links) the modified file has below besides those that the layer tells of. They keep what they
    /// hold: overlayfs copies a file for one name. Without an overlay the command may have changed it for all.
    pub other_names: usize,
    /// A name under which the real tree has this very file already.
    pub twin: Option<Box<Twin>>,
    /// What it holds can't be read: it is another user's.
    pub unread: bool,
}

impl Serialize for Change {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = std::str::from_utf8(&self.path).is_err().then(|| {
            self.path.iter().fold(String::new(), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            })
        });
        let mut fields = serializer.serialize_struct("Change", 6)?;
        fields.serialize_field("kind", &self.kind)?;
        fields.serialize_field("path", &String::from_utf8_lossy(&self.path))?;
        fields.serialize_field("type", type_name(self.file_type))?;
        if let Some(bytes) = &bytes {
            fields.serialize_field("pathHex", bytes)?;
        }
        if !self.differs.is_empty() {
            fields.serialize_field("differs", &self.differs)?;
        }
        if self.other_names > 0 {
            fields.serialize_field("otherNames", &self.other_names)?;
        }
        if !self.hazards.is_empty() {
            fields.serialize_field("hazards", &self.hazards)?;
        }
        fields.end()
    }
}

fn type_name(file_type: FileType) -> &'static str {
    match file_type {
        FileType::RegularFile => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "link",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        FileType::CharacterDevice | FileType::BlockDevice => "device",
        FileType::Unknown => "unknown",
    }
}

/// The list for people, a line each: `A`, `C` or `D` as docker has them, and the path.
#[must_use]
pub fn text(changes: &[Change]) -> String {
    changes.iter().fold(String::new(), |mut text, change| {
        let letter = match change.kind {
            Kind::Added => 'A',
            Kind::Modified => 'C',
            Kind::Deleted => 'D',
        };
        let _ = writeln!(text, "{letter} {}", escaped(&change.path));
        text
    })
}

/// What people should know besides the list, a line each.
#[must_use]
pub fn notes(changes: &[Change]) -> String {
    changes.iter().filter(|change| change.other_names > 0).fold(String::new(), |mut text, change| {
        let _ = writeln!(text, "nsrs: warning: {} is a hard link; {}", escaped(&change.path), keep_theirs(change));
        text
    })
}

/// What becomes of a file's other names.
fn keep_theirs(change: &Change) -> String {
    match change.other_names {
        1 => "the file's other name keeps what it holds".into(),
        count => format!("the file's {count} other names keep what they hold"),
    }
}

/// The list as one JSON document, which a terminal can be shown too: what could steer one is escaped.
///
/// # Errors
/// It can't be written as JSON.
pub fn json(changes: &[Change]) -> nsrs_base::error::Result<String> {
    use nsrs_base::error::{Code, Error};
    let plain = serde_json::to_string(changes)
        .map_err(|error| Error::new(Code::SetupFailed, "list the changes", error.to_string()))?;
    // Such characters can only stand in strings. All of them are of the Basic Multilingual Plane.
    Ok(plain.chars().fold(String::with_capacity(plain.len()), |mut text, c| {
        if steers(c) {
            let _ = write!(text, "\\u{:04x}", u32::from(c));
        } else {
            text.push(c);
        }
        text
    }))
}

/// Is it a control character, or one that turns the direction of text, by which one path could look like another?
fn steers(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    c.is_control() || turns
}

/// A path as it is written on a terminal: control characters, bytes that are no text, and backslashes stand as `\xNN`.
#[must_use]
pub fn escaped(path: &[u8]) -> String {
    let mut text = String::new();
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '\\' || steers(c) {
                let mut bytes = [0; 4];
                for byte in c.encode_utf8(&mut bytes).bytes() {
                    let _ = write!(text, "\\x{byte:02x}");
                }
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}
