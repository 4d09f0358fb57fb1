use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::apply::{Apply, Consent};
use super::*;

/// A layer over a directory, with a real overlay that shows both; needs root.
struct Ground(PathBuf);

impl Ground {
    fn new(name: &str) -> Option<Ground> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let dir = std::env::temp_dir().join(format!("nsrs-changes-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        for sub in ["lower", "merged", "layers/0/upper", "layers/0/work"] {
            fs::create_dir_all(dir.join(sub)).unwrap();
        }
        Some(Ground(dir))
    }

    fn lower(&self) -> PathBuf {
        self.0.join("lower")
    }

    fn upper(&self) -> PathBuf {
        self.0.join("layers/0/upper")
    }

    /// Acts on the merged tree.
    fn change(&self, act: impl FnOnce(&Path)) {
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
        unmount(&merged, UnmountFlags::empty()).unwrap();
    }

    fn record(&self) -> Record {
        let lowers = vec![self.lower().display().to_string()];
        let layer = Layer { path: "/".into(), lowers, user_xattrs: false, plain: false, is_image: false, mode: 0o755 };
        Record { since: i64::MAX, layers: vec![layer], ..Record::default() }
    }

    fn layers(&self) -> OwnedFd {
        rustix::fs::open(self.0.join("layers"), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
    }

    fn list(&self) -> Vec<Change> {
        walk(self.layers(), &self.record()).unwrap()
    }

    fn apply(&self, consent: Consent) -> Vec<crate::error::Error> {
        let record = self.record();
        Apply::new(self.layers(), &record).unwrap().all(&self.list(), consent)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
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
fn a_real_overlay_tells_what_was_done() {
    let Some(ground) = Ground::new("walk") else { return };
    tree(&ground);
    ground.change(commands);
    let expected = "C /a\nC /again/both\nD /again/old\nC /b\nD /gone\nA /kept/new\nA /kept/other\nC /link\nA /link/inside\nA /odd\\x0a\\xff\\x5c\n";
    assert_eq!(text(&ground.list()), expected);
    let differs: Vec<_> =
        ground.list().into_iter().map(|change| change.differs).filter(|all| !all.is_empty()).collect();
    assert_eq!(differs, [[Differs::Content], [Differs::Content], [Differs::Mode], [Differs::Type]]);
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

#[test]
fn a_mount_point_and_the_way_to_it_are_nobodys_change() {
    let Some(ground) = Ground::new("mounts") else { return };
    fs::create_dir_all(ground.upper().join("srv/data")).unwrap();
    fs::write(ground.upper().join("srv/own"), "").unwrap();
    let record = Record { mount_points: vec!["/".into(), "/srv/data".into()], ..ground.record() };
    assert_eq!(text(&walk(ground.layers(), &record).unwrap()), "A /srv/own\n");
}

#[test]
fn a_link_in_the_real_tree_is_not_followed() {
    let Some(ground) = Ground::new("links") else { return };
    let outside = ground.0.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::create_dir(ground.lower().join("dir")).unwrap();
    ground.change(|merged| fs::write(merged.join("dir/file"), "x").unwrap());
    let changes = ground.list();
    // Between the list and the act.
    fs::remove_dir(ground.lower().join("dir")).unwrap();
    symlink(&outside, ground.lower().join("dir")).unwrap();
    let record = ground.record();
    let errors = Apply::new(ground.layers(), &record).unwrap().all(&changes, Consent { force: true, privileged: true });
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn a_layer_with_links_for_directories_leads_nowhere() {
    let Some(ground) = Ground::new("hostile") else { return };
    fs::create_dir(ground.0.join("outside")).unwrap();
    fs::write(ground.0.join("outside/secret"), "x").unwrap();
    fs::create_dir(ground.lower().join("dir")).unwrap();
    ground.change(|merged| fs::write(merged.join("dir/secret"), "mine").unwrap());
    let changes = ground.list();
    fs::remove_dir_all(ground.upper().join("dir")).unwrap();
    symlink(ground.0.join("outside"), ground.upper().join("dir")).unwrap();
    let record = ground.record();
    let errors = Apply::new(ground.layers(), &record).unwrap().all(&changes, Consent::default());
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(!ground.lower().join("dir/secret").exists());
}

#[test]
fn only_overlayfs_itself_makes_a_directory_opaque() {
    let Some(ground) = Ground::new("opaque") else { return };
    tree(&ground);
    ground.change(|merged| fs::write(merged.join("kept/z"), "z").unwrap());
    let kept = rustix::fs::open(ground.upper().join("kept"), OFlags::RDONLY, Mode::empty()).unwrap();
    rustix::fs::fsetxattr(&kept, "user.overlay.opaque", b"y", rustix::fs::XattrFlags::empty()).unwrap();
    fs::remove_file(ground.upper().join("kept/z")).unwrap();
    assert_eq!(text(&ground.list()), "");
}

#[test]
fn what_gives_rights_and_what_has_changed_is_left_out() {
    let Some(ground) = Ground::new("consent") else { return };
    tree(&ground);
    ground.change(|merged| {
        fs::write(merged.join("suid"), "").unwrap();
        fs::set_permissions(merged.join("suid"), PermissionsExt::from_mode(0o4755)).unwrap();
        fs::write(merged.join("a"), "changed").unwrap();
        fs::remove_dir_all(merged.join("gone")).unwrap();
    });
    let record = Record { since: 0, ..ground.record() };
    let changes = ground.list();
    let errors = Apply::new(ground.layers(), &record).unwrap().all(&changes, Consent::default());
    assert_eq!(errors.len(), 3, "{errors:?}");
    assert_eq!(fs::read_to_string(ground.lower().join("a")).unwrap(), "a");
    assert!(ground.lower().join("gone/x/y").exists() && !ground.lower().join("suid").exists());
    let consent = Consent { force: true, privileged: true };
    assert_eq!(Apply::new(ground.layers(), &record).unwrap().all(&changes, consent), []);
    assert_eq!(text(&ground.list()), "");
}

#[test]
fn nothing_mounted_in_a_removed_directory_is_emptied() {
    let Some(ground) = Ground::new("border") else { return };
    tree(&ground);
    ground.change(|merged| fs::remove_dir_all(merged.join("gone")).unwrap());
    let changes = ground.list();
    fs::create_dir(ground.0.join("elsewhere")).unwrap();
    fs::write(ground.0.join("elsewhere/file"), "").unwrap();
    let point = ground.lower().join("gone/x");
    rustix::mount::mount_bind(ground.0.join("elsewhere"), &point).unwrap();
    let record = ground.record();
    let errors = Apply::new(ground.layers(), &record).unwrap().all(&changes, Consent { force: true, privileged: true });
    let survived = ground.0.join("elsewhere/file").exists();
    unmount(&point, UnmountFlags::DETACH).unwrap();
    assert!(survived && errors.len() == 1, "{errors:?}");
}
