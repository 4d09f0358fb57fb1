//! In what a file of a layer differs from the one below, and what of it gives rights.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::fs::{FileType, Mode, OFlags, Stat, openat, readlinkat};
use rustix::io::Errno;

use super::lower::Found;
use super::open::Open;
use super::{Differs, Hazard, Known};
use nsrs_base::tree::{Xattr, xattrs, xattrs_of};

/// What of a file could give more rights than the command had.
pub(super) fn hazards(parent: &Open, name: &[u8], stat: &Stat) -> rustix::io::Result<Vec<Hazard>> {
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

/// All in which they differ but their times. What can't be read counts as the same if size and time agree.
///
/// # Errors
/// The file of the layer can't be read.
pub(super) fn differs(upper: &Open, name: &[u8], stat: &Stat, below: &Found) -> rustix::io::Result<Vec<Differs>> {
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
        (attributes(upper, name, stat)? != xattrs(&*below.parent, name)?, Differs::Xattrs),
    ];
    differs.extend(found.into_iter().filter(|(does, _)| *does).map(|(_, what)| what));
    Ok(differs)
}

/// The extended attributes of a name in the layer, also if its owner has closed it to himself: those of users can be read by
/// whom the content can. The real one isn't opened for that, which would change its time; what it has besides is unknown then,
/// and what the layer's has counts as new.
fn attributes(upper: &Open, name: &[u8], stat: &Stat) -> rustix::io::Result<Vec<Xattr>> {
    let closed = stat.st_mode & 0o400 == 0 && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    match closed.then(|| Open::file(upper, name)) {
        Some(Ok(file)) => xattrs_of(&file),
        _ => xattrs(upper, name),
    }
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
