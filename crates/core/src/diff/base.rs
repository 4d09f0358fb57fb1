//! What was below a layer when its command had ended: by that is known what has changed since.

use std::collections::HashMap;
use std::os::fd::AsFd;

use rustix::fs::Stat;
use serde::{Deserialize, Serialize};

use super::{Differs, Record, escaped};
use nsrs_base::tree::{Xattr, xattrs, xattrs_of};

/// What a path of the real tree was, of which a layer has another version or which it hides, when the command had ended that
/// did so first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Base {
    /// Which layer.
    pub layer: usize,
    /// Its path in the layer, [`escaped`].
    pub inner: String,
    /// Its inode. Not its file system: that may have another number after a reboot.
    pub ino: u64,
    /// The last change of anything but the content of what is in it, in nanoseconds since 1970.
    pub changed: i64,
    /// When that command began: what has changed since then it may not have seen.
    pub since: i64,
    /// Of a directory, its attributes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dress: Option<Dress>,
}

impl Base {
    /// Is this still what it was, and had the command seen it so? The clock of files ticks slower than one could write: the
    /// very moment counts.
    pub(super) fn is_still(&self, stat: &Stat) -> bool {
        self.is_of(stat) && self.changed == moment(stat) && self.changed < self.since
    }

    /// Is it the same file or directory, whatever has become of it?
    pub(super) fn is_of(&self, stat: &Stat) -> bool {
        self.ino == stat.st_ino
    }
}

/// All that is noted, by layer and path.
#[derive(Debug)]
pub(super) struct Bases<'a>(HashMap<(usize, &'a str), &'a Base>);

impl<'a> Bases<'a> {
    pub fn of(record: &'a Record) -> Bases<'a> {
        Bases(record.bases.iter().map(|base| ((base.layer, base.inner.as_str()), base)).collect())
    }

    pub fn get(&self, layer: usize, inner: &[u8]) -> Option<&'a Base> {
        if self.0.is_empty() { None } else { self.0.get(&(layer, escaped(inner).as_str())).copied() }
    }
}

/// The last change of anything but the content of what is in it, in nanoseconds since 1970.
pub(super) fn moment(stat: &Stat) -> i64 {
    stat.st_ctime * 1_000_000_000 + stat.st_ctime_nsec as i64
}

/// What a directory has besides its entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Dress {
    /// Permission bits.
    pub mode: u32,
    /// Its user on the host; `None`: the container's user namespace has no name for it.
    pub uid: Option<u32>,
    /// Its group on the host.
    pub gid: Option<u32>,
    /// Extended attributes that anybody can read, [`escaped`].
    pub xattrs: Vec<(String, String)>,
}

impl Dress {
    /// That of a name in a directory, of which this is known already.
    pub(crate) fn of(parent: impl AsFd, name: &[u8], stat: &Stat) -> rustix::io::Result<Dress> {
        Ok(Dress::with(stat, &xattrs(parent, name)?))
    }

    /// That of an open directory.
    pub(crate) fn of_open(directory: impl AsFd, stat: &Stat) -> rustix::io::Result<Dress> {
        Ok(Dress::with(stat, &xattrs_of(directory)?))
    }

    fn with(stat: &Stat, all: &[Xattr]) -> Dress {
        let open = all.iter().filter(|(key, _)| !key.starts_with(b"trusted."));
        Dress {
            mode: stat.st_mode & 0o7777,
            uid: Some(stat.st_uid),
            gid: Some(stat.st_gid),
            xattrs: open.map(|(key, value)| (escaped(key), escaped(value))).collect(),
        }
    }

    /// Can it be one of these, or on the way from one to the other? An apply may have been ended in between. An owner without
    /// a name could be anybody.
    pub(super) fn is_between(&self, from: &Dress, to: &Dress) -> bool {
        let owner = |now: Option<u32>, from: Option<u32>, to: Option<u32>| from.is_none() || now == from || now == to;
        // Opened to its owner for the moment.
        let mode = |mode: u32| self.mode & !0o700 == mode & !0o700 && self.mode & mode & 0o700 == mode & 0o700;
        let added = self.xattrs.iter().all(|xattr| from.xattrs.contains(xattr) || to.xattrs.contains(xattr));
        let removed = from.xattrs.iter().all(|xattr| self.xattrs.contains(xattr) || !to.xattrs.contains(xattr));
        (mode(from.mode) || mode(to.mode))
            && owner(self.uid, from.uid, to.uid)
            && owner(self.gid, from.gid, to.gid)
            && added
            && removed
    }

    /// Of what a layer's directory and the real one differ in: only that in which the layer's differs from this one, too. The
    /// rest is somebody else's doing.
    pub(super) fn own(&self, layers: &Dress, differs: &mut Vec<Differs>) {
        differs.retain(|what| match what {
            Differs::Mode => layers.mode != self.mode,
            Differs::Owner => (layers.uid, layers.gid) != (self.uid, self.gid),
            Differs::Xattrs => layers.xattrs != self.xattrs,
            _ => true,
        });
    }
}
