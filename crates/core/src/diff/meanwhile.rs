//! What has happened to the real tree since the command ran: an apply writes over nothing that the command had not seen.

use std::collections::HashMap;

use rustix::fs::{Access, AtFlags, Dir, FileType, Stat, accessat, statat};
use rustix::io::{Errno, Result};
use rustix::process::geteuid;

use super::base::{Bases, Dress, moment};
use super::open::{INSIDE, Open};
use super::place::{Id, id};
use super::walk::DEEPEST;
use super::{Known, Record};

/// What to remove something from a directory takes.
pub(super) const WRITE: Access = Access::WRITE_OK.union(Access::EXEC_OK);

/// What is known of the real tree: as it was, and what an apply has done to it itself.
#[derive(Debug)]
pub(super) struct Meanwhile<'a> {
    /// When the layers were new, in nanoseconds since 1970.
    since: i64,
    bases: Bases<'a>,
    /// Files of several names that had not changed before the apply began.
    known: HashMap<Id, Known>,
    /// Directories that were made, by layer and path.
    made: HashMap<(usize, Vec<u8>), Id>,
}

impl Meanwhile<'_> {
    pub fn of(record: &Record) -> Meanwhile<'_> {
        let known = record.known.iter().map(|known| (known.file(), *known)).collect();
        Meanwhile { since: record.since, bases: Bases::of(record), known, made: HashMap::new() }
    }

    /// Notes a file of several names that has not changed: giving it a name, or taking one from it, is a change by its time.
    /// Returned is what was not noted yet.
    pub fn remember(&mut self, layer: usize, inner: &[u8], stat: &Stat) -> Option<Known> {
        let is_still = match self.bases.get(layer, inner) {
            Some(base) => base.is_still(stat),
            None => moment(stat) < self.since,
        };
        let known = Known::of(stat);
        (is_still && self.known.insert(known.file(), known) != Some(known)).then_some(known)
    }

    /// Notes a directory that was made.
    pub fn made(&mut self, layer: usize, inner: &[u8], directory: Id) {
        self.made.insert((layer, inner.to_vec()), directory);
    }

    /// Is this directory the one that was made for what goes into it, or that the command saw? Whoever may write to the
    /// directory above could have exchanged it. With `force` any that was there will do.
    pub fn is_seen(&self, layer: usize, inner: &[u8], directory: &Stat, force: bool) -> bool {
        match self.made.get(&(layer, inner.to_vec())) {
            Some(made) => *made == id(directory),
            None => force || self.bases.get(layer, inner).is_none_or(|base| base.is_of(directory)),
        }
    }

    /// Has this directory the attributes that it had, those that the layer's has, or is it on the way from one to the other?
    pub fn is_as_seen(&self, layer: usize, inner: &[u8], directory: &Open, layers: &Open) -> Result<bool> {
        let now = Dress::of_open(directory, &directory.stat)?;
        let new = Dress::of_open(layers, &layers.stat)?;
        Ok(match self.bases.get(layer, inner) {
            Some(base) => base.is_of(&directory.stat) && now.is_between(base.dress.as_ref().unwrap_or(&new), &new),
            None => moment(&directory.stat) < self.since || now.is_between(&new, &new),
        })
    }

    /// Is what has this name another than the command saw, or has anything in it changed since?
    ///
    /// # Errors
    /// It can't be removed: something is mounted in it, or is closed to us.
    pub fn has_changed(&self, layer: usize, inner: &[u8], parent: &Open, name: &[u8], stat: &Stat) -> Result<bool> {
        let base = self.bases.get(layer, inner);
        let since = base.map_or(self.since, |base| base.since);
        let is_same = base.is_none_or(|base| base.is_still(stat) || (base.is_of(stat) && self.is_known(stat)));
        Ok(self.has_changed_since(since, parent, name, stat, 0)? || !is_same)
    }

    /// It had not changed before the apply began, and is what it was but for its names.
    fn is_known(&self, stat: &Stat) -> bool {
        let known = Known::of(stat);
        self.known.get(&known.file()) == Some(&known)
    }

    /// Has this, or anything in it, changed since then? That nothing is mounted in it, and nothing in it closed to us, is made
    /// sure of on the way: what is to be removed ends at the border of its file system. The clock of files ticks slower than
    /// one could write: the very moment counts.
    fn has_changed_since(&self, since: i64, parent: &Open, name: &[u8], stat: &Stat, depth: usize) -> Result<bool> {
        let mut found = moment(stat) >= since && !self.is_known(stat);
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Ok(found);
        }
        if depth > DEEPEST {
            return Err(Errno::MFILE);
        }
        let directory = Open::directory(parent, name, INSIDE)?;
        let mut entries: Vec<_> = Dir::read_from(&directory)?.collect::<Result<_>>()?;
        entries.retain(|entry| !matches!(entry.file_name().to_bytes(), b"." | b".."));
        // What can't be emptied is not begun with.
        if !entries.is_empty() && stat.st_uid != geteuid().as_raw() {
            accessat(&directory, ".", WRITE, AtFlags::EACCESS)?;
        }
        for entry in entries {
            let name = entry.file_name().to_bytes();
            let stat = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
            found |= self.has_changed_since(since, &directory, name, &stat, depth + 1)?;
        }
        Ok(found)
    }
}
