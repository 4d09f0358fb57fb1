//! Owner, mode, times and extended attributes: those of a directory as data, and giving them to a file.

use std::os::fd::AsFd;

use rustix::fs::{
    AtFlags, CWD, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags, chmod, chownat, fstat, removexattr, setxattr,
    utimensat,
};
use serde::{Deserialize, Serialize};

use super::Difference;
use super::access_guard::{AccessGuard, path_of};
use nsrs_base::text::escaped;
use nsrs_base::tree::{Xattr, xattrs, xattrs_at, xattrs_of};

/// The attribute that holds a file's access list (acl(5)).
const ACCESS_LIST: &[u8] = b"system.posix_acl_access";

/// What a directory has besides its entries and times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectoryAttributes {
    /// Permission bits, with set-user-ID, set-group-ID and sticky bit, without the file type.
    pub mode: u32,
    /// User id on the host; `None`: the container's user namespace doesn't map it.
    pub uid: Option<u32>,
    /// Group id on the host; `None`: as with the user.
    pub gid: Option<u32>,
    /// Extended attributes that anybody can read, [`escaped`].
    pub xattrs: Vec<(String, String)>,
}

impl DirectoryAttributes {
    /// Those of the directory with this name, whose `stat` is known.
    pub(super) fn of(parent: impl AsFd, name: &[u8], stat: &Stat) -> rustix::io::Result<DirectoryAttributes> {
        Ok(DirectoryAttributes::new(stat, &xattrs(parent, name)?))
    }

    /// Those of an open directory.
    pub(super) fn of_open(directory: impl AsFd, stat: &Stat) -> rustix::io::Result<DirectoryAttributes> {
        Ok(DirectoryAttributes::new(stat, &xattrs_of(directory)?))
    }

    fn new(stat: &Stat, all: &[Xattr]) -> DirectoryAttributes {
        let readable = all.iter().filter(|(key, _)| !key.starts_with(b"trusted."));
        DirectoryAttributes {
            mode: stat.st_mode & 0o7777,
            uid: Some(stat.st_uid),
            gid: Some(stat.st_gid),
            xattrs: readable.map(|(key, value)| (escaped(key), escaped(value))).collect(),
        }
    }

    /// Whether these are `from`, `to`, or on the way from one to the other, as an interrupted apply leaves them. An owner
    /// that isn't mapped could be anybody.
    pub(super) fn is_between(&self, from: &DirectoryAttributes, to: &DirectoryAttributes) -> bool {
        let owner = |now: Option<u32>, from: Option<u32>, to: Option<u32>| from.is_none() || now == from || now == to;
        // The owner may have more rights for the moment.
        let mode = |mode: u32| self.mode & !0o700 == mode & !0o700 && self.mode & mode & 0o700 == mode & 0o700;
        let added = self.xattrs.iter().all(|xattr| from.xattrs.contains(xattr) || to.xattrs.contains(xattr));
        let removed = from.xattrs.iter().all(|xattr| self.xattrs.contains(xattr) || !to.xattrs.contains(xattr));
        (mode(from.mode) || mode(to.mode))
            && owner(self.uid, from.uid, to.uid)
            && owner(self.gid, from.gid, to.gid)
            && added
            && removed
    }

    /// Of the differences between a layer's directory and the real one, keeps those that the command made: where `layers`
    /// differs from these, too. The others were made by somebody else.
    pub(super) fn retain_own(&self, layers: &DirectoryAttributes, differences: &mut Vec<Difference>) {
        differences.retain(|difference| match difference {
            Difference::Mode => layers.mode != self.mode,
            Difference::Owner => (layers.uid, layers.gid) != (self.uid, self.gid),
            Difference::Xattrs => layers.xattrs != self.xattrs,
            _ => true,
        });
    }
}

/// Gives an open directory the owner, mode and attributes of the layer's; `with_times`: its times too.
///
/// # Errors
/// Whatever keeps it from having them.
pub(super) fn copy_to_directory(
    directory: &AccessGuard,
    from: &AccessGuard,
    with_times: bool,
) -> rustix::io::Result<()> {
    set_owner(directory, &from.stat)?;
    let path = path_of(directory);
    set_mode_and_xattrs(&path, &xattrs_of(from)?, Mode::from_raw_mode(from.stat.st_mode & 0o7777))?;
    if with_times { utimensat(CWD, path, &times(&from.stat), AtFlags::empty()) } else { Ok(()) }
}

/// Gives the file at this path exactly these attributes, and this mode. In a directory with a default access list
/// (acl(5)) a new file inherits one, which the mode alone would put into force: it is removed first, and while lists are
/// exchanged nobody but the owner has any rights.
pub(super) fn set_mode_and_xattrs(path: &str, wanted: &[Xattr], mode: Mode) -> rustix::io::Result<()> {
    let is_wanted = |key: &[u8]| wanted.iter().any(|(other, _)| other == key);
    let now = xattrs_at(path)?;
    let access_list = |all: &[Xattr]| all.iter().find(|(key, _)| key == ACCESS_LIST).cloned();
    if access_list(&now) != access_list(wanted) {
        chmod(path, Mode::RWXU)?;
    }
    // The labels of security modules are theirs.
    let ours = |key: &[u8]| !key.starts_with(b"security.") || key == b"security.capability";
    for (key, _) in now.iter().filter(|(key, _)| !is_wanted(key) && ours(key)) {
        removexattr(path, &key[..])?;
    }
    for (key, value) in wanted.iter().filter(|pair| !now.contains(pair)) {
        setxattr(path, &key[..], value, XattrFlags::empty())?;
    }
    // Last: setting an attribute may need the right to write.
    chmod(path, mode)
}

pub(super) fn set_owner(file: impl AsFd, stat: &Stat) -> rustix::io::Result<()> {
    let now = fstat(&file)?;
    if (now.st_uid, now.st_gid) == (stat.st_uid, stat.st_gid) {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    chownat(file, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
}

/// The write time of a file, for futimens(3).
pub(super) fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        last_modification: Timespec { tv_sec: stat.st_mtime as _, tv_nsec: stat.st_mtime_nsec as _ },
    }
}
