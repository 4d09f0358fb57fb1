//! What is below a writable layer, merged as overlayfs does it.

use std::collections::BTreeSet;
use std::rc::Rc;

use rustix::fs::{AtFlags, CWD, Dir, FileType, ResolveFlags, Stat, statat};
use rustix::io::Errno;

use super::access_guard::{AccessGuard, INSIDE};
use nsrs_base::tree::marks::{is_opaque, is_whiteout};

/// Opens a directory that a layer is over. Its path was recorded without links: whoever could put one into it since then
/// could redirect it to any other directory.
///
/// # Errors
/// Those of openat2(2); ELOOP for a link.
pub(super) fn open_lower(path: &str) -> rustix::io::Result<AccessGuard> {
    AccessGuard::directory(CWD, path.as_bytes(), ResolveFlags::NO_SYMLINKS)
}

/// A directory below a layer: one, or several merged, the uppermost first. Empty where there is none.
#[derive(Clone, Debug, Default)]
pub struct LowerDirectory(Vec<Rc<AccessGuard>>);

/// An entry of a lower directory.
pub struct LowerEntry {
    /// What the uppermost directory that has the name says of it.
    pub stat: Stat,
    /// The directory that has it.
    pub(super) parent: Rc<AccessGuard>,
}

impl LowerDirectory {
    /// Opens these directories of the host.
    ///
    /// # Errors
    /// One can't be opened.
    pub fn open(paths: &[String]) -> rustix::io::Result<LowerDirectory> {
        paths.iter().map(|path| open_lower(path).map(Rc::new)).collect::<rustix::io::Result<_>>().map(LowerDirectory)
    }

    /// The uppermost of the merged directories, whose attributes overlayfs shows; `None` if there is no directory
    /// below.
    pub(super) fn top(&self) -> Option<&AccessGuard> {
        self.0.first().map(|top| &**top)
    }

    /// Looks up a name; `None`: there is no such entry.
    ///
    /// # Errors
    /// Those of fstatat(2).
    pub fn find(&self, name: &[u8]) -> rustix::io::Result<Option<LowerEntry>> {
        for directory in &self.0 {
            match statat(&**directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
                Ok(stat) if self.is_whiteout(directory, name, &stat) => return Ok(None),
                Ok(stat) => return Ok(Some(LowerEntry { stat, parent: Rc::clone(directory) })),
            }
        }
        Ok(None)
    }

    fn is_whiteout(&self, directory: &AccessGuard, name: &[u8], stat: &Stat) -> bool {
        // Only images have whiteouts by attribute: in a directory of the host they are ordinary files.
        let device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0;
        device || (self.0.len() > 1 && is_whiteout(directory, name, stat))
    }

    /// Enters the directory with this name. Empty if it isn't a directory, is another user's, or is a mount point.
    ///
    /// # Errors
    /// It can't be opened.
    pub fn enter(&self, name: &[u8]) -> rustix::io::Result<LowerDirectory> {
        let mut inner = Vec::new();
        for directory in &self.0 {
            match AccessGuard::directory(&**directory, name, INSIDE) {
                Err(Errno::NOENT) => {}
                Err(Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::ACCESS) => break,
                Err(errno) => return Err(errno),
                Ok(fd) => {
                    let opaque = is_opaque(&fd);
                    inner.push(Rc::new(fd));
                    if opaque {
                        break;
                    }
                }
            }
        }
        Ok(LowerDirectory(inner))
    }

    /// All entries, sorted by name.
    ///
    /// # Errors
    /// A directory can't be read.
    pub fn entries(&self) -> rustix::io::Result<Vec<(Vec<u8>, Stat)>> {
        let mut names = BTreeSet::new();
        for directory in &self.0 {
            for entry in Dir::read_from(&**directory)? {
                let name = entry?.file_name().to_bytes().to_vec();
                if name != b"." && name != b".." {
                    names.insert(name);
                }
            }
        }
        let mut found = Vec::new();
        for name in names {
            if let Some(LowerEntry { stat, .. }) = self.find(&name)? {
                found.push((name, stat));
            }
        }
        Ok(found)
    }

    /// Whether there is no directory below.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.0.is_empty()
    }
}
