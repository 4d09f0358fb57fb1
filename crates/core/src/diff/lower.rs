//! What lies below a writable layer, seen as overlayfs shows it.

use std::collections::BTreeSet;
use std::rc::Rc;

use rustix::fs::{AtFlags, CWD, Dir, FileType, ResolveFlags, Stat, statat};
use rustix::io::Errno;

use super::open::{INSIDE, Open};
use nsrs_base::tree::marks::{is_opaque, is_whiteout};

/// Opens a directory that a layer is over. Its path was noted without links: whoever could put one in it since could
/// make it any other directory.
///
/// # Errors
/// Those of openat2(2); ELOOP is a link.
pub(super) fn open_lower(path: &str) -> rustix::io::Result<Open> {
    Open::directory(CWD, path.as_bytes(), ResolveFlags::NO_SYMLINKS)
}

/// A directory below: one, or several merged, the uppermost first; none where there is nothing.
#[derive(Clone, Debug, Default)]
pub struct Lower(Vec<Rc<Open>>);

/// What a name in it is.
pub struct Found {
    /// The uppermost one.
    pub stat: Stat,
    /// The directory in which it is.
    pub(super) parent: Rc<Open>,
}

impl Lower {
    /// These directories of the host.
    ///
    /// # Errors
    /// One can't be opened.
    pub fn open(paths: &[String]) -> rustix::io::Result<Lower> {
        paths.iter().map(|path| open_lower(path).map(Rc::new)).collect::<rustix::io::Result<_>>().map(Lower)
    }

    /// The uppermost directory.
    pub(super) fn top(&self) -> Option<&Open> {
        self.0.first().map(|top| &**top)
    }

    /// What a name is here, if it is there at all.
    ///
    /// # Errors
    /// Those of fstatat(2).
    pub fn find(&self, name: &[u8]) -> rustix::io::Result<Option<Found>> {
        for directory in &self.0 {
            match statat(&**directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
                Ok(stat) if self.is_whiteout(directory, name, &stat) => return Ok(None),
                Ok(stat) => return Ok(Some(Found { stat, parent: Rc::clone(directory) })),
            }
        }
        Ok(None)
    }

    fn is_whiteout(&self, directory: &Open, name: &[u8], stat: &Stat) -> bool {
        // Whiteouts by attribute are those of images; in a directory of the host they are files.
        let device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0;
        device || (self.0.len() > 1 && is_whiteout(directory, name, stat))
    }

    /// The directory of this name; nothing where it is none, or one that can't be seen. What is mounted there is not it.
    ///
    /// # Errors
    /// It can't be opened.
    pub fn enter(&self, name: &[u8]) -> rustix::io::Result<Lower> {
        let mut inner = Vec::new();
        for directory in &self.0 {
            match Open::directory(&**directory, name, INSIDE) {
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
        Ok(Lower(inner))
    }

    /// All names here, with what is there.
    ///
    /// # Errors
    /// A directory can't be read.
    pub fn names(&self) -> rustix::io::Result<Vec<(Vec<u8>, Stat)>> {
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
            if let Some(Found { stat, .. }) = self.find(&name)? {
                found.push((name, stat));
            }
        }
        Ok(found)
    }

    /// There is nothing below.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.0.is_empty()
    }
}
