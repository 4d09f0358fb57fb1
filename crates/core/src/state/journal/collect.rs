//! Taking back what dead supervisors left, by their journals.
//!
//! | journal                             | what is done                                                                |
//! | ----------------------------------- | --------------------------------------------------------------------------- |
//! | its lock is held                    | nothing: its supervisor lives                                               |
//! | of this boot                        | everything open is taken back, processes first, the rest in reverse         |
//! | of another boot, or of an unknown one | directories are removed; all else went with that boot                     |
//! | cut short, or damaged in the middle | the whole records count                                                     |
//! | has a record of a newer nsrs        | an error that names the file; nothing of it is touched                      |
//!
//! A journal stays, to be tried again by the next command, as long as something in it could not be taken back, or is in a network
//! namespace that isn't the caller's.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::process::{Signal, pidfd_send_signal};

use super::format::{self, JournalContents, Newer};
use super::{COMPANION, JournalEntry, NetworkObject, Termination, cgroup, current_netns};
use crate::state::process::hold;
use nsrs_base::error::{At, Code, Error, Result};
use nsrs_base::host::boot::boot_id;
use nsrs_base::sys::poll::readable_within;
use nsrs_base::tree::remove::remove_if;

/// So long a process that is asked to end has, before it is killed.
const PATIENCE: Duration = Duration::from_millis(if cfg!(test) { 200 } else { 2000 });
/// The kernel counts start times in hundredths of a second (`USER_HZ`).
const TICK_NS: u64 = 10_000_000;
/// The longest time from the start of a process to the moment at which it is noted.
const NOTED_WITHIN_NS: u64 = 5_000_000_000;

/// Takes back what supervisors left that died without cleaning up, and returns how many processes it ended. Objects of this
/// network namespace are removed by `remove`.
///
/// # Errors
/// The directory can't be read, a journal is of a newer nsrs, or something can't be taken back: the first of these. The
/// rest is done all the same.
pub fn collect(state: &Path, remove: impl Fn(&NetworkObject) -> Result<()>) -> Result<usize> {
    let folder = state.join("supervisors");
    let directory = match fs::read_dir(&folder) {
        Ok(directory) => directory,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error).at("read the journals in", folder.display()),
    };
    let names: Vec<String> = directory.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let (mut ended, mut failure) = (0, None);
    for name in names.iter().filter(|name| !name.contains(COMPANION)) {
        let path = folder.join(name);
        let Some(mut file) = lock(&path) else { continue };
        let own = format!("{name}{COMPANION}");
        let taken_back = read(&mut file, &path).and_then(|contents| {
            for companion in names.iter().filter(|other| other.starts_with(&own)) {
                let _ = fs::remove_file(folder.join(companion));
            }
            let is_of_this_boot = contents.boot.as_deref() == Some(boot_id());
            if is_of_this_boot {
                ended += end_processes(contents.open.values());
            }
            take_back(&contents, is_of_this_boot, &remove)
        });
        match taken_back {
            Ok(Rest::Nothing) => _ = fs::remove_file(&path),
            Ok(Rest::Elsewhere) => {}
            Err(error) => _ = failure.get_or_insert(error),
        }
    }
    failure.map_or(Ok(ended), Err)
}

/// What is left of a journal.
enum Rest {
    Nothing,
    /// Something in another network namespace.
    Elsewhere,
}

/// Opens and locks the journal of a dead supervisor. `None` where the supervisor lives, or the journal was
/// rewritten or collected in the meantime.
fn lock(path: &Path) -> Option<File> {
    let file = File::options().read(true).write(true).open(path).ok()?;
    fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
    let (ours, named) = (file.metadata().ok()?, fs::symlink_metadata(path).ok()?);
    ((ours.dev(), ours.ino()) == (named.dev(), named.ino())).then_some(file)
}

fn read(file: &mut File, path: &Path) -> Result<JournalContents> {
    let step = "read the journal";
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).at(step, path.display())?;
    format::read(&bytes).map_err(|Newer { version, kind }| {
        let why = format!("a newer nsrs wrote it (record of version {version}, kind {kind})");
        Error::new(Code::Unsupported, step, why)
            .on(path.display().to_string())
            .hint("run any command of that nsrs, which takes back what its dead supervisor left; or remove the file")
    })
}

/// Ends those that still are the processes that were noted, and returns how many these are.
fn end_processes<'a>(entries: impl Iterator<Item = &'a JournalEntry>) -> usize {
    let mut asked = Vec::new();
    let mut count = 0;
    for entry in entries {
        let JournalEntry::Process { pid, noted_ns, termination } = entry else { continue };
        let Some(process) = find(*pid, *noted_ns) else { continue };
        count += 1;
        match termination {
            Termination::Kill => _ = pidfd_send_signal(&process, Signal::KILL),
            Termination::Ask => asked.push(process),
        }
    }
    end_by_asking(&asked);
    count
}

/// A process, if it still is the one that was noted and not another that got its number.
fn find(pid: i32, noted_ns: u64) -> Option<OwnedFd> {
    hold(pid, |ticks| {
        let started = ticks.saturating_mul(TICK_NS);
        // It was started before it was noted, and not long before.
        started <= noted_ns.saturating_add(TICK_NS) && noted_ns.saturating_sub(started) < NOTED_WITHIN_NS
    })
}

/// Ends processes as [`Termination::Ask`] says: those that don't end in time after the signal are killed.
fn end_by_asking(processes: &[OwnedFd]) {
    for process in processes {
        // One that was stopped could not act upon it.
        let _ = pidfd_send_signal(process, Signal::HUP).and_then(|()| pidfd_send_signal(process, Signal::CONT));
    }
    let until = Instant::now() + PATIENCE;
    for process in processes {
        if !readable_within(process, Some(until.saturating_duration_since(Instant::now()))) {
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
    }
}

/// Takes back everything but processes, the last made first.
fn take_back(
    contents: &JournalContents,
    is_of_this_boot: bool,
    remove: impl Fn(&NetworkObject) -> Result<()>,
) -> Result<Rest> {
    let (mut rest, mut failure) = (Rest::Nothing, None);
    for entry in contents.open.values().rev() {
        let done = match entry {
            JournalEntry::Directory { path, inode } => remove_directory(path, *inode),
            JournalEntry::Network { netns, object } if is_of_this_boot => match current_netns() {
                Ok(current) if current == *netns => remove(object),
                Ok(_) => {
                    rest = Rest::Elsewhere;
                    Ok(())
                }
                Err(error) => Err(error),
            },
            JournalEntry::Cgroup { path } if is_of_this_boot => cgroup::remove(path),
            JournalEntry::Process { .. } | JournalEntry::Network { .. } | JournalEntry::Cgroup { .. } => Ok(()),
        };
        if let Err(error) = done {
            failure.get_or_insert(error);
        }
    }
    failure.map_or(Ok(rest), Err)
}

/// Removes a directory with all that is in it, if it still is the one that was noted.
fn remove_directory(path: &Path, inode: u64) -> Result<()> {
    let is_noted = fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir() && meta.ino() == inode);
    let (true, Some(parent), Some(name)) = (is_noted, path.parent(), path.file_name()) else { return Ok(()) };
    let step = "remove the directory";
    let name = CString::new(name.as_bytes()).at(step, path.display())?;
    let parent = File::open(parent).at(step, path.display())?;
    match remove_if(&parent, &name, |stat| stat.st_ino == inode) {
        Err(rustix::io::Errno::STALE) => Ok(()),
        other => other.at(step, path.display()),
    }
}
