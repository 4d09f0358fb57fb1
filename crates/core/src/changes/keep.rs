//! A directory in which the changes of commands are kept.
//!
//! `layers/N/{upper,work}` are the writable layers, `changes.json` says what they are of. Whoever works with it holds a lock
//! on the directory.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FlockOperation, Gid, Mode, OFlags, Uid, chownat, flock, fstat, mkdir, mkdirat, openat, renameat,
    statat,
};
use rustix::io::Errno;

use super::Record;
use crate::error::{At, Code, Error, Result};
use crate::plan::Plan;
use crate::plan::idmap::{IdMap, UserNamespace};

/// The format of what is kept.
pub const FORMAT: u32 = 1;

const RECORD: &str = "changes.json";
const LAYERS: &str = "layers";
/// The largest record that is read.
const MOST: u64 = 16 << 20;

/// A directory of kept changes, locked.
#[derive(Debug)]
pub struct Kept {
    /// The directory itself; its lock is this descriptor's.
    pub directory: OwnedFd,
    /// Its path, as it was given.
    pub path: String,
}

fn is_there(directory: impl AsFd, name: &str) -> bool {
    statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

impl Kept {
    fn open(path: &str) -> Result<Kept> {
        let step = "open the directory of kept changes";
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| {
            let error = Error::os(step, path, errno);
            if matches!(errno, Errno::NOENT | Errno::NOTDIR) { error.code(Code::InvalidArgument) } else { error }
        })?;
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => Err(Error::new(Code::InUse, "use the kept changes", "another command uses them")
                .on(path)
                .hint("wait for that one, or choose another directory")),
            other => other.at(step, path).map(|()| Kept { directory, path: path.to_owned() }),
        }
    }

    /// Makes the directory if it is missing, and readies it for a container of this plan.
    ///
    /// # Errors
    /// It holds something else; another container uses it; it can't be made.
    pub fn prepare(path: &str, plan: &Plan) -> Result<Kept> {
        let step = "prepare the directory for changes";
        match mkdir(path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(Error::os(step, path, errno).code(Code::InvalidArgument)),
        }
        let kept = Kept::open(path)?;
        if !is_there(&kept.directory, LAYERS) {
            let mut entries = Dir::read_from(&kept.directory).at(step, path)?.filter_map(std::result::Result::ok);
            if entries.any(|entry| !matches!(entry.file_name().to_bytes(), b"." | b"..")) {
                return Err(Error::new(Code::InvalidArgument, "keep changes in", "it holds something else")
                    .on(path)
                    .hint("--upper wants a new or empty directory, or one that an earlier --upper made"));
            }
            mkdirat(&kept.directory, LAYERS, Mode::RWXU).at(step, path)?;
        }
        // What the container's root makes belongs to whom its ids are mapped to.
        let first = |maps: &[IdMap]| maps.iter().find(|map| map.inside == 0).or(maps.first()).map(|map| map.outside);
        if let UserNamespace::Private { uids, gids, .. } = &plan.user_namespace
            && let (Some(uid), Some(gid)) = (first(uids), first(gids))
            && rustix::process::geteuid().is_root()
        {
            for name in [".", LAYERS] {
                chownat(&kept.directory, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::empty())
                    .at(step, path)?;
            }
        }
        Ok(kept)
    }

    /// Opens a directory that a container has written to.
    ///
    /// # Errors
    /// It is none.
    pub fn find(path: &str) -> Result<(Kept, Record)> {
        let kept = Kept::open(path)?;
        let record = read(&kept.directory, path)?.ok_or_else(|| {
            Error::new(Code::InvalidArgument, "read the kept changes", "the directory holds none")
                .on(path)
                .hint("give a directory that nsrs run --upper has made")
        })?;
        Ok((kept, record))
    }

    /// Opens the directory of the layers.
    ///
    /// # Errors
    /// It is missing.
    pub fn layers(&self) -> Result<OwnedFd> {
        layers(&self.directory).at("open the kept changes", &self.path)
    }
}

/// The directory of the layers.
///
/// # Errors
/// Those of openat(2).
pub fn layers(directory: impl AsFd) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(directory, LAYERS, flags, Mode::empty())
}

/// The record in a directory of kept changes, if there is one yet.
///
/// # Errors
/// It can't be read, or is of another nsrs.
pub fn read(directory: impl AsFd, path: &str) -> Result<Option<Record>> {
    let step = "read the kept changes";
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match openat(directory, RECORD, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        other => File::from(other.at(step, path)?),
    };
    let mut text = String::new();
    std::io::Read::read_to_string(&mut std::io::Read::take(file, MOST), &mut text).at(step, path)?;
    let record: Record = serde_json::from_str(&text)
        .map_err(|error| Error::new(Code::InvalidArgument, step, error.to_string()).on(format!("{path}/{RECORD}")))?;
    if record.format != FORMAT {
        let why = format!("they are of format {}, this nsrs knows {FORMAT}", record.format);
        return Err(Error::new(Code::Unsupported, step, why).on(path));
    }
    Ok(Some(record))
}

/// Writes the record of a container that is about to run. What an earlier one noted stays noted.
///
/// # Errors
/// The earlier one had another tree; the disk refuses.
pub fn write(directory: impl AsFd, path: &str, record: &mut Record) -> Result<()> {
    let step = "note the kept changes";
    if let Some(earlier) = read(&directory, path)? {
        let places = |record: &Record| -> Vec<_> {
            let one = |layer: &super::Layer| (layer.path.clone(), layer.lowers.clone(), layer.user_xattrs, layer.plain);
            record.layers.iter().map(one).collect()
        };
        if places(&earlier) != places(record) {
            return Err(Error::new(Code::InvalidArgument, "go on with the kept changes", "they are of another tree")
                .on(path)
                .hint("run it from the same directory with the same root and mounts, or choose another directory"));
        }
        record.since = earlier.since;
        for (layer, earlier) in record.layers.iter_mut().zip(&earlier.layers) {
            layer.mode = earlier.mode;
        }
        record.mount_points.extend(earlier.mount_points);
        record.mount_points.sort();
        record.mount_points.dedup();
    }
    let text = serde_json::to_string(record).map_err(|error| Error::new(Code::SetupFailed, step, error.to_string()))?;
    let temporary = "changes.json.new";
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(&directory, temporary, flags, Mode::RUSR | Mode::WUSR).at(step, path)?);
    file.write_all(text.as_bytes()).at(step, path)?;
    file.sync_all().at(step, path)?;
    renameat(&directory, temporary, &directory, RECORD).at(step, path)
}

/// Are both descriptors of the same directory?
#[must_use]
pub fn same(a: impl AsFd, b: impl AsFd) -> bool {
    matches!((fstat(a), fstat(b)), (Ok(a), Ok(b)) if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}
