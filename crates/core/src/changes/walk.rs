//! From writable layers to a list of changes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fgetxattr, openat, readlinkat, statat};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::apply::Listed;
use super::lower::{Found, Lower};
use super::open::{INSIDE, Open};
use super::{Change, Differs, Dress, Hazard, Kind, Known, Layer, Record, Twin, escaped};
use crate::error::{At, Code, Error, Result};
use crate::image::tree::xattrs;

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
    /// Only at directories that were modified: no file is read.
    Directories,
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

/// As [`walk`], but only directories that were modified: no file is read.
///
/// # Errors
/// Those of [`walk`].
pub(super) fn directories(layers: impl AsFd, record: &Record) -> Result<Vec<Change>> {
    let mut changes = look(layers, record, Look::Directories)?.changes;
    changes.retain(|change| change.below.is_some());
    Ok(changes)
}

/// A directory in a directory in a directory is as many descriptors: as many as this process may have.
pub fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

fn look(layers: impl AsFd, record: &Record, how: Look<'_>) -> Result<Listed> {
    let (mut changes, mut leftovers) = (Vec::new(), Vec::new());
    for (number, layer) in record.layers.iter().enumerate() {
        let name = format!("{number}/upper");
        let upper = Open::directory(&layers, name.as_bytes(), ResolveFlags::NO_SYMLINKS).at(STEP, &layer.path)?;
        let lower = match Lower::open(&layer.lowers) {
            // What can't be seen now could not be seen then.
            Err(Errno::NOENT | Errno::ACCESS) => Lower::default(),
            other => other.at(STEP, &layer.path)?,
        };
        let names = Names::default();
        let mut walker = Walker {
            record,
            layer,
            number,
            path: Vec::new(),
            changes: &mut changes,
            names,
            leftovers: &mut leftovers,
            how,
        };
        let (mode, below) = (upper.stat.st_mode & 0o7777, lower.dress());
        if !layer.plain && mode != layer.mode && below.as_ref().map_or(true, |below| below.mode != mode) {
            walker.tell(Kind::Modified, FileType::Directory, vec![Differs::Mode], Vec::new());
            walker.note_below(below);
        }
        walker.directory(&upper, &lower, 0, layer.plain, false)?;
        walker.hard_links();
    }
    changes.sort_by(|a, b| a.path.split(|byte| *byte == b'/').cmp(b.path.split(|byte| *byte == b'/')));
    Ok(Listed { changes, leftovers })
}

struct Walker<'a> {
    record: &'a Record,
    layer: &'a Layer,
    number: usize,
    /// Path in the layer.
    path: Vec<u8>,
    changes: &'a mut Vec<Change>,
    names: Names,
    leftovers: &'a mut Vec<(usize, Vec<u8>)>,
    how: Look<'a>,
}

/// Names that a file has in the layer.
#[derive(Default)]
struct Above {
    /// Those of which the real tree has the very same.
    in_place: Vec<Twin>,
    /// The changes of the others.
    changed: Vec<usize>,
}

/// Names of files that have several.
#[derive(Default)]
struct Names {
    /// In the layer, by inode.
    above: BTreeMap<u64, Above>,
    /// Below, by file: how many names it has, and the changes that are of one.
    below: HashMap<(u64, u64), (usize, Vec<usize>)>,
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

    fn tell(&mut self, kind: Kind, file_type: FileType, differs: Vec<Differs>, hazards: Vec<Hazard>) {
        let (path, inner) = (self.whole(), self.path.clone());
        let layer = self.number;
        self.changes.push(Change {
            kind,
            path,
            file_type,
            differs,
            hazards,
            layer,
            inner,
            below: None,
            other_names: 0,
            twin: None,
            unread: false,
        });
    }

    /// Notes names of files that have several: the one told last, or with `same` one that has not changed.
    fn note_names(&mut self, above: Option<&Stat>, below: Option<&Stat>, same: bool) {
        let last = self.changes.len().wrapping_sub(1);
        if let Some(above) = above.filter(|stat| stat.st_nlink > 1) {
            let names = self.names.above.entry(above.st_ino).or_default();
            match below {
                Some(below) if same => names.in_place.push(Twin { inner: self.path.clone(), known: Known::of(below) }),
                _ => names.changed.push(last),
            }
        }
        if let Some(below) = below.filter(|stat| stat.st_nlink > 1 && !same) {
            let count = usize::try_from(below.st_nlink).unwrap_or(usize::MAX);
            self.names.below.entry(Known::of(below).file()).or_insert((count, Vec::new())).1.push(last);
        }
    }

    /// Tells of hard links, when all names of a layer are known.
    fn hard_links(&mut self) {
        let Names { above, below } = std::mem::take(&mut self.names);
        for Above { in_place, changed } in above.into_values() {
            let Some(first) = in_place.first() else { continue };
            let twin = Some(Box::new(first.clone()));
            for index in changed {
                self.changes[index].twin.clone_from(&twin);
            }
            for other in in_place.iter().skip(1).filter(|other| other.known.file() != first.known.file()) {
                self.path.clone_from(&other.inner);
                let kind = FileType::from_raw_mode(other.known.mode);
                self.tell(Kind::Modified, kind, vec![Differs::Links], Vec::new());
                if let Some(change) = self.changes.last_mut() {
                    change.twin.clone_from(&twin);
                }
            }
        }
        self.path.clear();
        if self.layer.is_image {
            return;
        }
        for (count, told) in below.into_values() {
            for index in &told {
                let change = &mut self.changes[*index];
                // What was given another type, or made a name of another file, is a new file for sure.
                let written = change.kind == Kind::Modified && change.twin.is_none();
                if written && change.differs != [Differs::Type] {
                    change.other_names = count.saturating_sub(told.len());
                }
            }
        }
    }

    /// Marks the last change, if it can't be read.
    fn mark(&mut self, unread: bool) {
        if let Some(change) = self.changes.last_mut() {
            change.unread |= unread;
        }
    }

    /// Notes with the last change what is below it. What can't be read could not be compared later either.
    fn note_below(&mut self, dress: rustix::io::Result<Dress>) {
        if let (Some(change), Ok(dress)) = (self.changes.last_mut(), dress) {
            change.below = Some(Box::new(dress));
        }
    }

    fn is_mount_point(&self) -> bool {
        let whole = self.whole();
        self.record.mount_points.iter().any(|point| point.as_bytes() == whole)
    }

    /// Something is mounted below it, or was made there or below it: it was there before the command.
    fn is_way(&self) -> bool {
        let mut whole = self.whole();
        whole.push(b'/');
        let made = |made: &String| [made.as_bytes(), b"/"].concat().starts_with(&whole);
        self.record.mount_points.iter().any(|point| point.as_bytes().starts_with(&whole))
            || self.record.made.iter().any(made)
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
        let name = if self.layer.user_xattrs { "user.overlay.opaque" } else { "trusted.overlay.opaque" };
        let mut value = [0_u8; 8];
        fgetxattr(directory, name, &mut value).is_ok_and(|count| value[..count] == *b"y")
    }

    /// Everything in a directory. `alone`: nothing of below shows through it.
    fn directory(&mut self, upper: &Open, lower: &Lower, depth: usize, plain: bool, alone: bool) -> Result<()> {
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
            self.leftovers.push((self.number, self.path.clone()));
        }
        for name in &names {
            self.within(name, |walker| walker.entry(upper, lower, name, depth, plain, alone))?;
        }
        if (!alone && !plain) || self.how == Look::Directories {
            return Ok(());
        }
        for (name, stat) in self.at(lower.names())? {
            let kind = FileType::from_raw_mode(stat.st_mode);
            // Of what was made anew only links can be removed: the rest are mount points, or was never copied.
            let could_be = alone || kind == FileType::Symlink;
            if could_be && !names.contains(&name) && name != temporary {
                self.within(&name, |walker| {
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

    fn entry(
        &mut self,
        upper: &Open,
        lower: &Lower,
        name: &[u8],
        depth: usize,
        plain: bool,
        alone: bool,
    ) -> Result<()> {
        if self.is_mount_point() {
            return Ok(());
        }
        let stat = self.at(statat(upper, name, AtFlags::SYMLINK_NOFOLLOW))?;
        if self.how == Look::Directories && FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Ok(());
        }
        let below = match lower.find(name) {
            Err(Errno::ACCESS) => None,
            other => self.at(other)?,
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
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
        let is_directory = kind == FileType::Directory;
        let way = is_directory && self.is_way();
        let hazards = self.at(hazards(upper, name, &stat))?;
        let was_directory = below.as_ref().is_some_and(|found| FileType::from_raw_mode(found.stat.st_mode) == kind);
        match &below {
            None if way => {}
            None => {
                self.tell(Kind::Added, kind, Vec::new(), hazards);
                if !is_directory {
                    self.note_names(Some(&stat), None, false);
                }
            }
            Some(_) if way && plain => {}
            Some(below) => {
                // A link in what was made anew is a copy of ours, and belongs to us.
                let copied = plain && kind == FileType::Symlink;
                let found = differs(upper, name, &stat, below);
                let unread = found == Err(Errno::ACCESS) && matches!(self.how, Look::Able(_));
                let mut differs = if unread { vec![Differs::Content] } else { self.at(found)? };
                differs.retain(|what| !copied || matches!(what, Differs::Type | Differs::Content));
                let same = differs.is_empty();
                if !same {
                    self.tell(Kind::Modified, kind, differs, hazards);
                    self.mark(unread);
                    if is_directory && was_directory {
                        self.note_below(Dress::of(&*below.parent, name, &below.stat));
                    }
                }
                let was_file = FileType::from_raw_mode(below.stat.st_mode) != FileType::Directory;
                if !is_directory || (was_file && !same) {
                    let above = Some(&stat).filter(|_| !is_directory);
                    self.note_names(above, Some(&below.stat).filter(|_| was_file), same);
                }
            }
        }
        if !is_directory {
            return Ok(());
        }
        let told = self.changes.last().is_some_and(|change| change.layer == self.number && change.inner == self.path);
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
        let (lower, below) =
            if was_directory { (self.at(lower.enter(name))?, true) } else { (Lower::default(), false) };
        let alone = below && !lower.is_nothing() && (alone || self.is_opaque(&inner));
        self.directory(&inner, &lower, depth + 1, plain && way, alone)
    }
}

/// What of a file could give more rights than the command had.
fn hazards(parent: &Open, name: &[u8], stat: &Stat) -> rustix::io::Result<Vec<Hazard>> {
    let mut hazards = Vec::new();
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            if stat.st_mode & 0o4000 != 0 {
                hazards.push(Hazard::SetUserId);
            }
            if stat.st_mode & 0o2000 != 0 {
                hazards.push(Hazard::SetGroupId);
            }
            if xattrs(parent, name)?.iter().any(|(key, _)| key == b"security.capability") {
                hazards.push(Hazard::Capabilities);
            }
        }
        FileType::CharacterDevice | FileType::BlockDevice => hazards.push(Hazard::Device),
        _ => {}
    }
    Ok(hazards)
}

fn differs(upper: &Open, name: &[u8], stat: &Stat, below: &Found) -> rustix::io::Result<Vec<Differs>> {
    let (new, old) = (FileType::from_raw_mode(stat.st_mode), FileType::from_raw_mode(below.stat.st_mode));
    if new != old {
        return Ok(vec![Differs::Type]);
    }
    let mut differs = Vec::new();
    let content = match new {
        FileType::RegularFile => !same_content(upper, name, stat, below)?,
        FileType::Symlink => readlinkat(upper, name, Vec::new())? != readlinkat(&*below.parent, name, Vec::new())?,
        FileType::CharacterDevice | FileType::BlockDevice => stat.st_rdev != below.stat.st_rdev,
        _ => false,
    };
    let found = [
        (content, Differs::Content),
        (stat.st_mode & 0o7777 != below.stat.st_mode & 0o7777, Differs::Mode),
        ((stat.st_uid, stat.st_gid) != (below.stat.st_uid, below.stat.st_gid), Differs::Owner),
        (xattrs(upper, name)? != xattrs(&*below.parent, name)?, Differs::Xattrs),
    ];
    differs.extend(found.into_iter().filter(|(does, _)| *does).map(|(_, what)| what));
    Ok(differs)
}

fn same_content(upper: &Open, name: &[u8], stat: &Stat, below: &Found) -> rustix::io::Result<bool> {
    if stat.st_size != below.stat.st_size {
        return Ok(false);
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let new = Open::file(upper, name)?.read()?;
    let old = match openat(&*below.parent, name, flags, Mode::empty()) {
        // An apply gives a file its time, and so does a copy for the layer.
        Err(Errno::ACCESS) => return Ok(Known::of(stat).written == Known::of(&below.stat).written),
        other => File::from(other?),
    };
    let mut buffers = [vec![0; 128 * 1024], vec![0; 128 * 1024]];
    let mut offset = 0;
    loop {
        let [a, b] = &mut buffers;
        let io = |error: std::io::Error| error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error);
        let count = new.read_at(a, offset).map_err(io)?;
        if count == 0 {
            return Ok(true);
        }
        match old.read_exact_at(&mut b[..count], offset) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
            other => other.map_err(io)?,
        }
        if a[..count] != b[..count] {
            return Ok(false);
        }
        offset += count as u64;
    }
}
