mod attributes;
mod ended;
mod hostile;
mod kept;
mod links;
mod list;
mod meanwhile;
mod owners;

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::apply::{self, Apply, Consent};
use super::keep::{self, Kept};
use super::*;
use nsrs_base::error::Code;
use nsrs_base::tree::remove::remove;

/// A layer over a directory, with a real overlay that shows both; needs root.
pub(super) struct Ground(pub(super) PathBuf);

impl Ground {
    pub(super) fn new(name: &str) -> Option<Ground> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let dir = std::env::temp_dir().join(format!("nsrs-changes-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        raise_limit();
        for sub in ["lower", "merged", "layers/0/upper", "layers/0/work"] {
            fs::create_dir_all(dir.join(sub)).unwrap();
        }
        Some(Ground(dir))
    }

    pub(super) fn lower(&self) -> PathBuf {
        self.0.join("lower")
    }

    pub(super) fn upper(&self) -> PathBuf {
        self.0.join("layers/0/upper")
    }

    /// Acts on the merged tree.
    pub(super) fn change(&self, act: impl FnOnce(&Path)) {
        let merged = self.0.join("merged");
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            self.lower().display(),
            self.upper().display(),
            self.0.join("layers/0/work").display()
        );
        let options = std::ffi::CString::new(options).unwrap();
        mount("overlay", &merged, "overlay", MountFlags::empty(), Some(options.as_c_str())).unwrap();
        act(&merged);
        // A process that another test is just making has copies of what was open there until its exec.
        while let Err(errno) = unmount(&merged, UnmountFlags::empty()) {
            assert_eq!(errno, rustix::io::Errno::BUSY);
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    pub(super) fn record(&self) -> Record {
        let lowers = vec![self.lower().display().to_string()];
        let layer = Layer { path: "/".into(), lowers, user_xattrs: false, plain: false, is_image: false, mode: 0o755 };
        Record { since: i64::MAX, layers: vec![layer], ..Record::default() }
    }

    /// The record with what is below at this moment, which a command has seen.
    pub(super) fn noted(&self) -> Record {
        let record = Record { began: i64::MAX, ..self.record() };
        let bases = walk::bases(self.layers(), &record).unwrap();
        Record { since: 0, bases, ..self.record() }
    }

    pub(super) fn layers(&self) -> OwnedFd {
        rustix::fs::open(self.0.join("layers"), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
    }

    pub(super) fn list(&self) -> Vec<Change> {
        walk(self.layers(), &self.record()).unwrap()
    }

    pub(super) fn apply(&self, consent: Consent) -> Vec<nsrs_base::error::Error> {
        self.apply_record(&self.record(), consent)
    }

    pub(super) fn apply_record(&self, record: &Record, consent: Consent) -> Vec<nsrs_base::error::Error> {
        let changes = apply::list(self.layers(), record).unwrap().changes;
        let mut apply = Apply::new(self.layers(), record).unwrap();
        apply.remember(&changes);
        apply.all(&changes, consent)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // However deep it is.
        let parent = rustix::fs::open(std::env::temp_dir(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let name = std::ffi::CString::new(self.0.file_name().unwrap().as_bytes()).unwrap();
        let _ = remove(&parent, &name);
    }
}

fn tree(ground: &Ground) {
    let lower = ground.lower();
    for dir in ["src/deep", "gone/x", "again", "kept"] {
        fs::create_dir_all(lower.join(dir)).unwrap();
    }
    for file in ["a", "b", "same", "src/deep/f", "gone/x/y", "again/old", "again/both", "kept/z"] {
        fs::write(lower.join(file), file).unwrap();
    }
    symlink("a", lower.join("link")).unwrap();
}

fn commands(merged: &Path) {
    fs::write(merged.join("a"), "longer than it was").unwrap();
    fs::set_permissions(merged.join("b"), PermissionsExt::from_mode(0o600)).unwrap();
    // Copied up and given back what it held.
    fs::write(merged.join("same"), "same").unwrap();
    fs::remove_dir_all(merged.join("gone")).unwrap();
    fs::remove_dir_all(merged.join("again")).unwrap();
    fs::create_dir(merged.join("again")).unwrap();
    fs::write(merged.join("again/both"), "other").unwrap();
    fs::write(merged.join("kept/new"), "").unwrap();
    fs::hard_link(merged.join("kept/new"), merged.join("kept/other")).unwrap();
    fs::remove_file(merged.join("link")).unwrap();
    fs::create_dir(merged.join("link")).unwrap();
    fs::write(merged.join("link/inside"), "").unwrap();
    fs::write(merged.join(std::ffi::OsStr::from_bytes(b"odd\n\xff\\")), "").unwrap();
}

#[test]
fn what_was_applied_is_what_the_command_saw() {
    let Some(ground) = Ground::new("apply") else { return };
    tree(&ground);
    ground.change(commands);
    assert_eq!(ground.apply(Consent::default()), []);
    assert_eq!(text(&ground.list()), "", "nothing is left to apply");
    let lower = ground.lower();
    assert_eq!(fs::read_to_string(lower.join("again/both")).unwrap(), "other");
    assert!(!lower.join("gone").exists() && lower.join("link").is_dir());
    let (new, other) = (fs::metadata(lower.join("kept/new")).unwrap(), fs::metadata(lower.join("kept/other")).unwrap());
    assert_eq!(std::os::unix::fs::MetadataExt::ino(&new), std::os::unix::fs::MetadataExt::ino(&other));
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn ino(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&fs::symlink_metadata(path).unwrap())
}

/// Nanoseconds since 1970, later than what was written and earlier than what will be.
fn now() -> i64 {
    let stamp = || {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
        now.tv_sec * 1_000_000_000 + now.tv_nsec
    };
    std::thread::sleep(std::time::Duration::from_millis(20));
    let now = stamp();
    std::thread::sleep(std::time::Duration::from_millis(20));
    now
}

/// A directory of kept changes of nothing.
fn kept(ground: &Ground) -> PathBuf {
    let dir = ground.0.join("kept");
    fs::create_dir(&dir).unwrap();
    set_mode(&dir, 0o700);
    fs::create_dir(dir.join("layers")).unwrap();
    let draft = keep::draft(fs::File::open(&dir).unwrap()).unwrap();
    keep::fill(&draft, "kept", &Record { format: keep::FORMAT, ..ground.record() }).unwrap();
    keep::settle(fs::File::open(&dir).unwrap(), "kept").unwrap();
    dir
}

/// Whom a part of a test is.
const USER: u32 = 65_533;

/// Gives everything to an ordinary user.
fn give_all(ground: &Ground) {
    let owner = format!("{USER}:{USER}");
    assert!(std::process::Command::new("chown").arg("-R").arg(owner).arg(&ground.0).status().unwrap().success());
}

/// Runs a part as an ordinary user: in a process of its own, for all threads of one have the same user.
fn as_user(act: impl FnOnce()) {
    use nsrs_base::sys::clone::{Side, clone3};
    match clone3(0).unwrap() {
        Side::Child => {
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                nix::unistd::setgroups(&[]).unwrap();
                nix::unistd::setgid(USER.into()).unwrap();
                nix::unistd::setuid(USER.into()).unwrap();
                // Only then is its /proc the new user's.
                rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable).unwrap();
                act();
            }));
            nsrs_base::sys::process::exit_now(i32::from(done.is_err()));
        }
        Side::Parent(pid, _) => {
            let status = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
            assert_eq!(status.unwrap().unwrap().1.exit_status(), Some(0), "the part as a user has failed");
        }
    }
}
