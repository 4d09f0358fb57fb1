//! From writable layers to a list of changes.

use std::collections::BTreeSet;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Dir, FileType, ResolveFlags, Stat, statat};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::apply::Listed;
use super::base::{Base, Bases, Dress, moment};
use super::compare::{differs, hazards};
use super::lower::{Found, Lower};
use super::names::Names;
use super::open::{INSIDE, Open};
use super::{Change, Differs, Hazard, Kind, Layer, Record, escaped};
use nsrs_base::error::{At, Code, Error, Result};
use nsrs_base::tree::marks::{opaque, says_opaque};

/// How deep directories may be in each other.
pub(super) const DEEPEST: usize = 1500;
/// What is said of deeper ones, and of those for which the descriptors don't suffice.
pub(super) const TOO_DEEP: &str = "directories are nested too deep";
const STEP: &str = "list the changes";

/// How it is looked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look<'a> {
    /// At everything.
    Whole,
    /// At everything that can be read, and the rest is marked; and below for this name.
    Able(&'a str),
    /// Only at what is below: no file is read.
    Bases,
}

/// Every change that the layers in this directory tell, ordered by path.
///
/// A file that was only opened for writing, or given back its content, is none; times alone are none either.
///
/// # Errors
/// A directory can't be read, or is too deep.
pub fn walk(layers: impl AsFd, record: &Record) -> Result<Vec<Change>> {
    look(layers, record, Look::Whole).map(|listed| listed.changes)
}

/// As [`walk`]; what is another user's and can't be read is marked, and what has the temporary name of an apply is found.
///
/// # Errors
/// Those of [`walk`].
pub(super) fn able(layers: impl AsFd, record: &Record, temporary: &str) -> Result<Listed> {
    look(layers, record, Look::Able(temporary))
}

/// As [`walk`], with what is below of all that the layers have or hide.
///
/// # Errors
/// Those of [`walk`].
pub(super) fn whole(layers: impl AsFd, record: &Record) -> Result<Listed> {
    look(layers, record, Look::Whole)
}

/// Only what is below; no file is read.
///
/// # Errors
/// Those of [`walk`].
pub(super) fn bases(layers: impl AsFd, record: &Record) -> Result<Vec<Base>> {
    look(layers, record, Look::Bases).map(|listed| listed.bases)
}

/// A directory in a directory in a directory is as many descriptors: as many as this process may have.
pub fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

fn look(layers: impl AsFd, record: &Record, how: Look<'_>) -> Result<Listed> {
    let mut listed = Listed::default();
    let known = Bases::of(record);
    for (number, layer) in record.layers.iter().enumerate() {
        let name = format!("{number}/upper");
        let upper = Open::directory(&layers, name.as_bytes(), ResolveFlags::NO_SYMLINKS).at(STEP, &layer.path)?;
        let lower = match Lower::open(&layer.lowers) {
            // What can't be seen now could not be seen then.
            Err(Errno::NOENT | Errno::ACCESS) => Lower::default(),
            other => other.at(STEP, &layer.path)?,
        };
        let names = Names::default();
        let mut walker =
            Walker { record, layer, number, path: Vec::new(), names, listed: &mut listed, known: &known, how };
        let (mode, below) = (upper.stat.st_mode & 0o7777, lower.top());
        if !layer.plain && mode != layer.mode && below.is_none_or(|below| below.stat.st_mode & 0o7777 != mode) {
            walker.tell(Kind::Modified, FileType::Directory, vec![Differs::Mode], Vec::new());
        }
        if let Some(below) = below {
            walker.note(&below.stat, Dress::of_open(below, &below.stat).ok());
        }
        walker.directory(Level { upper: &upper, lower: &lower, depth: 0, plain: layer.plain, alone: false })?;
        walker.hard_links();
    }
    listed.changes.sort_by(|a, b| a.path.split(|byte| *byte == b'/').cmp(b.path.split(|byte| *byte == b'/')));
    Ok(listed)
}

/// A directory of a layer, and what lies below it.
#[derive(Clone, Copy)]
struct Level<'a> {
    upper: &'a Open,
    lower: &'a Lower,
    /// How many directories it is in.
    depth: usize,
    /// It was made anew: what is missing in it was not removed, unless it is a link.
    plain: bool,
    /// Nothing of below shows through it.
    alone: bool,
}

pub(super) struct Walker<'a> {
    record: &'a Record,
    pub(super) layer: &'a Layer,
    pub(super) number: usize,
    /// Path in the layer.
    pub(super) path: Vec<u8>,
    pub(super) names: Names,
    pub(super) listed: &'a mut Listed,
    /// What was noted before.
    known: &'a Bases<'a>,
    how: Look<'a>,
}

impl Walker<'_> {
    /// The path in the container.
    fn whole(&self) -> Vec<u8> {
        let mut whole = self.layer.path.trim_end_matches('/').as_bytes().to_vec();
        if !self.path.is_empty() || whole.is_empty() {
            whole.push(b'/');
            whole.extend_from_slice(&self.path);
        }
        whole
    }

    pub(super) fn tell(&mut self, kind: Kind, file_type: FileType, differs: Vec<Differs>, hazards: Vec<Hazard>) {
        if self.tells_nothing() {
            return;
        }
        let (path, inner) = (self.whole(), self.path.clone());
        let layer = self.number;
        self.listed.changes.push(Change {
            kind,
            path,
            file_type,
            differs,
            hazards,
            layer,
            inner,
            other_names: 0,
            twin: None,
            unread: false,
        });
    }

    /// Is nothing told, but what is below?
    pub(super) fn tells_nothing(&self) -> bool {
        self.how == Look::Bases
    }

    /// Marks the last change, if it can't be read.
    fn mark(&mut self, unread: bool) {
        if let Some(change) = self.listed.changes.last_mut() {
            change.unread |= unread;
        }
    }

    /// Notes what is below, if that is wanted and there is a real tree below.
    fn note(&mut self, stat: &Stat, dress: Option<Dress>) {
        if matches!(self.how, Look::Able(_)) || self.layer.is_image {
            return;
        }
        self.listed.bases.push(Base {
            layer: self.number,
            inner: escaped(&self.path),
            ino: stat.st_ino,
            changed: moment(stat),
            since: self.record.began,
            dress,
        });
    }

    fn is_mount_point(&self) -> bool {
        let whole = self.whole();
        self.record.mount_points.iter().any(|point| point.as_bytes() == whole)
    }

    /// Something was mounted on or below it: it was there before a command.
    fn is_way(&self) -> bool {
        self.leads_to(&self.record.mount_points)
    }

    /// It was made for a command, or on the way to what was.
    fn is_made(&self) -> bool {
        self.leads_to(&self.record.made)
    }

    fn leads_to(&self, places: &[String]) -> bool {
        let mut whole = self.whole();
        whole.push(b'/');
        places.iter().any(|place| [place.as_bytes(), b"/"].concat().starts_with(&whole))
    }

    fn within(&mut self, name: &[u8], act: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let length = self.path.len();
        if length > 0 {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
        let result = act(self);
        self.path.truncate(length);
        result
    }

    fn at<T>(&self, result: rustix::io::Result<T>) -> Result<T> {
        result.at(STEP, escaped(&self.whole())).map_err(|error| match error.errno {
            Some(libc::EMFILE) => self.too_deep(),
            _ => error,
        })
    }

    fn too_deep(&self) -> Error {
        // Of the path, which has no end, the beginning says enough.
        let whole = self.whole();
        Error::new(Code::Unsupported, STEP, TOO_DEEP).on(escaped(&whole[..whole.len().min(200)]))
    }

    /// By the attribute that overlayfs itself goes by: the other one is anybody's to set.
    fn is_opaque(&self, directory: &Open) -> bool {
        says_opaque(directory, opaque(self.layer.user_xattrs))
    }

    /// Everything in a directory.
    fn directory(&mut self, level: Level<'_>) -> Result<()> {
        let Level { upper, lower, depth, plain, alone } = level;
        if depth > DEEPEST {
            return Err(self.too_deep());
        }
        let mut names = BTreeSet::new();
        // Not opened once more by its name: its owner may have closed it to himself.
        let listed = self.at(fcntl_dupfd_cloexec(upper, 0))?;
        for entry in self.at(Dir::new(listed))? {
            let name = self.at(entry)?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.insert(name);
            }
        }
        let temporary = match self.how {
            Look::Able(name) if matches!(lower.find(name.as_bytes()), Ok(Some(_))) => name.as_bytes(),
            _ => b"",
        };
        if !temporary.is_empty() {
            self.listed.leftovers.push((self.number, self.path.clone()));
        }
        for name in &names {
            self.within(name, |walker| walker.entry(level, name))?;
        }
        if !alone && !plain {
            return Ok(());
        }
        for (name, stat) in self.at(lower.names())? {
            let kind = FileType::from_raw_mode(stat.st_mode);
            // Of what was made anew only links can be removed: the rest are mount points, or was never copied.
            let could_be = alone || kind == FileType::Symlink;
            if could_be && !names.contains(&name) && name != temporary {
                self.within(&name, |walker| {
                    walker.note(&stat, None);
                    walker.tell(Kind::Deleted, kind, Vec::new(), Vec::new());
                    if kind != FileType::Directory {
                        walker.note_names(None, Some(&stat), false);
                    }
                    Ok(())
                })?;
            }
        }
        Ok(())
    }

    /// Notes what is below a directory of both; nothing of what is new in the layer.
    fn only_below(&mut self, level: Level<'_>, name: &[u8]) -> Result<()> {
        let lower = self.at(level.lower.enter(name))?;
        if lower.is_nothing() {
            return Ok(());
        }
        let upper = self.at(Open::directory(level.upper, name, INSIDE))?;
        let alone = level.alone || self.is_opaque(&upper);
        let plain = level.plain && self.is_way();
        self.directory(Level { upper: &upper, lower: &lower, depth: level.depth + 1, plain, alone })
    }

    /// Tells in what an entry differs from the one below.
    fn compared(
        &mut self,
        Level { upper, plain, .. }: Level<'_>,
        name: &[u8],
        stat: &Stat,
        below: &Found,
        hazards: Vec<Hazard>,
    ) -> Result<()> {
        let (kind, was) = (FileType::from_raw_mode(stat.st_mode), FileType::from_raw_mode(below.stat.st_mode));
        // A link in what was made anew is a copy of ours, and belongs to us.
        let copied = plain && kind == FileType::Symlink;
        let found = differs(upper, name, stat, below);
        let able = matches!(self.how, Look::Able(_));
        let unread = able && found == Err(Errno::ACCESS);
        let mut differs = if unread { vec![Differs::Content] } else { self.at(found)? };
        differs.retain(|what| !copied || matches!(what, Differs::Type | Differs::Content));
        let both = (kind, was) == (FileType::Directory, FileType::Directory);
        // By ids of the host.
        let base = self.known.get(self.number, &self.path).filter(|_| able && both);
        if let Some(before) = base.and_then(|base| base.dress.as_ref()) {
            before.own(&self.at(Dress::of(upper, name, stat))?, &mut differs);
        }
        let same = differs.is_empty();
        if !same {
            self.tell(Kind::Modified, kind, differs, hazards);
            self.mark(unread);
        }
        if kind != FileType::Directory || (was != FileType::Directory && !same) {
            let above = Some(stat).filter(|_| kind != FileType::Directory);
            self.note_names(above, Some(&below.stat).filter(|_| was != FileType::Directory), same);
        }
        Ok(())
    }

    fn entry(&mut self, level: Level<'_>, name: &[u8]) -> Result<()> {
        let Level { upper, lower, plain, .. } = level;
        let stat = self.at(statat(upper, name, AtFlags::SYMLINK_NOFOLLOW))?;
        let below = match lower.find(name) {
            Err(Errno::ACCESS) => None,
            other => self.at(other)?,
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        // What was made to mount something on. In a layer over the real directory another command may have written to it, when
        // nothing was mounted there.
        let is_empty = kind == FileType::RegularFile && stat.st_size == 0 && below.is_none();
        if (plain || is_empty) && self.is_mount_point() {
            return Ok(());
        }
        let dress = |found: &Found| Dress::of(&*found.parent, name, &found.stat).ok();
        if let Some(found) = &below {
            let is_directory = FileType::from_raw_mode(found.stat.st_mode) == FileType::Directory;
            self.note(&found.stat, Some(found).filter(|_| is_directory).and_then(dress));
        }
        let is_directory = kind == FileType::Directory;
        let was_directory = is_directory
            && below.as_ref().is_some_and(|found| FileType::from_raw_mode(found.stat.st_mode) == FileType::Directory);
        if self.tells_nothing() {
            return if was_directory { self.only_below(level, name) } else { Ok(()) };
        }
        if kind == FileType::CharacterDevice && stat.st_rdev == 0 {
            if let Some(Found { stat, .. }) = below {
                let kind = FileType::from_raw_mode(stat.st_mode);
                self.tell(Kind::Deleted, kind, Vec::new(), Vec::new());
                if kind != FileType::Directory {
                    self.note_names(None, Some(&stat), false);
                }
            }
            return Ok(());
        }
        let way = is_directory && self.is_way();
        let made = way || (is_directory && self.is_made());
        let hazards = self.at(hazards(upper, name, &stat))?;
        let before = self.listed.changes.len();
        match &below {
            None if made => {}
            None => {
                // What was there and is gone was removed by somebody else: the layer would tell of it.
                let was_there = self.known.get(self.number, &self.path).is_some();
                let what = if was_there { Kind::Modified } else { Kind::Added };
                self.tell(what, kind, Vec::new(), hazards);
                if !is_directory {
                    self.note_names(Some(&stat), None, false);
                }
            }
            Some(_) if made && plain => {}
            Some(below) => self.compared(level, name, &stat, below, hazards)?,
        }
        if !is_directory {
            return Ok(());
        }
        let told =
            self.listed.changes.last().is_some_and(|change| change.layer == self.number && change.inner == self.path);
        let inner = match Open::directory(upper, name, INSIDE) {
            Err(Errno::ACCESS) if matches!(self.how, Look::Able(_)) => {
                if !told {
                    self.tell(Kind::Modified, kind, Vec::new(), Vec::new());
                }
                self.mark(true);
                return Ok(());
            }
            other => self.at(other)?,
        };
        let lower = if was_directory { self.at(lower.enter(name))? } else { Lower::default() };
        let alone = !lower.is_nothing() && (level.alone || self.is_opaque(&inner));
        let plain = plain && way;
        self.directory(Level { upper: &inner, lower: &lower, depth: level.depth + 1, plain, alone })?;
        // What a command has put into it, or beside what is mounted in it, needs it.
        if below.is_none() && made && self.listed.changes.len() > before {
            self.tell(Kind::Added, kind, Vec::new(), Vec::new());
        }
        Ok(())
    }
}
