//! Reading and writing tar archives.
//!
//! Headers are written by the tar crate, and read here. Its iterator takes the names and extended headers of an archive into
//! memory at whatever length they claim, doesn't read values with a line feed in them (a `security.capability` may well have
//! one) and knows no sparse files in PAX form; and its fields aren't those that Go sees in a header that is unusual.

mod blocks;
mod error;
mod extended_header;
#[cfg(test)]
mod go_tests;
mod header;
pub mod pax;
pub mod read;
mod sparse;
pub mod write;

pub use error::read_error;

/// The size of a block in bytes; everything in an archive fills whole ones.
pub const BLOCK: u64 = 512;

/// The type of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file, sparse ones included.
    File,
    /// Another name of a file, by its path in the archive.
    HardLink,
    /// A symbolic link, with its target in [`TarEntry::link`].
    Symlink,
    /// A character device; see [`TarEntry::device`].
    CharDevice,
    /// A block device; see [`TarEntry::device`].
    BlockDevice,
    /// A directory; its entries follow in any order.
    Directory,
    /// A named pipe (fifo(7)).
    Fifo,
}

/// An entry of an archive, without its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TarEntry {
    /// The path as it is written in the archive.
    pub path: Vec<u8>,
    /// The target of a link; empty for other entries.
    pub link: Vec<u8>,
    /// The type of the entry.
    pub kind: EntryKind,
    /// Permissions, with set-user-ID, set-group-ID and sticky bit.
    pub mode: u32,
    /// User id of the owner.
    pub uid: u64,
    /// Group id of the owner.
    pub gid: u64,
    /// Write time: seconds since 1970 and nanoseconds.
    pub mtime: (i64, u32),
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Size of a file in bytes, holes included.
    pub size: u64,
    /// The parts of a sparse file that are in the archive, in order: offset and length. `None`: all of it.
    pub sparse: Option<Vec<(u64, u64)>>,
    /// Extended attributes (xattr(7)): name and value.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}
