//! The writable layers of containers on images: `containers/ID` in the store, removed when the container ends.
//!
//! The supervisor holds a lock on the directory. One that nobody holds was left by a supervisor that died, and is removed by
//! the next nsrs command. Its files belong to ids of the container: an ordinary user removes them in a user namespace, so
//! a child always does it, and nobody waits for it.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use rustix::fs::{FlockOperation, flock};
use rustix::process::Pid;

use super::content::layout::CONTAINERS;
use super::store_access::StoreAccess;
use nsrs_base::error::{At, Error, Result};
use nsrs_base::host::Host;
use nsrs_base::options::ROOTFS_TMPFS;
use nsrs_base::sys::child::spawn;
use nsrs_base::sys::fds::close_others;
use nsrs_base::sys::process::leave_caller;
use nsrs_base::tree::remove::remove;

/// The directory of one container, locked as long as this lives.
#[derive(Debug)]
pub struct WritableLayer {
    /// Path of the directory, below the store's `containers`.
    pub path: PathBuf,
    lock: File,
    /// The container's user namespace, if it has one of its own: it maps the owners of the files.
    user_namespace: Option<OwnedFd>,
}

impl WritableLayer {
    /// Creates the directory of a container.
    ///
    /// # Errors
    /// The disk is full, or refuses.
    pub fn create(store: &Path, id: &str) -> Result<WritableLayer> {
        let step = "create the writable layer";
        let folder = store.join(CONTAINERS);
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o700);
        let failed = |path: &Path, error: &std::io::Error| {
            let hint = match error.kind() {
                ErrorKind::ReadOnlyFilesystem | ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                    format!("{ROOTFS_TMPFS} keeps the changes of the container in memory")
                }
                _ => String::new(),
            };
            Error::os(step, path.display().to_string(), error).hint(hint)
        };
        // Another nsrs may take it for abandoned and remove it before it is locked: then it is created with another name.
        let mut name = id.to_owned();
        loop {
            let path = folder.join(&name);
            match builder.create(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => match builder.create(&folder) {
                    Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed(&folder, &error)),
                    _ => continue,
                },
                other => other.map_err(|error| failed(&path, &error))?,
            }
            name.push('+');
            let lock = match File::open(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                other => other.at(step, path.display())?,
            };
            let locked = flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
            let same = |meta: fs::Metadata| lock.metadata().is_ok_and(|own| own.ino() == meta.ino());
            if locked && fs::metadata(&path).is_ok_and(same) {
                return Ok(WritableLayer { path, lock, user_namespace: None });
            }
        }
    }

    /// Opens the user namespace of the container, in which the directory will be removed. Call it while the container's
    /// first process lives.
    ///
    /// # Errors
    /// The process is gone.
    pub fn hold_user_namespace(&mut self, pid: Pid) -> Result<()> {
        let path = format!("/proc/{}/ns/user", pid.as_raw_nonzero());
        self.user_namespace = Some(File::open(&path).at("hold the user namespace", path)?.into());
        Ok(())
    }
}

/// Has children remove the directories, and returns them: the caller reaps them. If none can be started, the next command
/// removes the directories.
pub fn remove_in_background(all: Vec<WritableLayer>) -> Vec<Pid> {
    // A process can't leave a user namespace: each of these takes a child of its own.
    let (own, shared): (Vec<WritableLayer>, Vec<WritableLayer>) =
        all.into_iter().partition(|changes| changes.user_namespace.is_some());
    let mut children = Vec::new();
    for changes in own {
        children.extend(in_child(&[changes.lock.as_fd()], changes.user_namespace.as_ref(), || {
            remove_all([&changes.path]);
        }));
    }
    if !shared.is_empty() {
        let locks: Vec<_> = shared.iter().map(|changes| changes.lock.as_fd()).collect();
        children.extend(in_child(&locks, None, || remove_all(shared.iter().map(|changes| &changes.path))));
    }
    children
}

fn remove_all<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) {
    for path in paths {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { continue };
        let Ok(folder) = File::open(folder) else { continue };
        if let Ok(name) = CString::new(name.as_bytes()) {
            // The next nsrs command finds what is left.
            let _ = remove(&folder, &name);
        }
    }
}

/// Runs something in a child, in this user namespace; of our descriptors it keeps the locks only.
fn in_child(locks: &[BorrowedFd<'_>], user_namespace: Option<&OwnedFd>, act: impl FnOnce()) -> Option<Pid> {
    let child = spawn(0, || {
        leave_caller();
        let kept: Vec<_> = locks.iter().copied().chain(user_namespace.map(AsFd::as_fd)).collect();
        let entered = user_namespace.map(|user| setns(user, CloneFlags::CLONE_NEWUSER));
        if close_others(&kept).is_ok() && entered.is_none_or(|entered| entered.is_ok()) {
            act();
        }
        0
    });
    child.ok().map(|child| child.pid)
}

/// Has a child remove the directories of supervisors that died; returns the child, if there is something to remove.
///
/// # Errors
/// The directories can't be listed.
pub fn remove_abandoned(store: &Path, host: &Host) -> Result<Option<Pid>> {
    let folder = store.join(CONTAINERS);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        // Not our store: HOME is another user's, as with setpriv(1).
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => return Ok(None),
        Err(error) => {
            return Err(Error::os("list the writable layers", folder.display().to_string(), &error));
        }
    };
    let mut abandoned: Vec<(PathBuf, File)> = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        let Ok(lock) = File::open(&path) else { continue };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            abandoned.push((path, lock));
        }
    }
    if abandoned.is_empty() {
        return Ok(None);
    }
    let (paths, locks): (Vec<PathBuf>, Vec<File>) = abandoned.into_iter().unzip();
    let held: Vec<_> = locks.iter().map(AsFd::as_fd).collect();
    Ok(in_child(&held, None, || {
        if StoreAccess::enter_as_root(host).is_ok() {
            remove_all(&paths);
        }
    }))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    #[ignore = "the child process of a test, which gives it a store that can only be read"]
    fn creates_a_directory_where_nothing_can_be_created() {
        let store = std::env::var_os("NSRS_TEST_READ_ONLY").unwrap();
        println!("{:?}", WritableLayer::create(Path::new(&store), "id").unwrap_err());
    }

    #[test]
    fn a_directory_is_created_while_others_remove_all_that_nobody_holds() {
        let store = std::env::temp_dir().join(format!("nsrs-collected-{}", std::process::id()));
        let folder = store.join(CONTAINERS);
        fs::create_dir_all(&folder).unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        let collect = || {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                for path in fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.path()) {
                    let Ok(lock) = File::open(&path) else { continue };
                    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
                        let _ = fs::remove_dir(&path);
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(collect);
            }
            let made = |number: i32| WritableLayer::create(&store, &number.to_string()).map(|made| made.path.is_dir());
            let failed: Vec<_> = (0..3000).map(made).filter(|made| !matches!(made, Ok(true))).collect();
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(failed.is_empty(), "{failed:?}");
        });
        fs::remove_dir_all(&store).unwrap();
    }

    #[test]
    fn where_no_directory_can_be_created_the_error_says_what_works() {
        let store = std::env::temp_dir().join(format!("nsrs-changes-{}", std::process::id()));
        fs::create_dir_all(&store).unwrap();
        let script = format!(
            "mount -t tmpfs -o ro tmpfs '{0}' && NSRS_TEST_READ_ONLY='{0}' exec '{1}' --ignored --exact writable_layer::tests::creates_a_directory_where_nothing_can_be_created --nocapture",
            store.display(),
            std::env::current_exe().unwrap().display()
        );
        let unshare: &[&str] = if rustix::process::geteuid().is_root() { &["-m"] } else { &["-Urm"] };
        let output = Command::new("unshare").args(unshare).args(["sh", "-c", &script]).output().unwrap();
        fs::remove_dir(&store).unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("rootfsTmpfs") && text.contains("30"), "{text}{output:?}");
    }
}
