//! Recognizing a file: which one it is, and whether it is unchanged.

use rustix::fs::Stat;
use serde::{Deserialize, Serialize};

/// A file as it is known on a running host: device number of the file system, and inode number.
pub(super) type FileId = (u64, u64);

pub(super) fn file_id(stat: &Stat) -> FileId {
    (stat.st_dev, stat.st_ino)
}

/// When anything about the file last changed (ctime), in nanoseconds since 1970. Of a directory this covers its entries,
/// not their content.
pub(super) fn change_time(stat: &Stat) -> i64 {
    stat.st_ctime * 1_000_000_000 + stat.st_ctime_nsec as i64
}

/// When the content was last written (mtime), in nanoseconds since 1970.
pub(super) fn write_time(stat: &Stat) -> i64 {
    stat.st_mtime * 1_000_000_000 + stat.st_mtime_nsec as i64
}

/// What of a file stays the same when it gains or loses a name. Its change time does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileStamp {
    /// Device number of the file system.
    pub dev: u64,
    /// Inode number in that file system.
    pub ino: u64,
    /// Size of the content in bytes (`st_size`).
    pub size: i64,
    /// When the content was last written, in nanoseconds since 1970.
    pub written: i64,
    /// `st_mode`: file type and permission bits.
    pub mode: u32,
    /// User id on the host.
    pub uid: u32,
    /// Group id on the host.
    pub gid: u32,
}

impl FileStamp {
    pub(super) fn of(stat: &Stat) -> FileStamp {
        FileStamp {
            dev: stat.st_dev,
            ino: stat.st_ino,
            size: stat.st_size,
            written: write_time(stat),
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
        }
    }

    pub(super) fn file_id(&self) -> FileId {
        (self.dev, self.ino)
    }
}
