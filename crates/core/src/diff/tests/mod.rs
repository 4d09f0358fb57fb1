mod attributes;
mod changes_directory;
mod conflict;
mod hard_links;
mod hostile;
mod interrupted;
mod list;
mod owners;

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nsrs_testing::{alone, skip};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::apply::{self, Apply, Consent};
use super::baseline::BaselineEntry;
use super::changes_directory::ChangesDirectory;
use super::text::{json, lines, warnings};
use super::walk::list_changes;
use super::*;
use nsrs_base::error::Code;
use nsrs_base::tree::remove::remove;

/// A layer over a directory, with a real overlay that shows both; skips the test without root.
pub(super) struct OverlayFixture(pub(super) PathBuf);

impl OverlayFixture {
    pub(super) fn new(name: &str) -> Option<OverlayFixture> {
        if !rustix::process::geteuid().is_root() {
            skip!("needs root");
        }
        let dir = std::env::temp_dir().join(format!("nsrs-changes-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        raise_descriptor_limit();
        for sub in ["lower", "merged", "layers/0/upper", "layers/0/work"] {
            fs::create_dir_all(dir.join(sub)).unwrap();
        }
        Some(OverlayFixture(dir))
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

    pub(super) fn record(&self) -> ChangesRecord {
        let lowers = vec![self.lower().display().to_string()];
        let layer =
            UpperLayer { path: "/".into(), lowers, user_xattrs: false, plain: false, is_image: false, mode: 0o755 };
        ChangesRecord { since: i64::MAX, layers: vec![layer], ..ChangesRecord::default() }
    }

    /// The record with what is below at this moment, which a command has seen.
    pub(super) fn noted(&self) -> ChangesRecord {
        let record = ChangesRecord { began: i64::MAX, ..self.record() };
        let baseline = walk::read_baseline(self.layers(), &record).unwrap();
        ChangesRecord { since: 0, baseline, ..self.record() }
    }

    pub(super) fn layers(&self) -> OwnedFd {
        rustix::fs::open(self.0.join("layers"), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
    }

    pub(super) fn list(&self) -> Vec<Change> {
        list_changes(self.layers(), &self.record()).unwrap().changes
    }

    pub(super) fn apply(&self, consent: Consent) -> Vec<nsrs_base::error::Error> {
        self.apply_record(&self.record(), consent)
    }

    pub(super) fn apply_record(&self, record: &ChangesRecord, consent: Consent) -> Vec<nsrs_base::error::Error> {
        let changes = apply::list(self.layers(), record).unwrap().changes;
        let mut apply = Apply::new(self.layers(), record).unwrap();
        apply.add_linked_files(&changes);
        apply.all(&changes, consent)
    }
}

impl Drop for OverlayFixture {
    fn drop(&mut self) {
        // However deep it is.
        let parent = rustix::fs::open(std::env::temp_dir(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let name = std::ffi::CString::new(self.0.file_name().unwrap().as_bytes()).unwrap();
        let _ = remove(&parent, &name);
    }
}

fn tree(fixture: &OverlayFixture) {
    let lower = fixture.lower();
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
    let Some(fixture) = OverlayFixture::new("apply") else { return };
    tree(&fixture);
    fixture.change(commands);
    assert_eq!(fixture.apply(Consent::default()), []);
    assert_eq!(lines(&fixture.list()), "", "nothing is left to apply");
    let lower = fixture.lower();
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
fn kept(fixture: &OverlayFixture) -> PathBuf {
    let dir = fixture.0.join("kept");
    fs::create_dir(&dir).unwrap();
    set_mode(&dir, 0o700);
    fs::create_dir(dir.join("layers")).unwrap();
    let draft = record_file::create_draft(fs::File::open(&dir).unwrap()).unwrap();
    record_file::write_draft(&draft, "kept", &ChangesRecord { format: record::FORMAT, ..fixture.record() }).unwrap();
    record_file::commit_draft(fs::File::open(&dir).unwrap(), "kept").unwrap();
    dir
}

/// Whom a part of a test is.
const USER: u32 = 65_533;

/// Gives everything to an ordinary user.
fn give_all(fixture: &OverlayFixture) {
    let owner = format!("{USER}:{USER}");
    assert!(std::process::Command::new("chown").arg("-R").arg(owner).arg(&fixture.0).status().unwrap().success());
}

/// Runs a part of a test that runs alone as an ordinary user: in a copy of its process, for all threads of one have the
/// same user.
fn as_user(act: impl FnOnce()) {
    let child = nsrs_base::sys::child::spawn(0, || {
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            nix::unistd::setgroups(&[]).unwrap();
            nix::unistd::setgid(USER.into()).unwrap();
            nix::unistd::setuid(USER.into()).unwrap();
            // Only then is its /proc the new user's.
            rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable).unwrap();
            act();
        }));
        i32::from(done.is_err())
    });
    let status = child.unwrap().wait(None);
    assert_eq!(status, Some(nsrs_base::sys::wait::Status::Exited(0)), "the part as a user has failed");
}
