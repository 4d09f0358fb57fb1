//! Changes as text: for people, and as JSON.

use std::fmt::Write as _;

use nsrs_base::error::{Code, Error, Result};
use nsrs_base::text::{escaped, printable_json};
use rustix::fs::FileType;
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::{Change, ChangeKind};

impl Serialize for Change {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let path_hex = std::str::from_utf8(&self.path).is_err().then(|| {
            self.path.iter().fold(String::new(), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            })
        });
        let mut fields = serializer.serialize_struct("Change", 6)?;
        fields.serialize_field("kind", &self.kind)?;
        fields.serialize_field("path", &String::from_utf8_lossy(&self.path))?;
        fields.serialize_field("type", type_name(self.file_type))?;
        if let Some(path_hex) = &path_hex {
            fields.serialize_field("pathHex", path_hex)?;
        }
        if !self.differences.is_empty() {
            fields.serialize_field("differs", &self.differences)?;
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

/// A line for each change, as docker diff prints it: `A`, `C` or `D`, and the path.
#[must_use]
pub fn lines(changes: &[Change]) -> String {
    changes.iter().fold(String::new(), |mut text, change| {
        let letter = match change.kind {
            ChangeKind::Added => 'A',
            ChangeKind::Modified => 'C',
            ChangeKind::Deleted => 'D',
        };
        let _ = writeln!(text, "{letter} {}", escaped(&change.path));
        text
    })
}

/// Warnings about changed hard links, a line each.
#[must_use]
pub fn warnings(changes: &[Change]) -> String {
    changes.iter().filter(|change| change.other_names > 0).fold(String::new(), |mut text, change| {
        let (path, clause) = (escaped(&change.path), change.other_names_clause());
        let _ = writeln!(text, "nsrs: warning: {path} is a hard link; {clause}");
        text
    })
}

/// The changes as one JSON document that is safe to print: what could steer a terminal is escaped.
///
/// # Errors
/// The changes can't be written as JSON.
pub fn json(changes: &[Change]) -> Result<String> {
    let plain = serde_json::to_string(changes)
        .map_err(|error| Error::new(Code::SetupFailed, "list the changes", error.to_string()))?;
    Ok(printable_json(&plain))
}
