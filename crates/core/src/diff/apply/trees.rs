//! The two trees of every layer: its own directory, and the real one that it is over.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, openat, openat2, statat};
use rustix::io::Errno;

use super::errors::{STEP, explain};
use crate::diff::access_guard::AccessGuard;
use crate::diff::record::UpperLayer;
use crate::diff::{Change, ChangesRecord};
use nsrs_base::error::{At, Error, Result};

const PATH: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const READ_ACCESS: Access = Access::READ_OK.union(Access::EXEC_OK);

#[derive(Debug)]
pub(super) struct Trees<'a> {
    layers: &'a [UpperLayer],
    uppers: Vec<OwnedFd>,
    /// `None`: this user may not enter it.
    targets: Vec<Option<OwnedFd>>,
}

/// A directory of the real tree, and the layer's.
pub(super) struct DirectoryPair {
    pub target: AccessGuard,
    pub upper: AccessGuard,
}

/// The directory that a path in a layer is in, and its name there.
pub(super) fn split(inner: &[u8]) -> (&[u8], &[u8]) {
    match inner.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&inner[..at], &inner[at + 1..]),
        None => (b"", inner),
    }
}

/// A path in a layer as openat2(2) takes it: `.` for the layer itself.
fn relative(inner: &[u8]) -> &[u8] {
    if inner.is_empty() { b"." } else { inner }
}

impl<'a> Trees<'a> {
    /// Opens all of them.
    ///
    /// # Errors
    /// One is gone.
    pub fn open(layers: impl AsFd, record: &'a ChangesRecord) -> Result<Trees<'a>> {
        let mut trees = Trees { layers: &record.layers, uppers: Vec::new(), targets: Vec::new() };
        let open = |directory: BorrowedFd<'_>, path: &str| {
            openat2(directory, path, PATH | OFlags::DIRECTORY, Mode::empty(), ResolveFlags::NO_SYMLINKS)
        };
        for (number, layer) in record.layers.iter().enumerate() {
            trees.uppers.push(open(layers.as_fd(), &format!("{number}/upper")).at(STEP, &layer.path)?);
            let path = layer.lowers.first().map_or("/", String::as_str);
            trees.targets.push(match open(CWD, path) {
                Err(Errno::ACCESS) => None,
                Err(errno) => return Err(explain(Error::os("open the real directory", path, errno), errno)),
                Ok(target) => Some(target),
            });
        }
        Ok(trees)
    }

    fn target(&self, layer: usize) -> rustix::io::Result<&OwnedFd> {
        self.targets[layer].as_ref().ok_or(Errno::ACCESS)
    }

    /// A directory of the real tree.
    pub fn target_directory(&self, layer: usize, inner: &[u8], wanted: Access) -> rustix::io::Result<AccessGuard> {
        AccessGuard::beneath(self.target(layer)?, relative(inner), wanted)
    }

    /// The directory of the real tree that has this name, and the name; `None` for the directory that the layer is over.
    pub fn target_parent<'c>(
        &self,
        layer: usize,
        inner: &'c [u8],
        wanted: Access,
    ) -> rustix::io::Result<Option<(AccessGuard, &'c [u8])>> {
        let (parent, name) = split(inner);
        if name.is_empty() {
            return Ok(None);
        }
        self.target_directory(layer, parent, wanted).map(|parent| Some((parent, name)))
    }

    /// Opens a file of the real tree by its name; `None`: there is none.
    pub fn target_file(&self, layer: usize, inner: &[u8]) -> rustix::io::Result<Option<OwnedFd>> {
        let Some((parent, name)) = self.target_parent(layer, inner, Access::EXEC_OK)? else { return Ok(None) };
        match openat(&parent, name, PATH, Mode::empty()) {
            Err(Errno::NOENT) => Ok(None),
            other => other.map(Some),
        }
    }

    /// A directory of a layer.
    pub fn upper_directory(&self, change: &Change) -> rustix::io::Result<AccessGuard> {
        AccessGuard::beneath(&self.uppers[change.layer], relative(&change.inner), READ_ACCESS)
    }

    pub fn directory_pair(&self, change: &Change) -> rustix::io::Result<DirectoryPair> {
        let upper = self.upper_directory(change)?;
        // This also fails if another file system is mounted there by now.
        Ok(DirectoryPair { target: self.target_directory(change.layer, &change.inner, READ_ACCESS)?, upper })
    }

    /// The directory of a layer that has the changed file, its name there, and what it is.
    pub fn upper_file<'c>(&self, change: &'c Change) -> rustix::io::Result<(AccessGuard, &'c [u8], Stat)> {
        let (parent, name) = split(&change.inner);
        let parent = AccessGuard::beneath(&self.uppers[change.layer], relative(parent), Access::EXEC_OK)?;
        let stat = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) != change.file_type {
            return Err(Errno::STALE);
        }
        Ok((parent, name, stat))
    }

    /// Writes the real trees to disk (syncfs(2)).
    ///
    /// # Errors
    /// The disk refuses.
    pub fn sync(&self) -> Result<()> {
        for (target, layer) in self.targets.iter().zip(self.layers) {
            let Some(target) = target else { continue };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            // One that can't be read can't have been written to either.
            let Ok(directory) = openat(target, ".", flags, Mode::empty()) else { continue };
            rustix::fs::syncfs(&directory).at("write the changes to disk", &layer.path)?;
        }
        Ok(())
    }
}
