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
use crate::error::Code;
use crate::image::tree::remove::remove;

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
        unmount(&merged, UnmountFlags::empty()).unwrap();
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

    pub(super) fn apply(&self, consent: Consent) -> Vec<crate::error::Error> {
        self.apply_record(&self.record(), consent)
    }

    pub(super) fn apply_record(&self, record: &Record, consent: Consent) -> Vec<crate::error::Error> {
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
fn a_mount_point_and_the_way_to_it_are_nobodys_change_but_with_what_is_put_there() {
    let Some(ground) = Ground::new("mounts") else { return };
    fs::create_dir_all(ground.upper().join("srv/data")).unwrap();
    fs::create_dir_all(ground.upper().join("opt/tool")).unwrap();
    fs::write(ground.upper().join("opt/file"), "").unwrap();
    let points = ["/", "/srv/data", "/opt/tool", "/opt/file"];
    let record = Record { mount_points: points.map(str::to_owned).to_vec(), ..ground.record() };
    let listed = || text(&walk(ground.layers(), &record).unwrap());
    assert_eq!(listed(), "");
    fs::write(ground.upper().join("srv/own"), "").unwrap();
    assert_eq!(listed(), "A /srv\nA /srv/own\n");
    // By another command, for which nothing was mounted there.
    fs::write(ground.upper().join("srv/data/kept"), "").unwrap();
    fs::write(ground.upper().join("opt/file"), "written").unwrap();
    assert_eq!(listed(), "A /opt\nA /opt/file\nA /srv\nA /srv/data\nA /srv/data/kept\nA /srv/own\n");
    assert_eq!(ground.apply_record(&record, Consent::default()), []);
    assert!(ground.lower().join("srv/data/kept").exists() && !ground.lower().join("opt/tool").exists());
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

#[test]
fn a_directory_that_is_mounted_over_keeps_its_mode() {
    let Some(ground) = Ground::new("mounted-over") else { return };
    tree(&ground);
    ground.change(|merged| fs::set_permissions(merged.join("kept"), PermissionsExt::from_mode(0o700)).unwrap());
    let changes = ground.list();
    let elsewhere = ground.0.join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::set_permissions(&elsewhere, PermissionsExt::from_mode(0o755)).unwrap();
    mount("tmpfs", ground.lower().join("kept"), "tmpfs", MountFlags::empty(), Some(c"mode=755")).unwrap();
    let record = ground.record();
    let errors = Apply::new(ground.layers(), &record).unwrap().all(&changes, Consent { force: true, privileged: true });
    let mode = fs::metadata(ground.lower().join("kept")).unwrap().permissions().mode() & 0o777;
    unmount(ground.lower().join("kept"), UnmountFlags::DETACH).unwrap();
    assert_eq!((mode, errors.len()), (0o755, 1), "{errors:?}");
}

#[test]
fn what_was_removed_meanwhile_is_told_and_needs_force() {
    let Some(ground) = Ground::new("removed") else { return };
    tree(&ground);
    fs::create_dir(ground.lower().join("sub")).unwrap();
    fs::write(ground.lower().join("sub/x"), "x").unwrap();
    ground.change(|merged| {
        fs::write(merged.join("kept/z"), "changed").unwrap();
        fs::write(merged.join("sub/x"), "changed").unwrap();
        fs::write(merged.join("sub/new"), "new").unwrap();
    });
    let record = ground.noted();
    fs::remove_dir_all(ground.lower().join("sub")).unwrap();
    fs::remove_file(ground.lower().join("kept/z")).unwrap();
    let listed = text(&apply::list(ground.layers(), &record).unwrap().changes);
    assert_eq!(listed, "C /kept/z\nC /sub\nA /sub/new\nC /sub/x\n");
    let errors = ground.apply_record(&record, Consent::default());
    assert_eq!(errors.len(), 4, "{errors:?}");
    assert!(errors[0].to_string().contains("was removed since the command ran"), "{errors:?}");
    assert!(errors[2].to_string().contains("the directory that it was in is gone"), "{errors:?}");
    assert!(!ground.lower().join("sub").exists());
    assert_eq!(ground.apply_record(&record, Consent { force: true, privileged: false }), []);
    assert_eq!(fs::read_to_string(ground.lower().join("sub/x")).unwrap(), "changed");
}

#[test]
fn another_file_or_directory_in_the_place_is_not_written_over() {
    let Some(ground) = Ground::new("exchanged") else { return };
    for (path, content) in [("a/file", "seen"), ("a/old", "seen"), ("b/file", "precious"), ("b/old", "precious")] {
        fs::create_dir_all(ground.lower().join(path).parent().unwrap()).unwrap();
        fs::write(ground.lower().join(path), content).unwrap();
    }
    ground.change(|merged| {
        fs::write(merged.join("a/file"), "changed").unwrap();
        fs::remove_file(merged.join("a/old")).unwrap();
    });
    // However long before the command it was written.
    let record = Record { since: i64::MAX, ..ground.noted() };
    fs::rename(ground.lower().join("a"), ground.lower().join("c")).unwrap();
    fs::rename(ground.lower().join("b"), ground.lower().join("a")).unwrap();
    let errors = ground.apply_record(&record, Consent::default());
    assert_eq!(errors.len(), 2, "{errors:?}");
    for name in ["file", "old"] {
        assert_eq!(fs::read_to_string(ground.lower().join("a").join(name)).unwrap(), "precious");
    }
}

#[test]
fn what_somebody_else_did_to_a_directory_is_nobodys_change_here() {
    let Some(ground) = Ground::new("others-mode") else { return };
    tree(&ground);
    ground.change(|merged| fs::write(merged.join("kept/added"), "").unwrap());
    let record = ground.noted();
    set_mode(&ground.lower().join("kept"), 0o700);
    assert_eq!(text(&apply::list(ground.layers(), &record).unwrap().changes), "A /kept/added\n");
    assert_eq!(ground.apply_record(&record, Consent::default()), []);
    assert_eq!(mode(&ground.lower().join("kept")), 0o700);
}

#[test]
fn attributes_of_a_file_that_is_closed_to_its_owner_are_brought() {
    let Some(ground) = Ground::new("closed-xattrs") else { return };
    for directory in [ground.lower(), ground.upper()] {
        fs::write(directory.join("file"), "").unwrap();
        set_mode(&directory.join("file"), 0);
    }
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(ground.upper().join("file"), "user.nsrs", b"new", flags).unwrap();
    give_all(&ground);
    as_user(|| assert_eq!(ground.apply(Consent::default()), []));
    let mut value = [0; 8];
    let count = rustix::fs::getxattr(ground.lower().join("file"), "user.nsrs", &mut value).unwrap();
    assert_eq!((&value[..count], mode(&ground.lower().join("file"))), (&b"new"[..], 0));
}

#[test]
fn what_was_below_of_what_was_brought_is_forgotten() {
    let Some(ground) = Ground::new("forget") else { return };
    let dir = kept(&ground);
    let path = dir.to_str().unwrap();
    let (kept, record) = Kept::find(path).unwrap();
    let base = |inner: &str| Base { layer: 0, inner: inner.into(), ino: 1, changed: 0, since: 0, dress: None };
    let all = ["a", "a/b", "ab", "d", "d/e"].map(base).to_vec();
    keep::note_bases(&kept, all).unwrap();
    let brought = |inner: &str, whole| apply::Brought { layer: 0, inner: inner.into(), whole };
    keep::forget_bases(&kept, &[brought("a", true), brought("d", false)]).unwrap();
    let left = keep::read(&kept.directory, path).unwrap().unwrap();
    assert_eq!(left.bases, ["ab", "d/e"].map(base));
    assert_eq!(Record { bases: Vec::new(), ..left }, record);
}

#[test]
fn what_changed_in_the_very_moment_of_the_start_has_changed() {
    use std::os::unix::fs::MetadataExt;
    let Some(ground) = Ground::new("moment") else { return };
    tree(&ground);
    ground.change(|merged| fs::write(merged.join("a"), "new").unwrap());
    let stat = fs::metadata(ground.lower().join("a")).unwrap();
    let moment = stat.ctime() * 1_000_000_000 + stat.ctime_nsec();
    let apply = |since| {
        let record = Record { since, ..ground.record() };
        Apply::new(ground.layers(), &record).unwrap().all(&ground.list(), Consent::default()).len()
    };
    assert_eq!(apply(moment), 1);
    assert_eq!(apply(moment + 1), 0);
}

#[test]
fn a_name_can_steer_no_terminal_in_text_nor_in_json() {
    let path = "/\u{7f}\u{9b}2J\u{61c}\u{200e}\u{202e}\u{2066}é";
    let change = Change {
        kind: Kind::Added,
        path: path.as_bytes().to_vec(),
        file_type: FileType::RegularFile,
        differs: Vec::new(),
        hazards: Vec::new(),
        layer: 0,
        inner: Vec::new(),
        other_names: 0,
        twin: None,
        unread: false,
    };
    let expected = r#"[{"kind":"added","path":"/\u007f\u009b2J\u061c\u200e\u202e\u2066é","type":"file"}]"#;
    let json = json(std::slice::from_ref(&change)).unwrap();
    assert_eq!(json, expected);
    let read: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(read[0]["path"], path);
    assert_eq!(text(&[change]), "A /\\x7f\\xc2\\x9b2J\\xd8\\x9c\\xe2\\x80\\x8e\\xe2\\x80\\xae\\xe2\\x81\\xa6é\n");
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_directory_that_somebody_else_has_given_other_attributes_is_left_alone_and_told() {
    let Some(ground) = Ground::new("directories") else { return };
    tree(&ground);
    for name in ["kept", "src", "again"] {
        set_mode(&ground.lower().join(name), 0o755);
    }
    ground.change(|merged| {
        set_mode(merged, 0o711);
        set_mode(&merged.join("kept"), 0o700);
        set_mode(&merged.join("src"), 0o700);
        std::os::unix::fs::chown(merged.join("again"), Some(7), Some(8)).unwrap();
    });
    let record = ground.noted();
    // New entries are no new attributes.
    fs::write(ground.lower().join("kept/mine"), "").unwrap();
    set_mode(&ground.lower().join("src"), 0o750);
    std::os::unix::fs::chown(ground.lower().join("again"), Some(9), None).unwrap();
    let apply = |record: &Record, consent| Apply::new(ground.layers(), record).unwrap().all(&ground.list(), consent);
    let errors = apply(&record, Consent::default());
    let told: Vec<_> = errors.iter().map(|error| (error.subject.as_str(), error.code)).collect();
    assert_eq!(told, [("/again", Code::InUse), ("/src", Code::InUse)]);
    let modes = ["", "kept", "src"].map(|name| mode(&ground.lower().join(name)));
    assert_eq!(modes, [0o711, 0o700, 0o750]);
    // Of what nothing was noted, a change since then is enough.
    let errors = apply(&Record { bases: Vec::new(), ..record.clone() }, Consent::default());
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert_eq!(apply(&record, Consent { force: true, privileged: false }), []);
    assert_eq!(text(&ground.list()), "");
}

#[test]
fn what_is_nested_too_deep_is_told_as_that() {
    let Some(ground) = Ground::new("deep") else { return };
    let deep = |top: PathBuf| {
        let mut path = top.join("top");
        for _ in 0..1600 {
            path.push("d");
        }
        fs::create_dir_all(path).unwrap();
    };
    deep(ground.lower());
    // Deeper than the stack of a test's thread.
    let work = || {
        let whiteout = ground.upper().join("top");
        let device = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, &whiteout, device, Mode::empty(), 0).unwrap();
        let errors = ground.apply(Consent { force: true, privileged: false });
        assert_eq!(errors.len(), 1);
        assert!(errors[0].to_string().contains("nested too deep"), "{errors:?}");
        assert!(ground.lower().join("top/d").exists());
        fs::remove_file(whiteout).unwrap();
        deep(ground.upper());
        let error = walk(ground.layers(), &ground.record()).unwrap_err();
        assert!(error.to_string().contains("nested too deep"), "{error}");
    };
    std::thread::scope(|scope| {
        std::thread::Builder::new().stack_size(256 << 20).spawn_scoped(scope, work).unwrap().join().unwrap();
    });
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

#[test]
fn a_record_that_somebody_else_could_have_written_is_refused() {
    let Some(ground) = Ground::new("trust") else { return };
    let dir = kept(&ground);
    let record = dir.join("changes.json");
    let why = || Kept::find(dir.to_str().unwrap()).err().map(|error| error.to_string()).unwrap_or_default();
    assert_eq!(why(), "");
    for path in [&dir, &record] {
        let was = mode(path);
        std::os::unix::fs::chown(path, Some(1000), None).unwrap();
        assert!(why().contains("it belongs to the user 1000"), "{}", why());
        std::os::unix::fs::chown(path, Some(0), None).unwrap();
        set_mode(path, was | 0o020);
        assert!(why().contains("others may write to it"), "{}", why());
        set_mode(path, was);
        assert_eq!(why(), "");
    }
    fs::hard_link(&record, ground.0.join("other")).unwrap();
    assert!(why().contains("other names"), "{}", why());
}

#[test]
fn a_link_that_came_into_the_path_of_the_real_tree_is_refused() {
    let Some(ground) = Ground::new("path") else { return };
    tree(&ground);
    ground.change(|merged| fs::write(merged.join("new"), "x").unwrap());
    let record = ground.record();
    fs::create_dir(ground.0.join("victim")).unwrap();
    fs::rename(ground.lower(), ground.0.join("aside")).unwrap();
    symlink("victim", ground.lower()).unwrap();
    let error = Apply::new(ground.layers(), &record).unwrap_err();
    assert!(error.to_string().contains("there is a link"), "{error}");
}

#[test]
fn only_what_is_ours_is_discarded_and_only_where_it_still_is() {
    let Some(ground) = Ground::new("discard") else { return };
    let dir = kept(&ground);
    fs::create_dir_all(dir.join("layers/0/work/work")).unwrap();
    fs::write(dir.join("notes"), "mine").unwrap();
    let (held, _) = Kept::find(dir.to_str().unwrap()).unwrap();
    assert_eq!(held.discard().unwrap(), ["notes"]);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    fs::remove_file(dir.join("notes")).unwrap();
    fs::rename(&dir, ground.0.join("aside")).unwrap();
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("theirs"), "").unwrap();
    assert!(held.discard().unwrap_err().to_string().contains("exchanged"));
    assert!(dir.join("theirs").exists());
    fs::remove_dir_all(&dir).unwrap();
    fs::rename(ground.0.join("aside"), &dir).unwrap();
    assert_eq!(held.discard().unwrap(), Vec::<String>::new());
    assert!(!dir.exists());
}

/// An access list in its binary form (acl(5)): the owner, this user, the group, the mask and others.
fn access_list(user: u32, rights: u16) -> Vec<u8> {
    let entry = |tag: u16, rights: u16, id: u32| {
        [tag.to_le_bytes().to_vec(), rights.to_le_bytes().to_vec(), id.to_le_bytes().to_vec()].concat()
    };
    let all = [(1, 7, u32::MAX), (2, rights, user), (4, 5, u32::MAX), (0x10, 7, u32::MAX), (0x20, 0, u32::MAX)];
    let entries = all.into_iter().flat_map(|(tag, rights, id)| entry(tag, rights, id));
    2_u32.to_le_bytes().into_iter().chain(entries).collect()
}

#[test]
fn nothing_takes_over_the_access_list_of_the_directory_that_it_is_brought_into() {
    let Some(ground) = Ground::new("lists") else { return };
    for name in ["shared", "private", "closed"] {
        fs::create_dir(ground.lower().join(name)).unwrap();
        set_mode(&ground.lower().join(name), 0o755);
    }
    let set = |path: &Path, key: &str, user: u32| {
        rustix::fs::setxattr(path, key, &access_list(user, 7), rustix::fs::XattrFlags::empty())
    };
    if set(&ground.lower().join("shared"), "system.posix_acl_default", 1001).is_err() {
        return;
    }
    set(&ground.lower().join("closed"), "system.posix_acl_access", 1002).unwrap();
    ground.change(|merged| {
        fs::write(merged.join("private/file"), "secret").unwrap();
        set_mode(&merged.join("private/file"), 0o640);
        fs::create_dir(merged.join("private/dir")).unwrap();
        fs::write(merged.join("private/dir/in"), "").unwrap();
        for name in ["file", "dir"] {
            fs::rename(merged.join("private").join(name), merged.join("shared").join(name)).unwrap();
        }
        fs::write(merged.join("shared/own"), "").unwrap();
        rustix::fs::mknodat(
            fs::File::open(merged.join("shared")).unwrap(),
            "fifo",
            FileType::Fifo,
            Mode::from_raw_mode(0o644),
            0,
        )
        .unwrap();
        rustix::fs::removexattr(merged.join("shared/fifo"), "system.posix_acl_access").unwrap();
        set_mode(&merged.join("shared/fifo"), 0o666);
        rustix::fs::removexattr(merged.join("closed"), "system.posix_acl_access").unwrap();
        set_mode(&merged.join("closed"), 0o750);
    });
    assert_eq!(ground.apply(Consent { force: true, privileged: false }), []);
    let list = |path: &str| {
        let mut value = vec![0_u8; 256];
        rustix::fs::getxattr(ground.lower().join(path), "system.posix_acl_access", &mut value[..]).ok()
    };
    for path in ["shared/file", "shared/dir", "shared/dir/in", "shared/fifo", "closed"] {
        assert_eq!(list(path), None, "{path}");
    }
    assert!(list("shared/own").is_some(), "what the command's file had itself stays");
    assert_eq!(mode(&ground.lower().join("shared/file")), 0o640);
    assert_eq!(text(&ground.list()), "");
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

#[test]
fn another_name_of_an_unchanged_file_becomes_one_in_the_real_tree() {
    let Some(ground) = Ground::new("names") else { return };
    tree(&ground);
    let lower = ground.lower();
    fs::hard_link(lower.join("b"), lower.join("b2")).unwrap();
    fs::write(lower.join("same2"), "same").unwrap();
    ground.change(|merged| {
        fs::hard_link(merged.join("a"), merged.join("hard")).unwrap();
        fs::hard_link(merged.join("link"), merged.join("kept/link")).unwrap();
        fs::remove_file(merged.join("kept/z")).unwrap();
        fs::hard_link(merged.join("b"), merged.join("kept/z")).unwrap();
        // As one that looks for duplicates does.
        fs::remove_file(merged.join("same2")).unwrap();
        fs::hard_link(merged.join("same"), merged.join("same2")).unwrap();
    });
    let record = Record { since: now(), ..ground.record() };
    assert_eq!(text(&ground.list()), "A /hard\nA /kept/link\nC /kept/z\nC /same2\n");
    assert_eq!(ground.list()[3].differs, [Differs::Links]);
    assert_eq!(ground.apply_record(&record, Consent::default()), []);
    for (one, other) in [("a", "hard"), ("link", "kept/link"), ("b", "kept/z"), ("b", "b2"), ("same", "same2")] {
        assert_eq!(ino(&lower.join(one)), ino(&lower.join(other)), "{one} {other}");
    }
    assert_eq!(text(&ground.list()), "");
}

#[test]
fn a_name_is_given_to_no_file_that_has_changed_or_was_exchanged() {
    let Some(ground) = Ground::new("exchanged") else { return };
    tree(&ground);
    ground.change(|merged| fs::hard_link(merged.join("a"), merged.join("hard")).unwrap());
    let (record, changes) = (ground.record(), ground.list());
    fs::remove_file(ground.lower().join("a")).unwrap();
    symlink("/etc/passwd", ground.lower().join("a")).unwrap();
    assert_eq!(Apply::new(ground.layers(), &record).unwrap().all(&changes, Consent::default()), []);
    assert_eq!(fs::read_to_string(ground.lower().join("hard")).unwrap(), "a");
    assert!(fs::symlink_metadata(ground.lower().join("hard")).unwrap().is_file());
}

#[test]
fn a_changed_file_with_other_names_is_told_and_needs_force() {
    let Some(ground) = Ground::new("other-names") else { return };
    tree(&ground);
    let lower = ground.lower();
    for (one, other) in [("a", "a2"), ("b", "b2"), ("same", "same2"), ("src/deep/f", "f2")] {
        fs::hard_link(lower.join(one), lower.join(other)).unwrap();
    }
    ground.change(|merged| {
        fs::write(merged.join("a"), "changed").unwrap();
        // Of these no name stays as it was.
        fs::write(merged.join("b"), "changed").unwrap();
        fs::write(merged.join("b2"), "too").unwrap();
        fs::write(merged.join("f2"), "changed").unwrap();
        fs::remove_file(merged.join("src/deep/f")).unwrap();
        // A new file for sure.
        fs::remove_file(merged.join("same")).unwrap();
        symlink("a", merged.join("same")).unwrap();
    });
    let record = Record { since: now(), ..ground.record() };
    let changes = ground.list();
    let told: Vec<_> = changes.iter().map(|change| change.other_names).collect();
    assert_eq!(text(&changes), "C /a\nC /b\nC /b2\nC /f2\nC /same\nD /src/deep/f\n");
    assert_eq!(told, [1, 0, 0, 0, 0, 0]);
    assert!(notes(&changes).contains("/a is a hard link; the file's other name keeps what it holds"));
    let errors = ground.apply_record(&record, Consent::default());
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].to_string().contains("hard link"), "{errors:?}");
    let read = |name: &str| fs::read_to_string(lower.join(name)).unwrap();
    assert_eq!(["a", "b", "b2", "f2", "same2"].map(read), ["a", "changed", "too", "changed", "same"]);
    assert_eq!(ground.apply_record(&record, Consent { force: true, privileged: false }), []);
    assert_eq!(["a", "a2"].map(read), ["changed", "a"]);
    assert_eq!(text(&ground.list()), "");
}

#[test]
fn a_file_that_lost_a_name_to_an_earlier_apply_has_not_changed() {
    let Some(ground) = Ground::new("lost") else { return };
    tree(&ground);
    fs::hard_link(ground.lower().join("a"), ground.lower().join("two")).unwrap();
    ground.change(|merged| {
        fs::write(merged.join("a"), "one").unwrap();
        set_mode(&merged.join("a"), 0o4755);
        fs::write(merged.join("two"), "two").unwrap();
    });
    let mut record = Record { since: now(), ..ground.record() };
    let changes = ground.list();
    let mut apply = Apply::new(ground.layers(), &record).unwrap();
    let known = apply.remember(&changes);
    assert_eq!(apply.all(&changes, Consent::default()).len(), 1);
    drop(apply);
    record.known = known;
    assert_eq!(ground.apply_record(&record, Consent { force: false, privileged: true }), []);
    assert_eq!(text(&ground.list()), "");
    // What somebody writes is another matter.
    fs::write(ground.lower().join("two"), "mine").unwrap();
    assert_eq!(ground.apply_record(&record, Consent { force: false, privileged: true }).len(), 1);
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
    use crate::sys::clone::{Side, clone3};
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
            crate::sys::process::exit_now(i32::from(done.is_err()));
        }
        Side::Parent(pid, _) => {
            let status = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
            assert_eq!(status.unwrap().unwrap().1.exit_status(), Some(0), "the part as a user has failed");
        }
    }
}

#[test]
fn what_is_closed_to_its_own_owner_is_brought_and_stays_closed() {
    let Some(ground) = Ground::new("closed") else { return };
    tree(&ground);
    let lower = ground.lower();
    fs::create_dir(lower.join("shut")).unwrap();
    fs::write(lower.join("shut/old"), "old").unwrap();
    fs::create_dir(lower.join("empty")).unwrap();
    set_mode(&lower.join("shut"), 0o000);
    ground.change(|merged| {
        fs::create_dir(merged.join("closed")).unwrap();
        fs::create_dir(merged.join("closed/in")).unwrap();
        fs::write(merged.join("closed/in/x"), "x").unwrap();
        set_mode(&merged.join("closed/in"), 0o500);
        set_mode(&merged.join("closed"), 0o000);
        fs::write(merged.join("shut/new"), "new").unwrap();
        fs::remove_file(merged.join("shut/old")).unwrap();
        set_mode(&merged.join("empty"), 0o000);
        fs::write(merged.join("a"), "none").unwrap();
        set_mode(&merged.join("a"), 0o000);
        fs::write(merged.join("kept/none"), "none").unwrap();
        set_mode(&merged.join("kept/none"), 0o000);
        set_mode(&merged.join("kept"), 0o100);
    });
    give_all(&ground);
    as_user(|| {
        let expected = "C /a\nA /closed\nA /closed/in\nA /closed/in/x\nC /empty\nC /kept\nA /kept/none\nA /shut/new\nD /shut/old\n";
        assert_eq!(text(&ground.list()), expected);
        assert_eq!(ground.apply(Consent::default()), []);
        assert_eq!(text(&ground.list()), "", "nothing is left to apply");
    });
    let modes = ["closed", "closed/in", "shut", "empty", "a", "kept", "kept/none"].map(|name| mode(&lower.join(name)));
    assert_eq!(modes, [0o000, 0o500, 0o000, 0o000, 0o000, 0o100, 0o000]);
    assert_eq!(fs::read_to_string(lower.join("closed/in/x")).unwrap(), "x");
    assert_eq!(fs::read_to_string(lower.join("kept/none")).unwrap(), "none");
    assert!(lower.join("shut/new").exists() && !lower.join("shut/old").exists());
}

#[test]
fn what_belongs_to_others_is_left_out_and_told_and_the_rest_is_brought() {
    let Some(ground) = Ground::new("others") else { return };
    tree(&ground);
    ground.change(|merged| {
        fs::write(merged.join("mine"), "").unwrap();
        fs::create_dir(merged.join("theirs")).unwrap();
        fs::write(merged.join("theirs/file"), "").unwrap();
        set_mode(&merged.join("theirs"), 0o700);
        fs::write(merged.join("b"), "x").unwrap();
        set_mode(&merged.join("b"), 0o600);
        fs::write(merged.join("src/deep/f"), "x").unwrap();
        set_mode(&merged.join("src"), 0o755);
    });
    give_all(&ground);
    for name in ["theirs", "b", "src/deep"] {
        std::os::unix::fs::chown(ground.upper().join(name), Some(7), Some(7)).unwrap();
        set_mode(&ground.upper().join(name), 0o700);
    }
    as_user(|| {
        let changes = super::apply::list(ground.layers(), &ground.record()).unwrap().changes;
        assert_eq!(text(&changes), "C /b\nA /mine\nC /src/deep\nA /theirs\n");
        let record = ground.record();
        let errors = Apply::new(ground.layers(), &record).unwrap().all(&changes, Consent::default());
        let told: Vec<_> = errors.iter().map(|error| (error.subject.as_str(), error.errno)).collect();
        assert_eq!(told, ["/b", "/src/deep", "/theirs"].map(|name| (name, Some(libc::EACCES))));
        assert!(ground.lower().join("mine").exists() && !ground.lower().join("theirs").exists());
    });
}

#[test]
fn an_apply_goes_on_where_one_was_that_was_killed() {
    for moment in [1, 3, 6, 10, 15, 25] {
        let Some(ground) = Ground::new("go-on") else { return };
        tree(&ground);
        fs::create_dir(ground.lower().join("src/own")).unwrap();
        ground.change(|merged| {
            for n in 0..100 {
                let dir = merged.join(format!("new/d{n}"));
                fs::create_dir_all(&dir).unwrap();
                fs::write(dir.join("f"), "f").unwrap();
                set_mode(&dir, 0o755);
            }
            set_mode(&merged.join("new"), 0o755);
            set_mode(&merged.join("src"), 0o711);
            std::os::unix::fs::chown(merged.join("src"), Some(7), Some(8)).unwrap();
            for name in ["gone", "again"] {
                fs::remove_dir_all(merged.join(name)).unwrap();
            }
            fs::write(merged.join("again"), "").unwrap();
            fs::write(merged.join("a"), "longer").unwrap();
            fs::remove_dir(merged.join("src/own")).unwrap();
            fs::write(merged.join("src/own"), "").unwrap();
        });
        let record = Record { since: now(), ..ground.noted() };
        let apply = || {
            let listed = super::apply::list(ground.layers(), &record).unwrap();
            Apply::new(ground.layers(), &record).unwrap().after(&listed).all(&listed.changes, Consent::default())
        };
        match crate::sys::clone::clone3(0).unwrap() {
            crate::sys::clone::Side::Child => crate::sys::process::exit_now(apply().len().try_into().unwrap_or(1)),
            crate::sys::clone::Side::Parent(pid, _) => {
                std::thread::sleep(std::time::Duration::from_millis(moment));
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
                rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).unwrap();
            }
        }
        assert_eq!(apply(), [], "after {moment} ms");
        assert_eq!(text(&ground.list()), "");
        let left = std::process::Command::new("find").arg(ground.lower()).args(["-name", ".nsrs-*"]).output().unwrap();
        assert!(left.stdout.is_empty(), "{left:?}");
    }
}

#[test]
fn what_an_ended_apply_has_left_goes_with_the_next_and_is_no_change() {
    let Some(ground) = Ground::new("left") else { return };
    tree(&ground);
    let lower = ground.lower();
    set_mode(&lower.join("src"), 0o750);
    ground.change(|merged| {
        fs::remove_dir_all(merged.join("again")).unwrap();
        fs::create_dir(merged.join("again")).unwrap();
        fs::write(merged.join("kept/new"), "").unwrap();
        set_mode(&merged.join("src"), 0o711);
        std::os::unix::fs::chown(merged.join("src"), Some(7), Some(8)).unwrap();
    });
    let record = ground.noted();
    let record = Record { since: now(), ..record };
    // Between owner and mode.
    std::os::unix::fs::chown(lower.join("src"), Some(7), Some(8)).unwrap();
    let ino = rustix::fs::fstat(ground.layers()).unwrap().st_ino;
    let temporary = format!(".nsrs-apply-{:x}-{ino:x}", record.since);
    fs::create_dir_all(lower.join("again").join(&temporary).join("deep")).unwrap();
    fs::write(lower.join(&temporary), "half").unwrap();
    fs::write(lower.join("kept").join(".nsrs-apply-1-1"), "another's").unwrap();
    let listed = super::apply::list(ground.layers(), &record).unwrap();
    assert_eq!(text(&listed.changes), "D /again/both\nD /again/old\nA /kept/new\nC /src\n");
    let mut apply = Apply::new(ground.layers(), &record).unwrap().after(&listed);
    assert_eq!(apply.all(&listed.changes, Consent::default()), []);
    assert!(!lower.join(&temporary).exists() && fs::read_dir(lower.join("again")).unwrap().next().is_none());
    assert!(lower.join("kept/.nsrs-apply-1-1").exists());
    assert_eq!(mode(&lower.join("src")), 0o711);
    let listed = super::apply::list(ground.layers(), &record).unwrap();
    assert_eq!(text(&listed.changes), "");
}

#[test]
fn an_ended_removal_is_told_and_gone_on_with() {
    let Some(ground) = Ground::new("rest") else { return };
    let dir = kept(&ground);
    fs::create_dir_all(dir.join("layers.gone/0/work/work")).unwrap();
    fs::remove_dir(dir.join("layers")).unwrap();
    fs::remove_file(dir.join("changes.json")).unwrap();
    let path = dir.to_str().unwrap();
    let error = Kept::find(path).unwrap_err();
    assert!(error.to_string().contains("but for a rest"), "{error}");
    assert_eq!(Kept::find_any(path).unwrap().discard().unwrap(), Vec::<String>::new());
    assert!(!dir.exists());
    fs::create_dir(&dir).unwrap();
    set_mode(&dir, 0o700);
    fs::write(dir.join("mine"), "").unwrap();
    assert!(Kept::find_any(path).unwrap_err().to_string().contains("holds none"));
}

#[test]
fn what_was_made_for_the_command_is_nobodys_change_but_what_is_in_it_is() {
    let Some(ground) = Ground::new("made") else { return };
    tree(&ground);
    ground.change(|merged| {
        fs::create_dir_all(merged.join("new/work/own")).unwrap();
        fs::create_dir_all(merged.join("kept/volume")).unwrap();
        fs::create_dir(merged.join("new/workshop")).unwrap();
        fs::write(merged.join("kept/volume/file"), "").unwrap();
    });
    let record = Record { made: vec!["/kept/volume".into(), "/new/work".into()], ..ground.record() };
    let changes = walk(ground.layers(), &record).unwrap();
    let all = ["/kept/volume", "/kept/volume/file", "/new", "/new/work", "/new/work/own", "/new/workshop"];
    assert_eq!(text(&changes), all.map(|path| format!("A {path}\n")).concat());
}

#[test]
fn a_directory_that_can_be_removed_in_part_only_stays_whole() {
    let Some(ground) = Ground::new("in-part") else { return };
    tree(&ground);
    let lower = ground.lower();
    fs::create_dir_all(lower.join("gone/theirs")).unwrap();
    fs::write(lower.join("gone/theirs/file"), "").unwrap();
    fs::create_dir_all(lower.join("again/empty")).unwrap();
    ground.change(|merged| {
        fs::remove_dir_all(merged.join("gone")).unwrap();
        fs::remove_dir_all(merged.join("again")).unwrap();
    });
    give_all(&ground);
    for name in ["gone/theirs", "again/empty"] {
        std::os::unix::fs::chown(lower.join(name), Some(7), Some(7)).unwrap();
        set_mode(&lower.join(name), 0o755);
    }
    as_user(|| {
        for force in [false, true] {
            let errors = ground.apply(Consent { force, privileged: false });
            let told: Vec<_> = errors.iter().map(|error| (error.subject.as_str(), error.errno)).collect();
            assert_eq!(told, [("/gone", Some(libc::EACCES))]);
        }
    });
    assert!(["gone/x/y", "gone/theirs/file"].iter().all(|name| lower.join(name).exists()));
    assert!(!lower.join("again").exists());
}
