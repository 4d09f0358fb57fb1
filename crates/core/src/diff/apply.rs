//! Kept changes, brought into the real tree.
//!
//! The layers were written by a command that nobody need trust: whatever they hold, no path of theirs is resolved through a
//! link, and none leads out of the directory that the layer was over, nor into another file system. The tree may have
//! changed meanwhile, and may be changed by others while this goes on: each step begins with a descriptor of its directory.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2, statat};
use rustix::io::Errno;

use super::base::Base;
use super::meanwhile::{Meanwhile, WRITE};
use super::open::Open;
use super::place::{Id, Place, id};
use super::walk::{TOO_DEEP, able};
use super::{Change, Hazard, Kind, Known, Record, Twin, escaped, keep_theirs, place};
use nsrs_base::error::{At, Code, Error, Result};
use nsrs_base::tree::{xattrs, xattrs_of};

/// What may be done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Consent {
    /// Write over what has changed in the real tree since the command ran.
    pub force: bool,
    /// Bring files that give rights: set-user-ID and set-group-ID bits, file capabilities, devices.
    pub privileged: bool,
}

/// The layers of a record, and the directories that they are over.
#[derive(Debug)]
pub struct Apply<'a> {
    record: &'a Record,
    uppers: Vec<OwnedFd>,
    /// `None`: this user can't see it.
    targets: Vec<Option<OwnedFd>>,
    meanwhile: Meanwhile<'a>,
    /// Names of files with several that are in place, by layer and inode there.
    placed: HashMap<(usize, u64), Twin>,
    /// The name under which things are made.
    temporary: String,
    /// Directories in which something has that name, by layer and path.
    leftovers: Vec<(usize, Vec<u8>)>,
    brought: Vec<Brought>,
}

/// A change that was brought: what was below is no more.
#[derive(Debug)]
pub struct Brought {
    /// Which layer told it.
    pub(super) layer: usize,
    /// Its path in the layer.
    pub(super) inner: Vec<u8>,
    /// Nothing can be below that was in it either.
    pub(super) whole: bool,
}

impl Brought {
    fn of(change: &Change) -> Brought {
        let whole = change.kind == Kind::Deleted || change.file_type != FileType::Directory;
        Brought { layer: change.layer, inner: change.inner.clone(), whole }
    }
}

/// What is left to do for a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Nothing.
    Done,
    /// A directory that was there gets its attributes.
    DressOld(Id),
    /// A new one.
    DressNew(Id),
}

/// A directory of the real tree, and what it is to be like: the layer's.
struct Pair {
    target: Open,
    from: Open,
}

const STEP: &str = "apply the change";
const PATH: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const READ: Access = Access::READ_OK.union(Access::EXEC_OK);

/// The changes; in which directories of the real tree an ended apply has left something, by layer and path; and what is below.
#[derive(Debug, Default)]
pub struct Listed {
    /// By path.
    pub changes: Vec<Change>,
    pub(super) leftovers: Vec<(usize, Vec<u8>)>,
    pub(super) bases: Vec<Base>,
}

/// The changes as they are to the tree of this moment.
///
/// # Errors
/// Those of [`walk`]; the layers are over an image.
pub fn list(layers: impl AsFd, record: &Record) -> Result<Listed> {
    if let Some(layer) = record.layers.iter().find(|layer| layer.is_image || layer.lowers.len() != 1) {
        return Err(Error::new(
            Code::Unsupported,
            "apply the changes",
            "they are of an image, whose layers stay as they are",
        )
        .on(&layer.path)
        .hint("run with the same --upper to go on with them"));
    }
    let temporary = temporary(&layers, record);
    able(layers, record, &temporary)
}

/// The temporary name: the same for every apply of these changes, of which there is one at a time, so that each finds what an
/// ended one has left.
fn temporary(layers: impl AsFd, record: &Record) -> String {
    let ino = fstat(layers).map_or(0, |stat| stat.st_ino);
    format!(".nsrs-apply-{:x}-{ino:x}", record.since)
}

impl Apply<'_> {
    /// Opens the trees.
    ///
    /// # Errors
    /// One is gone.
    pub fn new(layers: impl AsFd, record: &Record) -> Result<Apply<'_>> {
        let mut apply = Apply {
            record,
            uppers: Vec::new(),
            targets: Vec::new(),
            meanwhile: Meanwhile::of(record),
            placed: HashMap::new(),
            temporary: temporary(&layers, record),
            leftovers: Vec::new(),
            brought: Vec::new(),
        };
        for (number, layer) in record.layers.iter().enumerate() {
            let found = |directory: BorrowedFd<'_>, path: &str| {
                openat2(directory, path, PATH | OFlags::DIRECTORY, Mode::empty(), ResolveFlags::NO_SYMLINKS)
            };
            apply.uppers.push(found(layers.as_fd(), &format!("{number}/upper")).at(STEP, &layer.path)?);
            let path = layer.lowers.first().map_or("/", String::as_str);
            apply.targets.push(match found(CWD, path) {
                Err(Errno::ACCESS) => None,
                Err(errno) => return Err(explain(Error::os("open the real directory", path, errno), errno)),
                Ok(target) => Some(target),
            });
        }
        Ok(apply)
    }

    /// Has to remove what an ended apply has left, too.
    #[must_use]
    pub fn after(mut self, listed: &Listed) -> Self {
        self.leftovers.clone_from(&listed.leftovers);
        self
    }

    /// Notes the files of several names that have not changed. Returned are those that the record has not noted yet.
    pub fn remember(&mut self, changes: &[Change]) -> Vec<Known> {
        let mut new = Vec::new();
        for change in changes {
            let twin = change.twin.as_ref().map(|twin| &twin.inner);
            for inner in [Some(&change.inner), twin].into_iter().flatten() {
                let Ok(Some((parent, name))) = self.beneath(change.layer, inner, Access::EXEC_OK) else { continue };
                let Ok(stat) = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
                let several = stat.st_nlink > 1 || twin == Some(inner);
                let is_file = FileType::from_raw_mode(stat.st_mode) != FileType::Directory;
                if is_file && several {
                    new.extend(self.meanwhile.remember(change.layer, inner, &stat));
                }
            }
        }
        new
    }

    /// Does all of them, as far as that can be; what could not be done is told. First [`Apply::remember`] them.
    pub fn all(&mut self, changes: &[Change], consent: Consent) -> Vec<Error> {
        let mut errors = self.clear();
        let mut undressed = Vec::new();
        for change in changes {
            match self.one(change, consent) {
                Ok(Next::Done) => self.brought.push(Brought::of(change)),
                Ok(Next::DressOld(id)) => undressed.push((change, id, false)),
                Ok(Next::DressNew(id)) => {
                    self.meanwhile.made(change.layer, &change.inner, id);
                    undressed.push((change, id, true));
                }
                Err(error) => errors.push(error),
            }
        }
        // Last, for what is in a directory may be none of whom it is opened to, and its times change with its entries.
        for (change, id, is_new) in undressed.into_iter().rev() {
            match self.dress(change, id, is_new) {
                Ok(()) => self.brought.push(Brought::of(change)),
                Err(error) => errors.push(error),
            }
        }
        errors
    }

    /// Removes what an earlier one has left: a part of a file, or a directory that was being removed.
    pub fn clear(&self) -> Vec<Error> {
        let mut errors = Vec::new();
        for (layer, inner) in &self.leftovers {
            let at = || Open::beneath(self.target(*layer)?, path(inner), WRITE);
            if let Err(errno) = at().and_then(|directory| place::clear(&directory, &self.temporary)) {
                let subject = format!("{}/{}", escaped(inner), self.temporary);
                errors.push(Error::os("remove what an ended apply has left", subject, errno));
            }
        }
        errors
    }

    /// Brings what was done to the disk.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn sync(&self) -> Result<()> {
        for (target, layer) in self.targets.iter().zip(&self.record.layers) {
            let Some(target) = target else { continue };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            // One that can't be read can't have been written to either.
            let Ok(directory) = openat(target, ".", flags, Mode::empty()) else { continue };
            rustix::fs::syncfs(&directory).at("bring the changes to the disk", &layer.path)?;
        }
        Ok(())
    }

    /// What was done.
    #[must_use]
    pub fn brought(&self) -> &[Brought] {
        &self.brought
    }

    /// Does one, but for the attributes of a directory.
    fn one(&mut self, change: &Change, consent: Consent) -> Result<Next> {
        let subject = escaped(&change.path);
        let fail = |errno: Errno| explain(Error::os(STEP, &subject, errno), errno);
        if !change.hazards.is_empty() && !consent.privileged {
            return Err(Error::new(Code::InvalidArgument, STEP, format!("it {}", reasons(&change.hazards)))
                .on(subject)
                .hint("look at it; --privileged-files brings such files too"));
        }
        if change.unread {
            return Err(Error::os(STEP, &subject, Errno::ACCESS).hint(
                "it is another user's of the container: root can apply it, having taken over the directory and its changes.json (chown root)",
            ));
        }
        let Some((parent, name)) = self.beneath(change.layer, &change.inner, WRITE).map_err(fail)? else {
            return self.open_old(change, consent).map(Next::DressOld);
        };
        let (above, _) = split(&change.inner);
        if !self.meanwhile.is_seen(change.layer, above, &parent.stat, consent.force) {
            return Err(exchanged(subject));
        }
        let old = match statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => None,
            other => Some(other.map_err(fail)?),
        };
        let is_directory = |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let stays = change.kind == Kind::Modified
            && change.file_type == FileType::Directory
            && old.as_ref().is_some_and(is_directory);
        if stays {
            return self.open_old(change, consent).map(Next::DressOld);
        }
        let has_changed = |stat| self.meanwhile.has_changed(change.layer, &change.inner, &parent, name, stat);
        let changed = match &old {
            Some(stat) => has_changed(stat).map_err(fail)? || change.kind == Kind::Added,
            None => false,
        };
        if changed && !consent.force {
            return Err(conflict(subject));
        }
        if old.is_none() && change.kind == Kind::Modified && !consent.force {
            let why = "it was removed since the command ran";
            return Err(Error::new(Code::InUse, STEP, why).on(subject).hint("--force brings it back"));
        }
        if change.other_names > 0 && !consent.force && old.as_ref().is_some_and(|stat| stat.st_nlink > 1) {
            let why = format!("it is a hard link: {}", keep_theirs(change));
            return Err(Error::new(Code::InUse, STEP, why).on(subject).hint("--force makes it a file of its own"));
        }
        let new = change.kind == Kind::Added && !consent.force;
        let place = Place { to: &parent, name, temporary: &self.temporary, new, old: old.as_ref().map(id) };
        if change.kind == Kind::Deleted {
            return place::take_away(place).map(|()| Next::Done).map_err(fail);
        }
        if change.file_type == FileType::Directory {
            // With its attributes at once: an apply that goes on finds it as the layer has it.
            let from = self.directory(change).map_err(fail)?;
            return place::put_directory(&from, place).map(|made| Next::DressNew(id(&made))).map_err(fail);
        }
        let (from, name, stat) = self.source(change).map_err(fail)?;
        let twin = self.twin(change, &from, name, &stat).map_err(fail)?;
        place::put(&from, &stat, place, twin.as_ref()).map_err(fail)?;
        if stat.st_nlink > 1 && twin.is_none() {
            let put = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(fail)?;
            let twin = Twin { inner: change.inner.clone(), known: Known::of(&put) };
            self.placed.insert((change.layer, stat.st_ino), twin);
        }
        Ok(Next::Done)
    }

    /// Opens the real file that a change is another name of, if that is in place and as it was.
    fn twin(&self, change: &Change, from: &Open, name: &[u8], stat: &Stat) -> rustix::io::Result<Option<OwnedFd>> {
        let placed = self.placed.get(&(change.layer, stat.st_ino)).or(change.twin.as_deref());
        let Some(twin) = placed.filter(|_| stat.st_nlink > 1) else { return Ok(None) };
        let Some((parent, other)) = self.beneath(change.layer, &twin.inner, Access::EXEC_OK)? else { return Ok(None) };
        let file = match openat(&parent, other, PATH, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            other => other?,
        };
        let is_same = Known::of(&fstat(&file)?) == twin.known && xattrs_of(&file)? == xattrs(from, name)?;
        Ok(is_same.then_some(file))
    }

    /// Makes sure that a directory that was there is the one that the command saw, and says which it is.
    fn open_old(&self, change: &Change, consent: Consent) -> Result<Id> {
        let subject = escaped(&change.path);
        let act = || {
            let Pair { target, from } = self.pair(change)?;
            let seen = || self.meanwhile.is_as_seen(change.layer, &change.inner, &target, &from);
            let may_be = consent.force || seen()?;
            Ok(may_be.then(|| id(&target.stat)))
        };
        match act() {
            Ok(Some(id)) => Ok(id),
            Ok(None) => Err(conflict(subject)),
            Err(errno) => Err(explain(Error::os(STEP, subject, errno), errno)),
        }
    }

    /// Gives a directory what the layer's has; a new one its times too.
    fn dress(&self, change: &Change, which: Id, is_new: bool) -> Result<()> {
        let subject = escaped(&change.path);
        let fail = |errno| explain(Error::os(STEP, &subject, errno), errno);
        let Pair { target, from } = self.pair(change).map_err(fail)?;
        if id(&target.stat) != which {
            return Err(exchanged(subject));
        }
        place::dress(&target, &from, is_new).map_err(fail)?;
        target.keep_mode();
        Ok(())
    }

    /// A directory of the real tree, and the layer's.
    fn pair(&self, change: &Change) -> rustix::io::Result<Pair> {
        let from = self.directory(change)?;
        // Nor is it another file system's that is mounted there by now.
        Ok(Pair { target: Open::beneath(self.target(change.layer)?, path(&change.inner), READ)?, from })
    }

    /// A directory of the layer.
    fn directory(&self, change: &Change) -> rustix::io::Result<Open> {
        Open::beneath(&self.uppers[change.layer], path(&change.inner), READ)
    }

    fn target(&self, layer: usize) -> rustix::io::Result<&OwnedFd> {
        self.targets[layer].as_ref().ok_or(Errno::ACCESS)
    }

    /// The real directory that a name is in, and the name there; none for the directory that the layer is over.
    fn beneath<'c>(
        &self,
        layer: usize,
        inner: &'c [u8],
        wanted: Access,
    ) -> rustix::io::Result<Option<(Open, &'c [u8])>> {
        let (parent, name) = split(inner);
        if name.is_empty() {
            return Ok(None);
        }
        Open::beneath(self.target(layer)?, path(parent), wanted).map(|parent| Some((parent, name)))
    }

    /// The same in the layer, with what is there.
    fn source<'c>(&self, change: &'c Change) -> rustix::io::Result<(Open, &'c [u8], Stat)> {
        let (parent, name) = split(&change.inner);
        let parent = Open::beneath(&self.uppers[change.layer], path(parent), Access::EXEC_OK)?;
        let stat = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) != change.file_type {
            return Err(Errno::STALE);
        }
        Ok((parent, name, stat))
    }
}

/// The directory that a path within a layer is in, and its name there.
fn split(inner: &[u8]) -> (&[u8], &[u8]) {
    match inner.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&inner[..at], &inner[at + 1..]),
        None => (b"", inner),
    }
}

/// A path within a layer; of the layer itself too.
fn path(inner: &[u8]) -> &[u8] {
    if inner.is_empty() { b"." } else { inner }
}

fn exchanged(subject: String) -> Error {
    Error::new(Code::InUse, STEP, "the directory that it is, or is in, was exchanged")
        .on(subject)
        .hint("look at it; --force goes into the one that is there now")
}

fn conflict(subject: String) -> Error {
    Error::new(Code::InUse, STEP, "it has changed since the command ran").on(subject).hint("--force writes over it")
}

fn explain(error: Error, errno: Errno) -> Error {
    match errno {
        Errno::NOENT => error.because("the directory that it was in is gone").hint("--force brings that back"),
        Errno::LOOP | Errno::NOTDIR => {
            error.because("there is a link or a file in the real tree where a directory was")
        }
        Errno::XDEV => error.because("another file system is mounted there in the real tree"),
        Errno::MFILE | Errno::NAMETOOLONG => error.because(TOO_DEEP).hint("remove or bring it by hand"),
        Errno::EXIST => error.because("it has come into being since the command ran").hint("--force writes over it"),
        Errno::STALE => error.because("the kept changes are being changed"),
        Errno::PERM => error.hint("it needs root, for its owner or its attributes"),
        _ => error,
    }
}

/// Why a file is dangerous, as the end of a sentence.
#[must_use]
pub fn reasons(hazards: &[Hazard]) -> String {
    let one = |hazard: &Hazard| match hazard {
        Hazard::SetUserId => "runs with its owner's rights (set-user-ID)",
        Hazard::SetGroupId => "runs with its group's rights (set-group-ID)",
        Hazard::Capabilities => "has file capabilities",
        Hazard::Device => "is a device",
    };
    hazards.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;
    use crate::diff::tests::Ground;

    /// What a neighbour has exchanged between two steps, by somebody who may write to the directory above only.
    fn exchange(ground: &Ground, name: &str) {
        let [here, there, away] = [name, "precious", "away"].map(|name| ground.lower().join(name));
        fs::create_dir(&there).unwrap();
        fs::set_permissions(&there, PermissionsExt::from_mode(0o700)).unwrap();
        fs::write(there.join("secret"), "").unwrap();
        fs::rename(&here, away).unwrap();
        fs::rename(there, here).unwrap();
    }

    #[test]
    fn a_directory_that_is_exchanged_meanwhile_is_neither_dressed_nor_written_to() {
        let Some(ground) = Ground::new("swapped") else { return };
        fs::create_dir(ground.lower().join("old")).unwrap();
        ground.change(|merged| {
            fs::set_permissions(merged.join("old"), PermissionsExt::from_mode(0o777)).unwrap();
            fs::write(merged.join("old/file"), "").unwrap();
        });
        let record = ground.noted();
        let changes = list(ground.layers(), &record).unwrap().changes;
        let mut apply = Apply::new(ground.layers(), &record).unwrap();
        let Next::DressOld(which) = apply.one(&changes[0], Consent::default()).unwrap() else { panic!() };
        exchange(&ground, "old");
        let errors = [
            apply.one(&changes[1], Consent::default()).map(drop).unwrap_err(),
            apply.dress(&changes[0], which, false).unwrap_err(),
        ];
        assert!(errors.iter().all(|error| error.to_string().contains("was exchanged")), "{errors:?}");
        let now = ground.lower().join("old");
        assert_eq!(fs::metadata(&now).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(&now).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_that_was_made_and_is_exchanged_is_not_written_to_with_force_either() {
        let Some(ground) = Ground::new("swapped-new") else { return };
        ground.change(|merged| {
            fs::create_dir(merged.join("new")).unwrap();
            fs::write(merged.join("new/file"), "").unwrap();
        });
        let record = ground.noted();
        let changes = list(ground.layers(), &record).unwrap().changes;
        let mut apply = Apply::new(ground.layers(), &record).unwrap();
        let force = Consent { force: true, privileged: true };
        assert_eq!(apply.all(&changes[..1], force), []);
        exchange(&ground, "new");
        let error = apply.one(&changes[1], force).map(drop).unwrap_err();
        assert!(error.to_string().contains("was exchanged"), "{error}");
    }

    #[test]
    fn what_takes_the_place_of_a_directory_that_is_to_go_is_not_removed() {
        let Some(ground) = Ground::new("swapped-gone") else { return };
        let at = |name: &str| ground.lower().join(name);
        for name in ["gone", "other"] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("file"), "").unwrap();
        }
        let old = |name: &str| Some(id(&statat(CWD, at(name), AtFlags::SYMLINK_NOFOLLOW).unwrap()));
        let to = Open::beneath(fs::File::open(ground.lower()).unwrap(), b".", WRITE).unwrap();
        let place = Place { to: &to, name: b"gone", temporary: ".temporary", new: false, old: old("other") };
        assert_eq!(place::take_away(place), Err(Errno::STALE));
        assert!(at("gone/file").exists() && !at(".temporary").exists());
        place::take_away(Place { old: old("gone"), ..place }).unwrap();
        assert!(!at("gone").exists());
    }
}
