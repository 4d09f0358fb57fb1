//! The record of a container that may outlive the command that made it.
//!
//! A container has a directory `ID` of mode 0700 with two files: `lock`, which its supervisor holds locked as long as it lives, and
//! `state.json`. Only who holds the lock writes. A write replaces the file whole (temporary name, fsync(2), rename(2)), so readers need
//! no lock and never see half a record.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, fcntl};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, fcntl_lock, open, openat, renameat, statat, unlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::process::{hold, started};
use super::{check_private, make_private};
use nsrs_base::error::{At, Code, Error, Result};
use nsrs_base::host::boot::boot_id;
use nsrs_base::tree::remove::remove;

const VERSION: u32 = 1;
/// The longest record, in bytes.
const LONGEST: u64 = 1 << 20;
/// The longest id, in bytes.
const LONGEST_ID: usize = 128;

const FILE: &str = "state.json";
const FILE_BESIDE: &str = "state.json.new";
const LOCK: &str = "lock";

/// What is kept about a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerRecord {
    /// Its name among the containers of this user.
    pub id: String,
    /// How far it is, as its supervisor last wrote it.
    pub state: ContainerState,
    /// When it was created, in milliseconds since 1970.
    pub created_ms: u64,
    /// The caller's notes: a bundle's path, the digest of a specification, labels.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// How far a container is. The names are those of the OCI runtime specification, and `paused`, which runc added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "camelCase")]
pub enum ContainerState {
    /// It is prepared, and its command not yet started.
    Created {
        /// The process that waits to execute the command.
        first: FirstProcess,
    },
    /// Its command has started and hasn't ended.
    Running {
        /// The process that the command, or its init, is.
        first: FirstProcess,
    },
    /// Its processes are frozen, and go on when they are thawed.
    Paused {
        /// The process that the command, or its init, is.
        first: FirstProcess,
    },
    /// Its first process has ended. So has that of any container of another boot.
    Stopped,
}

/// The first process of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FirstProcess {
    pid: i32,
    /// In ticks since boot, as in proc_pid_stat(5).
    started: u64,
}

impl FirstProcess {
    /// The process that has this number now, if there is one.
    #[must_use]
    pub fn of(pid: i32) -> Option<FirstProcess> {
        Some(FirstProcess { pid, started: started(pid)? })
    }

    /// A pidfd of it. `None` where it has ended and was reaped.
    #[must_use]
    pub fn hold(&self) -> Option<OwnedFd> {
        hold(self.pid, |started| started == self.started)
    }
}

/// The text of the file.
#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    boot: String,
    #[serde(flatten)]
    container: ContainerRecord,
}

/// What of the text is the same in every version.
#[derive(Deserialize)]
struct StoredVersion {
    version: u32,
}

/// The supervisor's right to write a container's record, held until this is dropped or the process ends.
#[derive(Debug)]
pub struct ContainerOwner {
    path: PathBuf,
    directory: OwnedFd,
    _lock: File,
}

/// A record as somebody else than its owner finds it.
#[derive(Debug, PartialEq, Eq)]
pub struct FoundContainer {
    /// The container as its owner last wrote it.
    pub record: ContainerRecord,
    /// Whether its supervisor lives, and holds the lock.
    pub is_owned: bool,
}

impl ContainerOwner {
    /// Makes the directory of a container, or takes over that of one whose supervisor is gone. `containers` is a private directory of
    /// the user's, see [`make_private`].
    ///
    /// # Errors
    /// An id that can't be one, a directory that isn't ours alone; `InUse`: its supervisor lives.
    pub fn claim(containers: &Path, id: &str) -> Result<ContainerOwner> {
        let step = "claim the container";
        check_id(id)?;
        let path = containers.join(id);
        loop {
            make_private(&path, rustix::process::geteuid().as_raw())?;
            let directory = open_directory(&path).at(step, path.display())?;
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let lock = match openat(&directory, LOCK, flags, Mode::from(0o600)) {
                Err(Errno::NOENT) => continue,
                other => other.at(step, path.display())?,
            };
            match fcntl_lock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::ACCESS | Errno::AGAIN) => {
                    let why = "its supervisor lives";
                    return Err(Error::new(Code::InUse, step, why).on(path.display().to_string()));
                }
                other => other.at(step, path.display())?,
            }
            // Its owner may have removed it before he let go of the lock.
            let is_there = |stat| rustix::fs::fstat(&lock).is_ok_and(|own| same(&own, &stat));
            if statat(rustix::fs::CWD, path.join(LOCK), AtFlags::SYMLINK_NOFOLLOW).is_ok_and(is_there) {
                return Ok(ContainerOwner { path, directory, _lock: lock.into() });
            }
        }
    }

    /// Replaces the record.
    ///
    /// # Errors
    /// The disk is full, or refuses.
    pub fn write(&self, record: &ContainerRecord) -> Result<()> {
        let step = "write the container record";
        let path = self.path.join(FILE);
        let stored = Stored { version: VERSION, boot: boot_id().into(), container: record.clone() };
        let text = serde_json::to_vec(&stored).expect("a record is plain data");
        match unlinkat(&self.directory, FILE_BESIDE, AtFlags::empty()) {
            Err(Errno::NOENT) => {}
            other => other.at(step, path.display())?,
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let beside = openat(&self.directory, FILE_BESIDE, flags, Mode::from(0o600)).at(step, path.display())?;
        let mut beside = File::from(beside);
        beside.write_all(&text).and_then(|()| beside.sync_all()).at(step, path.display())?;
        renameat(&self.directory, FILE_BESIDE, &self.directory, FILE).at(step, path.display())
    }

    /// Removes the container's directory with all that is in it.
    ///
    /// # Errors
    /// Those of unlinkat(2).
    pub fn remove(self) -> Result<()> {
        let step = "remove the container";
        let (Some(containers), Some(id)) = (self.path.parent(), self.path.file_name()) else { return Ok(()) };
        let id = CString::new(id.as_encoded_bytes()).at(step, self.path.display())?;
        let containers = File::open(containers).at(step, self.path.display())?;
        remove(&containers, &id).at(step, self.path.display())
    }
}

/// Reads a container's record; `None` where there is no such container, or its owner has not written yet.
///
/// Not for its owner: whoever closes the lock file lets go of its own lock (fcntl_locking(2)).
///
/// # Errors
/// An id that can't be one, a directory that isn't ours alone, a file that is not a record, or a record of a newer nsrs.
pub fn read(containers: &Path, id: &str) -> Result<Option<FoundContainer>> {
    let step = "read the container record";
    check_id(id)?;
    let path = containers.join(id);
    let directory = match open_directory(&path) {
        Err(Errno::NOENT) => return Ok(None),
        // A link, or a file: the check says it in words.
        Err(Errno::LOOP | Errno::NOTDIR) => None,
        other => Some(other.at(step, path.display())?),
    };
    check_private(&path, rustix::process::geteuid().as_raw())?;
    let Some(directory) = directory else { return Ok(None) };
    let path = path.join(FILE);
    let Some(mut record) = read_record(&directory, &path)? else { return Ok(None) };
    if record.boot != boot_id() {
        record.container.state = ContainerState::Stopped;
    }
    Ok(Some(FoundContainer { record: record.container, is_owned: is_owned(&directory).at(step, path.display())? }))
}

fn read_record(directory: &OwnedFd, path: &Path) -> Result<Option<Stored>> {
    let step = "read the container record";
    let refused = |code, why: String, hint: &str| Error::new(code, step, why).on(path.display().to_string()).hint(hint);
    // Whatever it is, it is not waited for.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(directory, FILE, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        other => File::from(other.at(step, path.display())?),
    };
    let no_record =
        |why: &str| refused(Code::SetupFailed, format!("not a container record: {why}"), "remove its directory");
    let meta = file.metadata().at(step, path.display())?;
    if !meta.is_file() {
        return Err(no_record("not a regular file"));
    }
    if meta.len() > LONGEST {
        return Err(no_record("longer than 1 MiB"));
    }
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text).at(step, path.display())?;
    let StoredVersion { version } = serde_json::from_slice(&text).map_err(|error| no_record(&error.to_string()))?;
    if version > VERSION {
        let why = format!("a newer nsrs wrote it (version {version})");
        return Err(refused(Code::Unsupported, why, "use that nsrs for this container"));
    }
    serde_json::from_slice(&text).map(Some).map_err(|error| no_record(&error.to_string()))
}

/// Whether another process holds the lock.
fn is_owned(directory: &OwnedFd) -> std::result::Result<bool, nix::errno::Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(lock) = openat(directory, LOCK, flags, Mode::empty()) else { return Ok(false) };
    let mut held =
        libc::flock { l_type: libc::F_WRLCK as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 };
    fcntl(&lock, FcntlArg::F_GETLK(&mut held))?;
    Ok(held.l_type != libc::F_UNLCK as i16)
}

fn open_directory(path: &Path) -> rustix::io::Result<OwnedFd> {
    open(path, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

fn same(one: &rustix::fs::Stat, other: &rustix::fs::Stat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

/// An id is the name of a directory: ASCII letters, digits, `_`, `-` and `.`, a letter or digit first.
fn check_id(id: &str) -> Result<()> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let why = match id.as_bytes() {
        [] => "an id is not empty",
        [first, ..] if !first.is_ascii_alphanumeric() => "an id begins with a letter or a digit",
        bytes if bytes.len() > LONGEST_ID => "an id is at most 128 bytes long",
        bytes if !bytes.iter().all(|byte| is_plain(*byte)) => "an id has only letters, digits, \"_\", \"-\" and \".\"",
        _ => return Ok(()),
    };
    Err(Error::invalid_value("container id", id, why))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::process::Command;

    use super::*;
    use crate::state::testing::Holder;

    /// A private directory for containers, removed with this.
    struct Containers(PathBuf);

    impl Containers {
        fn new(test: &str) -> Containers {
            let path = std::env::temp_dir().join(format!("nsrs-record-{test}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            make_private(&path, rustix::process::geteuid().as_raw()).unwrap();
            Containers(path)
        }

        /// The directory of a container without an owner, with this text for its record.
        fn with(&self, id: &str, text: &[u8]) -> PathBuf {
            let path = self.0.join(id);
            make_private(&path, rustix::process::geteuid().as_raw()).unwrap();
            fs::write(path.join(LOCK), "").unwrap();
            fs::write(path.join(FILE), text).unwrap();
            path
        }
    }

    impl Drop for Containers {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn record(id: &str, state: ContainerState) -> ContainerRecord {
        let annotations = [("bundle".to_owned(), "/b".to_owned())].into();
        ContainerRecord { id: id.into(), state, created_ms: 1_700_000_000_000, annotations }
    }

    fn running() -> ContainerState {
        ContainerState::Running { first: FirstProcess::of(std::process::id() as i32).unwrap() }
    }

    fn text(boot: &str, version: u32) -> Vec<u8> {
        serde_json::to_vec(&Stored { version, boot: boot.into(), container: record("one", running()) }).unwrap()
    }

    #[test]
    fn every_state_is_read_as_it_was_written_and_goes_with_its_owner() {
        let containers = Containers::new("states");
        let owner = ContainerOwner::claim(&containers.0, "one").unwrap();
        assert_eq!(read(&containers.0, "one").unwrap(), None, "nothing is written yet");
        let first = FirstProcess::of(std::process::id() as i32).unwrap();
        let states = [
            ContainerState::Created { first },
            ContainerState::Running { first },
            ContainerState::Paused { first },
            ContainerState::Stopped,
        ];
        for state in states {
            owner.write(&record("one", state.clone())).unwrap();
            assert_eq!(read(&containers.0, "one").unwrap().unwrap().record, record("one", state));
        }
        owner.remove().unwrap();
        assert_eq!(fs::read_dir(&containers.0).unwrap().count(), 0);
        assert_eq!(read(&containers.0, "one").unwrap(), None);
    }

    #[test]
    fn a_container_has_one_owner_at_a_time() {
        let containers = Containers::new("owners");
        let path = containers.with("one", &text(boot_id(), VERSION));
        let holder = Holder::of(&path.join(LOCK));
        assert!(read(&containers.0, "one").unwrap().unwrap().is_owned);
        let error = ContainerOwner::claim(&containers.0, "one").unwrap_err();
        assert_eq!((error.code, error.subject.as_str()), (Code::InUse, path.to_str().unwrap()), "{error}");
        drop(holder);
        let found = read(&containers.0, "one").unwrap().unwrap();
        assert_eq!(found, FoundContainer { record: record("one", running()), is_owned: false });
        // Whoever takes it over writes over what the dead one left.
        fs::write(path.join(FILE_BESIDE), "{\"ver").unwrap();
        let owner = ContainerOwner::claim(&containers.0, "one").unwrap();
        owner.write(&record("one", ContainerState::Stopped)).unwrap();
        assert_eq!(read(&containers.0, "one").unwrap().unwrap().record.state, ContainerState::Stopped);
    }

    #[test]
    fn a_reader_beside_a_writer_never_sees_half_a_record() {
        let containers = Containers::new("beside");
        let owner = ContainerOwner::claim(&containers.0, "one").unwrap();
        owner.write(&record("one", running())).unwrap();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                for _ in 0..300 {
                    let found = read(&containers.0, "one").unwrap().unwrap().record;
                    assert!(
                        found
                            .annotations
                            .values()
                            .all(|value| value.len() == found.annotations.len() * 100 || value == "/b")
                    );
                }
            });
            let mut record = record("one", running());
            for count in (1..8).cycle() {
                record.annotations = (0..count).map(|key| (key.to_string(), "x".repeat(count * 100))).collect();
                owner.write(&record).unwrap();
                if reader.is_finished() {
                    break;
                }
            }
        });
    }

    #[test]
    fn a_container_of_another_boot_is_stopped() {
        let containers = Containers::new("boot");
        containers.with("one", &text("1b4e28ba-2fa1-11d2-883f-0016d3cca427", VERSION));
        let found = read(&containers.0, "one").unwrap().unwrap();
        assert_eq!(found, FoundContainer { record: record("one", ContainerState::Stopped), is_owned: false });
    }

    #[test]
    fn a_record_of_a_newer_nsrs_is_an_error_whatever_else_it_says() {
        let containers = Containers::new("newer");
        for text in [text(boot_id(), VERSION + 1), b"{\"version\":7,\"state\":[]}".to_vec()] {
            let path = containers.with("one", &text).join(FILE);
            let error = read(&containers.0, "one").unwrap_err();
            assert_eq!((error.code, error.subject.as_str()), (Code::Unsupported, path.to_str().unwrap()), "{error}");
            assert!(error.reason.contains("newer nsrs") && !error.hint.is_empty(), "{error:?}");
        }
    }

    #[test]
    fn a_record_that_was_cut_short_is_an_error_that_names_it() {
        let containers = Containers::new("short");
        let whole = text(boot_id(), VERSION);
        for length in 0..whole.len() {
            let path = containers.with("one", &whole[..length]).join(FILE);
            let error = read(&containers.0, "one").unwrap_err();
            assert_eq!((error.code, error.subject.as_str()), (Code::SetupFailed, path.to_str().unwrap()), "{error}");
            assert!(error.reason.contains("not a container record"), "{error}");
        }
    }

    #[test]
    fn a_hostile_directory_leads_nowhere() {
        let containers = Containers::new("hostile");
        let victim = containers.0.join("victim");
        fs::write(&victim, "mine").unwrap();
        for id in ["", ".", "..", "../victim", "a/b", "/etc", ".hidden", "-x", "a\0b", "ä", "a b", &"a".repeat(129)] {
            assert_eq!(read(&containers.0, id).unwrap_err().code, Code::InvalidArgument, "{id:?}");
            assert_eq!(ContainerOwner::claim(&containers.0, id).unwrap_err().code, Code::InvalidArgument, "{id:?}");
        }
        // The directory is a link, a file, or open to others.
        let real = containers.with("real", &text(boot_id(), VERSION));
        symlink(&real, containers.0.join("link")).unwrap();
        fs::write(containers.0.join("file"), "").unwrap();
        fs::set_permissions(containers.with("open", b"{}"), fs::Permissions::from_mode(0o755)).unwrap();
        for (id, why) in [("link", "not a directory"), ("file", "not a directory"), ("open", "open to other users")] {
            for error in [read(&containers.0, id).unwrap_err(), ContainerOwner::claim(&containers.0, id).unwrap_err()] {
                assert!(error.reason.contains(why), "{id}: {error}");
            }
        }
        // What should be its files leads elsewhere.
        let path = containers.with("one", b"");
        for name in [FILE, LOCK] {
            fs::remove_file(path.join(name)).unwrap();
            symlink(&victim, path.join(name)).unwrap();
        }
        assert_eq!(read(&containers.0, "one").unwrap_err().errno, Some(libc::ELOOP));
        assert_eq!(ContainerOwner::claim(&containers.0, "one").unwrap_err().errno, Some(libc::ELOOP));
        fs::remove_file(path.join(LOCK)).unwrap();
        symlink(&victim, path.join(FILE_BESIDE)).unwrap();
        let owner = ContainerOwner::claim(&containers.0, "one").unwrap();
        owner.write(&record("one", ContainerState::Stopped)).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");
        assert_eq!(read(&containers.0, "one").unwrap().unwrap().record.state, ContainerState::Stopped);
        drop(owner);
        // A pipe is not waited for, and a file without end is not read to it.
        fs::remove_file(path.join(FILE)).unwrap();
        assert!(Command::new("mkfifo").arg(path.join(FILE)).status().unwrap().success());
        assert!(read(&containers.0, "one").unwrap_err().reason.contains("not a regular file"));
        fs::remove_file(path.join(FILE)).unwrap();
        File::create(path.join(FILE)).unwrap().set_len(LONGEST + 1).unwrap();
        assert!(read(&containers.0, "one").unwrap_err().reason.contains("longer than 1 MiB"));
    }

    #[test]
    fn the_first_process_is_known_by_its_start_too() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let first = FirstProcess::of(child.id() as i32).unwrap();
        assert!(first.hold().is_some());
        assert!(FirstProcess { started: first.started + 1, ..first }.hold().is_none(), "another of the same number");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(first.hold().is_none());
        assert_eq!(FirstProcess::of(child.id() as i32), None);
    }
}
