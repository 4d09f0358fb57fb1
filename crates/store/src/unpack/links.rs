//! Hard links, whose targets may follow them in the archive.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, fstat, linkat, statat};
use rustix::io::Errno;

use super::destination::{clean, split};
use super::errors::{failed, invalid};
use super::unpacker::Unpacker;
use crate::tar::{EntryKind, TarEntry};
use nsrs_base::error::Result;
use nsrs_base::error::show;
use nsrs_base::tree::marks::is_whiteout;

/// How often the deferred hard links are gone through. One round is the rule.
const MAX_ROUNDS: usize = 40;

impl Unpacker<'_> {
    /// Makes a hard link, or defers it if its target may still come.
    pub(super) fn link(&mut self, directory: &OwnedFd, path: &[u8], name: &[u8], entry: &TarEntry) -> Result<()> {
        let target = clean(&entry.link)?;
        if target.is_empty() {
            return Err(invalid("a hard link to the root"));
        }
        let (parent, target_name) = split(&target);
        // A whiteout may still be replaced by a file of this layer; otherwise the target is missing.
        let from = match self.destination.existing(parent) {
            Ok(from) => match statat(&from, target_name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if is_whiteout(&from, target_name, &stat) => None,
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                    return Err(invalid(format!("a hard link to the directory {}", show(&target))));
                }
                Ok(stat) => Some((from, stat)),
                Err(Errno::NOENT) => None,
                Err(errno) => return Err(failed("make the hard link", entry, errno)),
            },
            Err(Errno::NOENT | Errno::NOTDIR) => None,
            Err(errno) => return Err(failed("make the hard link", entry, errno)),
        };
        let Some((from, stat)) = from else {
            if self.skipped.contains(&target) {
                self.skip(path);
                return Ok(());
            }
            // Its target may still come.
            self.links.insert(path.to_vec(), target);
            return Ok(());
        };
        // Through a link both may be the same file: replacing it would remove it first.
        if let Ok(own) = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
            && (own.st_dev, own.st_ino) == (stat.st_dev, stat.st_ino)
        {
            return Ok(());
        }
        self.replacing(directory, path, name, |directory| linkat(&from, target_name, directory, name, AtFlags::empty()))
            .map_err(|errno| failed("make the hard link", entry, errno))
    }

    /// Makes the deferred hard links, targets among them first, so that a long chain takes one round. Another round is needed
    /// only where a link replaced the target of another.
    pub(super) fn links(&mut self) -> Result<()> {
        for _round in 0..MAX_ROUNDS {
            let before = self.links.len();
            if before == 0 {
                return Ok(());
            }
            self.links_by_order()?;
            if self.links.len() == before {
                break;
            }
        }
        match self.links.first_key_value() {
            None => Ok(()),
            Some((path, target)) => {
                Err(invalid(format!("a hard link to {}, which isn't in the layer", show(target))).on(show(path)))
            }
        }
    }

    fn links_by_order(&mut self) -> Result<()> {
        let links: Vec<(Vec<u8>, Vec<u8>)> = std::mem::take(&mut self.links).into_iter().collect();
        // By device and inode of the directory: links lead to one by several paths.
        let mut places = HashMap::new();
        for (index, (path, _)) in links.iter().enumerate() {
            self.destination.directory(split(path).0)?;
            if let Some(place) = self.place(path) {
                places.insert(place, index);
            }
        }
        let mut seen = vec![false; links.len()];
        for first in 0..links.len() {
            let mut chain = Vec::new();
            let mut next = Some(first);
            while let Some(index) = next.filter(|index| !std::mem::replace(&mut seen[*index], true)) {
                chain.push(index);
                next = self.place(&links[index].1).and_then(|place| places.get(&place).copied());
            }
            for (path, target) in chain.into_iter().rev().map(|index| &links[index]) {
                self.deferred_link(path, target)?;
            }
        }
        Ok(())
    }

    /// The directory of a path, by device and inode, and the name in it; `None`: there is no such directory.
    fn place<'p>(&mut self, path: &'p [u8]) -> Option<((u64, u64), &'p [u8])> {
        let (parent, name) = split(path);
        let stat = self.destination.existing(parent).and_then(fstat).ok()?;
        Some(((stat.st_dev, stat.st_ino), name))
    }

    fn deferred_link(&mut self, path: &[u8], target: &[u8]) -> Result<()> {
        let entry = TarEntry {
            path: path.to_vec(),
            link: target.to_vec(),
            kind: EntryKind::HardLink,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
            device: (0, 0),
            size: 0,
            sparse: None,
            xattrs: Vec::new(),
        };
        let (parent, name) = split(path);
        let directory: Rc<OwnedFd> = self.destination.directory(parent)?;
        self.link(&directory, path, name, &entry).map_err(|error| match error.subject.is_empty() {
            true => error.on(show(path)),
            false => error,
        })
    }
}
