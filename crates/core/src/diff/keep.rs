//! A directory in which the changes of commands are kept.
//!
//! `layers/N/{upper,work}` are the writable layers, `changes.json` says what they are of. Whoever works with it holds a lock
//! on the directory.

use std::collections::{HashMap, HashSet};
use std::ffi::CStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, Dir, FileType, FlockOperation, Gid, Mode, OFlags, Uid, chownat, flock, fstat, mkdir, mkdirat, openat,
    renameat, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::{WaitOptions, geteuid, waitpid};

use super::apply::Brought;
use super::{Base, Known, Record, escaped};
use crate::plan::Plan;
use crate::plan::mount::{Mount, Source};
use nsrs_base::error::{At, Code, Error, Result};
use nsrs_base::host::Host;
use nsrs_base::ids::maps::{IdMap, UserNamespace};
use nsrs_base::sys::clone::{Side, clone3};
use nsrs_base::sys::process::exit_now;
use nsrs_base::tree::remove::remove;
use nsrs_store::identity;

/// The format of what is kept.
pub const FORMAT: u32 = 2;

const RECORD: &str = "changes.json";
/// The next record, as it is written.
const DRAFT: &str = "changes.json.new";
const LAYERS: &str = "layers";
/// Layers that are being removed.
const GONE: &str = "layers.gone";
const GONE_C: &CStr = c"layers.gone";
/// The largest record that is read.
const MOST: u64 = 64 << 20;

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
        owned(&directory, path)?;
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
    /// It holds something else; another container uses it; this one could write to it; it can't be made.
    pub fn prepare(path: &str, plan: &Plan) -> Result<Kept> {
        let step = "prepare the directory for changes";
        keep_apart(path, &plan.mounts)?;
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
        // What the container's root makes belongs to whom its ids are mapped to. The directory itself, and the record of what
        // the layers are over, stay out of its reach.
        let first = |maps: &[IdMap]| maps.iter().find(|map| map.inside == 0).or(maps.first()).map(|map| map.outside);
        if let UserNamespace::Private { uids, gids, .. } = &plan.user_namespace
            && let (Some(uid), Some(gid)) = (first(uids), first(gids))
            && geteuid().is_root()
        {
            chownat(
                &kept.directory,
                LAYERS,
                Some(Uid::from_raw(uid)),
                Some(Gid::from_raw(gid)),
                AtFlags::SYMLINK_NOFOLLOW,
            )
            .at(step, path)?;
        }
        Ok(kept)
    }

    /// Opens a directory that a container has written to.
    ///
    /// # Errors
    /// It is none.
    pub fn find(path: &str) -> Result<(Kept, Record)> {
        let kept = Kept::open(path)?;
        let record = read(&kept.directory, path)?.ok_or_else(|| match is_there(&kept.directory, GONE) {
            true => none(path).because("the changes are gone, but for a rest").hint("nsrs apply --discard removes it"),
            false => none(path),
        })?;
        Ok((kept, record))
    }

    /// Opens a directory in which nsrs keeps or kept something, whatever of it is left.
    ///
    /// # Errors
    /// It is none.
    pub fn find_any(path: &str) -> Result<Kept> {
        let kept = Kept::open(path)?;
        if [RECORD, LAYERS, GONE].iter().any(|name| is_there(&kept.directory, name)) {
            Ok(kept)
        } else {
            Err(none(path))
        }
    }

    /// Removes what nsrs has made in it, and the directory if it holds nothing else; returns the names of what else there is.
    ///
    /// # Errors
    /// Something can't be removed.
    pub fn discard(&self) -> Result<Vec<String>> {
        let step = "remove the kept changes";
        // A part of a layer would tell of deletions that never were: first it becomes none.
        match renameat(&self.directory, LAYERS, &self.directory, GONE) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(Error::os(step, &self.path, errno)),
        }
        for name in [RECORD, DRAFT] {
            match unlinkat(&self.directory, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(Error::os(step, format!("{}/{name}", self.path), errno)),
            }
        }
        self.remove_layers(step)?;
        let mut others = Vec::new();
        for entry in Dir::read_from(&self.directory).at(step, &self.path)? {
            let entry = entry.at(step, &self.path)?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                others.push(escaped(entry.file_name().to_bytes()));
            }
        }
        if others.is_empty() {
            self.remove_itself()?;
        }
        others.sort();
        Ok(others)
    }

    /// Some of what is in the layers may be other users' of the container: an ordinary user removes that as it was made, in
    /// a user namespace.
    fn remove_layers(&self, step: &str) -> Result<()> {
        let remove = || remove(&self.directory, GONE_C).at(step, format!("{}/{GONE}", self.path));
        match remove() {
            Err(error) if matches!(error.errno, Some(libc::EACCES | libc::EPERM)) && !geteuid().is_root() => {}
            other => return other,
        }
        let host = Host::probe();
        match clone3(0).at(step, "")? {
            Side::Child => {
                let done = identity::enter(&host).is_ok() && remove().is_ok();
                exit_now(i32::from(!done));
            }
            Side::Parent(pid, _) => {
                let _ = waitpid(Some(pid), WaitOptions::empty());
            }
        }
        // Nothing is left, or this tells why.
        remove().map_err(|error| error.hint("what is in it belongs to other users: root can remove it"))
    }

    /// Removes the directory, which is empty, if its path still leads to it.
    fn remove_itself(&self) -> Result<()> {
        let step = "remove the kept changes";
        let path = std::fs::canonicalize(&self.path).at(step, &self.path)?;
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = rustix::fs::open(parent, flags, Mode::empty()).at(step, &self.path)?;
        let found = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).at(step, &self.path)?;
        let own = fstat(&self.directory).at(step, &self.path)?;
        if (found.st_dev, found.st_ino) != (own.st_dev, own.st_ino) {
            return Err(Error::new(Code::InUse, step, "the directory was exchanged meanwhile").on(&self.path));
        }
        unlinkat(&parent, name, AtFlags::REMOVEDIR).at(step, &self.path)
    }

    /// Opens the directory of the layers.
    ///
    /// # Errors
    /// It is missing.
    pub fn layers(&self) -> Result<OwnedFd> {
        layers(&self.directory, OFlags::RDONLY).at("open the kept changes", &self.path)
    }
}

fn none(path: &str) -> Error {
    Error::new(Code::InvalidArgument, "read the kept changes", "the directory holds none")
        .on(path)
        .hint("give a directory that nsrs run --upper has made")
}

/// Refuses a mount by which the container could write to where its changes are kept: it could say of what tree they are.
fn keep_apart(path: &str, mounts: &[Mount]) -> Result<()> {
    let real = |path: &Path| match (path.canonicalize(), path.parent().map(Path::canonicalize), path.file_name()) {
        (Ok(real), ..) => real,
        // It will be made.
        (Err(_), Some(Ok(parent)), Some(name)) => parent.join(name),
        _ => path.to_owned(),
    };
    let directory = real(Path::new(path));
    for mount in mounts.iter().filter(|mount| !mount.attributes.read_only) {
        let Source::Bind { path: source, .. } = &mount.source else { continue };
        let source = real(Path::new(source));
        if directory.starts_with(&source) || source.starts_with(&directory) {
            return Err(Error::new(
                Code::InvalidArgument,
                "keep changes in",
                "the container could write to it by a mount",
            )
            .on(format!("{path} with {}", mount.option))
            .hint("choose a directory outside of the mount, or mount read-only"));
        }
    }
    Ok(())
}

/// The directory of the layers, opened for this.
///
/// # Errors
/// Those of openat(2).
pub fn layers(directory: impl AsFd, how: OFlags) -> rustix::io::Result<OwnedFd> {
    let flags = how | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
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
    owned(&file, &format!("{path}/{RECORD}"))?;
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

/// Opens the next record, which counts from [`settle`] on.
///
/// # Errors
/// Those of openat(2).
pub fn draft(directory: impl AsFd) -> rustix::io::Result<File> {
    match unlinkat(&directory, DRAFT, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(&directory, DRAFT, flags, Mode::RUSR | Mode::WUSR).map(File::from)
}

/// Writes a record into a draft, to the disk.
///
/// # Errors
/// The disk refuses, or it is larger than what would be read again.
pub fn fill(mut draft: &File, path: &str, record: &Record) -> Result<()> {
    let step = "note the kept changes";
    let text = serde_json::to_string(record).map_err(|error| Error::new(Code::SetupFailed, step, error.to_string()))?;
    if text.len() as u64 > MOST {
        return Err(Error::new(Code::Unsupported, step, "there are too many mounts and directories to note").on(path));
    }
    draft.write_all(text.as_bytes()).at(step, path)?;
    draft.sync_all().at(step, path)
}

/// Puts the draft in the record's place.
///
/// # Errors
/// Those of renameat(2).
pub fn settle(directory: impl AsFd, path: &str) -> Result<()> {
    renameat(&directory, DRAFT, &directory, RECORD).at("note the kept changes", path)
}

/// Adds what was below at the end of a container. What an earlier one noted stays noted.
///
/// # Errors
/// The record can't be read or written.
pub fn note_bases(kept: &Kept, bases: Vec<Base>) -> Result<()> {
    let Some(mut record) = read(&kept.directory, &kept.path)? else { return Ok(()) };
    let known: HashSet<_> = record.bases.iter().map(|base| (base.layer, base.inner.clone())).collect();
    let new: Vec<Base> = bases.into_iter().filter(|base| !known.contains(&(base.layer, base.inner.clone()))).collect();
    if new.is_empty() {
        return Ok(());
    }
    record.bases.extend(new);
    rewrite(kept, &record)
}

/// Takes away what was below of what an apply has brought: that is no more.
///
/// # Errors
/// The record can't be read or written.
pub fn forget_bases(kept: &Kept, brought: &[Brought]) -> Result<()> {
    let Some(mut record) = read(&kept.directory, &kept.path)? else { return Ok(()) };
    let gone: HashMap<(usize, String), bool> =
        brought.iter().map(|brought| ((brought.layer, escaped(&brought.inner)), brought.whole)).collect();
    let is_gone = |base: &Base| {
        let at = |end: usize| gone.get(&(base.layer, base.inner[..end].to_owned())).copied();
        at(base.inner.len()).is_some() || base.inner.match_indices('/').any(|(end, _)| at(end) == Some(true))
    };
    let before = record.bases.len();
    record.bases.retain(|base| !is_gone(base));
    if record.bases.len() == before { Ok(()) } else { rewrite(kept, &record) }
}

/// Adds files that an apply is about to give other names, or to take names from.
///
/// # Errors
/// The record can't be written.
pub fn note_known(kept: &Kept, record: &Record, new: Vec<Known>) -> Result<()> {
    if new.is_empty() {
        return Ok(());
    }
    let mut record = record.clone();
    record.known.extend(new);
    rewrite(kept, &record)
}

fn rewrite(kept: &Kept, record: &Record) -> Result<()> {
    let draft = draft(&kept.directory).at("note the kept changes", &kept.path)?;
    fill(&draft, &kept.path, record)?;
    settle(&kept.directory, &kept.path)
}

/// Makes the record of a container that is about to run one that goes on with an earlier one's.
///
/// # Errors
/// The earlier one had another tree.
pub fn go_on(record: &mut Record, earlier: Record, path: &str) -> Result<()> {
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
    record.made.extend(earlier.made);
    record.made.sort();
    record.made.dedup();
    record.bases = earlier.bases;
    record.known = earlier.known;
    Ok(())
}

/// Refuses what somebody else could have written: it says which directories changes are brought into.
fn owned(file: impl AsFd, subject: &str) -> Result<()> {
    let stat = fstat(file).at("look at the kept changes", subject)?;
    let caller = geteuid();
    let refuse = |why: &str, hint: String| {
        Err(Error::new(Code::InvalidArgument, "use the kept changes", why).on(subject).hint(hint))
    };
    if stat.st_uid != caller.as_raw() && stat.st_uid != 0 {
        let why = format!("it belongs to the user {}, who could say that they are of any directory", stat.st_uid);
        let hint = format!("after a look at changes.json in it: chown {} it, and that file", caller.as_raw());
        return refuse(&why, hint);
    }
    if stat.st_mode & 0o022 != 0 {
        return refuse("others may write to it", format!("chmod go-w {subject}"));
    }
    if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_nlink > 1 {
        return refuse("it has other names, by which it could be written", "choose another directory".into());
    }
    Ok(())
}

/// Are both descriptors of the same directory?
#[must_use]
pub fn same(a: impl AsFd, b: impl AsFd) -> bool {
    matches!((fstat(a), fstat(b)), (Ok(a), Ok(b)) if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}
