//! Tar archives: their entries in, their entries out.
//!
//! The fields of a header are read by the tar crate. Its iterator isn't used: it takes the names and extended headers of
//! an archive into memory at whatever length they claim, doesn't read values with a line feed in them (a
//! `security.capability` may well have one) and knows no sparse files in PAX form.

mod extended;
pub mod pax;
pub mod read;
mod sparse;
pub mod write;

/// The size of a block; everything in an archive fills whole ones.
pub const BLOCK: u64 = 512;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// Another name of a file, by its path in the archive.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A FIFO.
    Fifo,
}

/// An entry of an archive, without its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its path as it is written.
    pub path: Vec<u8>,
    /// Where a link points.
    pub link: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permissions, with set-user-ID, set-group-ID and sticky bit.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Time of the last change: seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Size of a file in bytes, holes included.
    pub size: u64,
    /// The parts of a sparse file that are in the archive, in order: offset and length. `None`: all of it.
    pub sparse: Option<Vec<(u64, u64)>>,
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}
