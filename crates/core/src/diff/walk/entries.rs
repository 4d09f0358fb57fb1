//! The entries of a directory in a layer, compared with those below.

use std::collections::BTreeSet;

use rustix::fs::{AtFlags, Dir, FileType, Stat, statat};
use rustix::io::{Errno, fcntl_dupfd_cloexec};

use super::WalkMode;
use super::walker::Walker;
use crate::diff::access_guard::{AccessGuard, INSIDE};
use crate::diff::attributes::DirectoryAttributes;
use crate::diff::compare::{differences, hazards};
use crate::diff::depth::MAX_DEPTH;
use crate::diff::lower_directory::{LowerDirectory, LowerEntry};
use crate::diff::{ChangeKind, Difference, Hazard};
use nsrs_base::error::Result;
use nsrs_base::tree::marks::{opaque, says_opaque};

/// A directory of a layer, and what lies below it.
#[derive(Clone, Copy)]
pub(super) struct Level<'a> {
    pub upper: &'a AccessGuard,
    pub lower: &'a LowerDirectory,
    /// How many directories it is in.
    pub depth: usize,
    /// It is a new directory in place of the one below: what is missing in it was not removed, unless it is a link.
    pub plain: bool,
    /// It is opaque, or in a directory that is: nothing of below shows through.
    pub hides_lower: bool,
}

fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn is_directory(stat: &Stat) -> bool {
    file_type(stat) == FileType::Directory
}

impl Walker<'_> {
    /// Whether overlayfs takes it for opaque. The mark in the other namespace of attributes can be set by anybody.
    fn is_opaque(&self, directory: &AccessGuard) -> bool {
        says_opaque(directory, opaque(self.layer.user_xattrs))
    }

    /// Lists the changes in a directory and everything below it.
    pub fn directory(&mut self, level: Level<'_>) -> Result<()> {
        if level.depth > MAX_DEPTH {
            return Err(self.too_deep());
        }
        let mut names = BTreeSet::new();
        // Not opened again by its name, for which the owner may lack the access.
        let entries = self.at(fcntl_dupfd_cloexec(level.upper, 0))?;
        for entry in self.at(Dir::new(entries))? {
            let name = self.at(entry)?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.insert(name);
            }
        }
        let leftover = match self.mode {
            WalkMode::ForApply(name) if matches!(level.lower.find(name.as_bytes()), Ok(Some(_))) => {
                self.listing.leftovers.push((self.number, self.path.clone()));
                Some(name.as_bytes())
            }
            _ => None,
        };
        for name in &names {
            self.within(name, |walker| walker.entry(level, name))?;
        }
        self.missing_entries(level, &names, leftover)
    }

    /// What is below and has no entry in a directory that hides it.
    fn missing_entries(&mut self, level: Level<'_>, names: &BTreeSet<Vec<u8>>, leftover: Option<&[u8]>) -> Result<()> {
        if !level.hides_lower && !level.plain {
            return Ok(());
        }
        for (name, stat) in self.at(level.lower.entries())? {
            // In a new directory only links can have been removed: other entries are mount points, or were never copied.
            let removable = level.hides_lower || file_type(&stat) == FileType::Symlink;
            if removable && !names.contains(&name) && Some(&name[..]) != leftover {
                self.within(&name, |walker| {
                    walker.add_baseline(&stat, None);
                    walker.report_deleted(&stat);
                    Ok(())
                })?;
            }
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
        // Made to mount something on. In a layer over the real directory another command may have written to it, for which
        // nothing was mounted there.
        let is_empty = file_type(&stat) == FileType::RegularFile && stat.st_size == 0 && below.is_none();
        if (plain || is_empty) && self.is_mount_point() {
            return Ok(());
        }
        if let Some(LowerEntry { stat, parent }) = &below {
            let attributes = is_directory(stat).then(|| DirectoryAttributes::of(&**parent, name, stat).ok()).flatten();
            self.add_baseline(stat, attributes);
        }
        if self.is_baseline_only() {
            let is_merged = is_directory(&stat) && below.is_some_and(|below| is_directory(&below.stat));
            return if is_merged { self.merged_directory(level, name) } else { Ok(()) };
        }
        if file_type(&stat) == FileType::CharacterDevice && stat.st_rdev == 0 {
            // A whiteout.
            if let Some(below) = below {
                self.report_deleted(&below.stat);
            }
            return Ok(());
        }
        self.present_entry(level, name, &stat, below.as_ref())
    }

    /// An entry that exists in the container, and what is in it.
    fn present_entry(&mut self, level: Level<'_>, name: &[u8], stat: &Stat, below: Option<&LowerEntry>) -> Result<()> {
        let is_directory = is_directory(stat);
        let leads_to_mount = is_directory && self.leads_to_mount_point();
        let made = leads_to_mount || (is_directory && self.leads_to_made());
        let hazards = self.at(hazards(level.upper, name, stat))?;
        match below {
            None if made => {}
            None => {
                // What existed and is gone below was removed by somebody else: the command changed it.
                let existed = self.baseline.get(self.number, &self.path).is_some();
                let kind = if existed { ChangeKind::Modified } else { ChangeKind::Added };
                self.report(kind, file_type(stat), Vec::new(), hazards);
                if !is_directory {
                    self.add_changed_name(Some(stat), None);
                }
            }
            Some(_) if made && level.plain => {}
            Some(below) => self.compare_entry(level, name, stat, below, hazards)?,
        }
        if !is_directory {
            return Ok(());
        }
        let plain = level.plain && leads_to_mount;
        self.directory_entry(Level { plain, ..level }, name, below, made)
    }

    /// Reports how an entry differs from the one below.
    fn compare_entry(
        &mut self,
        level: Level<'_>,
        name: &[u8],
        stat: &Stat,
        below: &LowerEntry,
        hazards: Vec<Hazard>,
    ) -> Result<()> {
        let (now, was) = (file_type(stat), file_type(&below.stat));
        // A link in a new directory is a copy of ours, and belongs to us.
        let copied = level.plain && now == FileType::Symlink;
        let found = differences(level.upper, name, stat, below);
        let unreadable = self.is_for_apply() && found == Err(Errno::ACCESS);
        let mut differences = if unreadable { vec![Difference::Content] } else { self.at(found)? };
        differences.retain(|what| !copied || matches!(what, Difference::Type | Difference::Content));
        if self.is_for_apply()
            && (now, was) == (FileType::Directory, FileType::Directory)
            // By ids of the host.
            && let Some(entry) = self.baseline.get(self.number, &self.path)
            && let Some(before) = &entry.attributes
        {
            before.retain_own(&self.at(DirectoryAttributes::of(level.upper, name, stat))?, &mut differences);
        }
        if differences.is_empty() {
            if now != FileType::Directory {
                self.add_unchanged_name(stat, &below.stat);
            }
            return Ok(());
        }
        self.report(ChangeKind::Modified, now, differences, hazards);
        if unreadable {
            self.mark_unreadable();
        }
        let upper = (now != FileType::Directory).then_some(stat);
        let lower = (was != FileType::Directory).then_some(&below.stat);
        self.add_changed_name(upper, lower);
        Ok(())
    }

    /// What is in a directory of the layer; `made`: the directory itself is not the command's.
    fn directory_entry(&mut self, level: Level<'_>, name: &[u8], below: Option<&LowerEntry>, made: bool) -> Result<()> {
        let upper = match AccessGuard::directory(level.upper, name, INSIDE) {
            Err(Errno::ACCESS) if self.is_for_apply() => {
                if !self.is_reported() {
                    self.report(ChangeKind::Modified, FileType::Directory, Vec::new(), Vec::new());
                }
                self.mark_unreadable();
                return Ok(());
            }
            other => self.at(other)?,
        };
        let lower = match below {
            Some(below) if is_directory(&below.stat) => self.at(level.lower.enter(name))?,
            _ => LowerDirectory::default(),
        };
        let hides_lower = !lower.is_absent() && (level.hides_lower || self.is_opaque(&upper));
        let before = self.listing.changes.len();
        self.directory(Level { upper: &upper, lower: &lower, depth: level.depth + 1, hides_lower, ..level })?;
        // What the command put into it, or beside what is mounted in it, needs it.
        if below.is_none() && made && self.listing.changes.len() > before {
            self.report(ChangeKind::Added, FileType::Directory, Vec::new(), Vec::new());
        }
        Ok(())
    }

    /// What is in a directory of both; nothing of what is new in the layer.
    fn merged_directory(&mut self, level: Level<'_>, name: &[u8]) -> Result<()> {
        let lower = self.at(level.lower.enter(name))?;
        if lower.is_absent() {
            return Ok(());
        }
        let upper = self.at(AccessGuard::directory(level.upper, name, INSIDE))?;
        let hides_lower = level.hides_lower || self.is_opaque(&upper);
        let plain = level.plain && self.leads_to_mount_point();
        self.directory(Level { upper: &upper, lower: &lower, depth: level.depth + 1, plain, hides_lower })
    }
}
