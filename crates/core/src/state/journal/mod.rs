//! The journal of a supervisor: what could outlive it, in a file that it holds locked.
//!
//! The kernel ends almost everything with the supervisor: containers by their death signal, mounts and interfaces with
//! their namespaces, leases and ports with their descriptors, the nftables table with its socket. What the kernel does not
//! bound is an [`JournalEntry`] here. The next nsrs command that finds the file unlocked takes it back, see [`collect`], and removes
//! the file.
//!
//! What several supervisors share, and what has a lock of its own, is not in it: a bridge and the host's settings for it
//! (net/bridge), and a container's writable layer on an image (`nsrs_store::writable_layer`).
//!
//! The file is guarded against the death of processes, not against that of the host: nothing is synced. Its bytes are
//! described in [`format`](self::format).

mod cgroup;
mod collect;
mod crc;
mod format;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::process::Pid;
use rustix::time::{ClockId, clock_gettime};

pub use self::collect::collect;
use nsrs_base::error::{At, Result};
use nsrs_base::host::boot::boot_id;

/// What stands between the name of a journal and that of a file that goes with it.
const COMPANION: char = '.';
/// A journal of this many bytes in which nothing is open is emptied.
const EMPTIED_AT: u64 = 4 << 10;
/// A journal of this many bytes, and of twice what it had when it was last rewritten, is rewritten.
const REWRITTEN_AT: u64 = 64 << 10;

/// The journal of this supervisor.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Size of the file in bytes.
    size: u64,
    rewritten_at: u64,
    open: BTreeMap<u32, JournalEntry>,
    next: u32,
}

/// Something that could outlive its supervisor.
///
/// It is noted before it is made, under a name that nothing gets a second time: such a name has that of the journal in it,
/// or a random number. Two kinds are known by a number of the kernel's, which they have only when they exist: a process is
/// noted while it can do nothing yet, and a directory while nothing is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalEntry {
    /// A process that its supervisor made.
    Process {
        /// Its process id, in the PID namespace of its supervisor.
        pid: i32,
        /// A moment after its start, by at most five seconds, in nanoseconds since boot. Its start itself would have to be
        /// read from /proc.
        noted_ns: u64,
        /// How it is ended if it outlives its supervisor.
        termination: Termination,
    },
    /// An object of a network namespace.
    Network {
        /// The inode of the namespace, see [`current_netns`].
        netns: u64,
        /// Its kind, and its name in that namespace.
        object: NetworkObject,
    },
    /// A cgroup. It is removed with what runs in it.
    Cgroup {
        /// Its directory below the mounted cgroup file system.
        path: PathBuf,
    },
    /// A directory. It is removed with all that is in it.
    Directory {
        /// Its path, absolute.
        path: PathBuf,
        /// Its inode number. Not its device, which may have another number after a reboot.
        inode: u64,
    },
}

/// An object of a network namespace that the kernel doesn't remove by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkObject {
    /// An interface, by its name.
    Link(String),
    /// An nftables table of the family inet, by its name.
    Table(String),
}

/// How a process is ended that outlived its supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Termination {
    /// It is killed (`SIGKILL`).
    Kill,
    /// It is the init of a container in a shared PID namespace, and ends its descendants when it notices the supervisor's
    /// end: killed while it does so, it would leave them behind. It is signalled once more and waited for.
    Ask,
}

/// The number of an entry in the journal.
#[derive(Debug)]
pub struct EntryId(u32);

impl JournalEntry {
    /// A process that was just made.
    #[must_use]
    pub fn process(pid: Pid, termination: Termination) -> JournalEntry {
        JournalEntry::Process { pid: pid.as_raw_nonzero().get(), noted_ns: now(), termination }
    }

    /// A directory that was just made.
    ///
    /// # Errors
    /// Those of lstat(2).
    pub fn directory(path: &Path) -> Result<JournalEntry> {
        let inode = fs::symlink_metadata(path).at("look at the directory", path.display())?.ino();
        Ok(JournalEntry::Directory { path: path.to_owned(), inode })
    }
}

/// The inode of this thread's network namespace.
///
/// # Errors
/// /proc is not there.
pub fn current_netns() -> Result<u64> {
    let path = "/proc/thread-self/ns/net";
    fs::metadata(path).map(|meta| meta.ino()).at("look at the network namespace", path)
}

/// Now, in nanoseconds since boot (`CLOCK_BOOTTIME`).
fn now() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Makes a file and locks it. A lock of fcntl(2) is the process's own: that of flock(2) lives on in the copies that processes
/// have which are just being made.
fn create_locked(path: &Path, step: &str) -> Result<File> {
    let file = OpenOptions::new().read(true).append(true).create_new(true).open(path).at(step, path.display())?;
    fcntl_lock(&file, FlockOperation::LockExclusive).at(step, path.display())?;
    Ok(file)
}

impl Journal {
    /// Opens a journal of its own in the state directory.
    ///
    /// # Errors
    /// The file can't be made or locked.
    pub fn open(state: &Path) -> Result<Journal> {
        let directory = state.join("supervisors");
        super::make_private(&directory, rustix::process::geteuid().as_raw())?;
        loop {
            let path = directory.join(format!("{}-{:x}", std::process::id(), now()));
            let file = create_locked(&path, "open the journal")?;
            // Another nsrs that collects may have found it before it was locked.
            if path.exists() {
                return Ok(Journal { path, file, size: 0, rewritten_at: REWRITTEN_AT, open: BTreeMap::new(), next: 0 });
            }
        }
    }

    /// A name that no other supervisor of this boot has.
    #[must_use]
    pub fn name(&self) -> String {
        self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// The path of a file that is collected with this journal.
    #[must_use]
    pub fn companion(&self, name: &str) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(format!("{COMPANION}{name}"));
        path.into()
    }

    /// Writes an entry.
    ///
    /// # Errors
    /// The disk is full.
    pub fn note(&mut self, entry: JournalEntry) -> Result<EntryId> {
        let number = self.next;
        self.append(&format::entry(number, &entry))?;
        self.next += 1;
        self.open.insert(number, entry);
        Ok(EntryId(number))
    }

    /// Strikes out an entry whose thing is gone.
    pub fn strike(&mut self, EntryId(number): EntryId) {
        self.open.remove(&number);
        // An entry that stays open names something that is gone.
        let _ = self.append(&format::end(number));
        if self.open.is_empty() && self.size >= EMPTIED_AT {
            if self.file.set_len(0).is_ok() {
                self.size = 0;
            }
        } else if self.size >= self.rewritten_at {
            // It goes on with the old file where there is no room for a new one.
            let _ = self.rewrite();
            self.rewritten_at = REWRITTEN_AT.max(2 * self.size);
        }
    }

    /// Appends a record, and before the first one the record of the boot, in one write(2).
    fn append(&mut self, record: &[u8]) -> Result<()> {
        let first;
        let bytes = if self.size == 0 {
            first = [&format::boot(boot_id()), record].concat();
            &first
        } else {
            record
        };
        let written = self.file.write_all(bytes);
        if written.is_err() {
            // Not half a record. Where that fails, readers skip it.
            let _ = self.file.set_len(self.size);
        } else {
            self.size += bytes.len() as u64;
        }
        written.at("write the journal", self.path.display())
    }

    /// Puts a file in this one's place that has only what is open. It is locked before it is there, and whoever collects and
    /// waited for the old one's lock sees that the name is another file's.
    fn rewrite(&mut self) -> Result<()> {
        let step = "rewrite the journal";
        let beside = self.companion("new");
        let _ = fs::remove_file(&beside);
        let mut bytes = format::boot(boot_id());
        self.open.iter().for_each(|(number, entry)| bytes.extend(format::entry(*number, entry)));
        let mut file = create_locked(&beside, step)?;
        let put = file.write_all(&bytes).and_then(|()| fs::rename(&beside, &self.path));
        if put.is_err() {
            let _ = fs::remove_file(&beside);
        } else {
            (self.file, self.size) = (file, bytes.len() as u64);
        }
        put.at(step, beside.display())
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // A child that failed before its exec has a copy of this value, but not of the right to remove the file: only
        // the process that is named in it does.
        if self
            .path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(&format!("{}-", std::process::id())))
        {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests;
