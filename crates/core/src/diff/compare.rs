//! How a file of a layer differs from the one below it, and which of its attributes give rights.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::fs::{FileType, Mode, OFlags, Stat, openat, readlinkat};
use rustix::io::Errno;

use super::access_guard::AccessGuard;
use super::file_stamp::write_time;
use super::lower_directory::LowerEntry;
use super::{Difference, Hazard};
use nsrs_base::tree::{Xattr, xattrs, xattrs_of};

/// What of a file could give its users more rights than the command had.
pub(super) fn hazards(parent: &AccessGuard, name: &[u8], stat: &Stat) -> rustix::io::Result<Vec<Hazard>> {
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

/// All differences but those of times. A file below that can't be read counts as the same if size and write time agree.
///
/// # Errors
/// The file of the layer can't be read.
pub(super) fn differences(
    upper: &AccessGuard,
    name: &[u8],
    stat: &Stat,
    below: &LowerEntry,
) -> rustix::io::Result<Vec<Difference>> {
    let (new, old) = (FileType::from_raw_mode(stat.st_mode), FileType::from_raw_mode(below.stat.st_mode));
    if new != old {
        return Ok(vec![Difference::Type]);
    }
    let mut differences = Vec::new();
    let content = match new {
        FileType::RegularFile => !same_content(upper, name, stat, below)?,
        FileType::Symlink => readlinkat(upper, name, Vec::new())? != readlinkat(&*below.parent, name, Vec::new())?,
        FileType::CharacterDevice | FileType::BlockDevice => stat.st_rdev != below.stat.st_rdev,
        _ => false,
    };
    let found = [
        (content, Difference::Content),
        (stat.st_mode & 0o7777 != below.stat.st_mode & 0o7777, Difference::Mode),
        ((stat.st_uid, stat.st_gid) != (below.stat.st_uid, below.stat.st_gid), Difference::Owner),
        (attributes(upper, name, stat)? != xattrs(&*below.parent, name)?, Difference::Xattrs),
    ];
    differences.extend(found.into_iter().filter(|(differs, _)| *differs).map(|(_, difference)| difference));
    Ok(differences)
}

/// The extended attributes of a name in the layer, also if its owner may not read it: attributes of users can be read by
/// who can read the content. The real file isn't opened for that, which would alter its change time; its attributes are
/// unknown then, and those of the layer's file count as new.
fn attributes(upper: &AccessGuard, name: &[u8], stat: &Stat) -> rustix::io::Result<Vec<Xattr>> {
    let unreadable = stat.st_mode & 0o400 == 0 && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    match unreadable.then(|| AccessGuard::file(upper, name)) {
        Some(Ok(file)) => xattrs_of(&file),
        _ => xattrs(upper, name),
    }
}

fn same_content(upper: &AccessGuard, name: &[u8], stat: &Stat, below: &LowerEntry) -> rustix::io::Result<bool> {
    if stat.st_size != below.stat.st_size {
        return Ok(false);
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let new = AccessGuard::file(upper, name)?.read()?;
    let old = match openat(&*below.parent, name, flags, Mode::empty()) {
        // Both an apply and the copy into the layer keep the write time.
        Err(Errno::ACCESS) => return Ok(write_time(stat) == write_time(&below.stat)),
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
