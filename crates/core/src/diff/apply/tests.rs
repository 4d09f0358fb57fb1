//! What a neighbour does to the real tree between two steps of an apply.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use rustix::fs::{AtFlags, CWD, statat};
use rustix::io::Errno;

use super::*;
use crate::diff::access_guard::AccessGuard;
use crate::diff::conflict::WRITE_ACCESS;
use crate::diff::file_stamp::file_id;
use crate::diff::replace::{TargetName, remove_name};
use crate::diff::tests::OverlayFixture;

/// Replaces a directory, as somebody can who may write to the directory above only.
fn replace_directory(fixture: &OverlayFixture, name: &str) {
    let [here, there, away] = [name, "precious", "away"].map(|name| fixture.lower().join(name));
    fs::create_dir(&there).unwrap();
    fs::set_permissions(&there, PermissionsExt::from_mode(0o700)).unwrap();
    fs::write(there.join("secret"), "").unwrap();
    fs::rename(&here, away).unwrap();
    fs::rename(there, here).unwrap();
}

#[test]
fn a_directory_that_is_replaced_is_neither_given_attributes_nor_written_to() {
    let Some(fixture) = OverlayFixture::new("swapped") else { return };
    fs::create_dir(fixture.lower().join("old")).unwrap();
    fixture.change(|merged| {
        fs::set_permissions(merged.join("old"), PermissionsExt::from_mode(0o777)).unwrap();
        fs::write(merged.join("old/file"), "").unwrap();
    });
    let record = fixture.noted();
    let changes = list(fixture.layers(), &record).unwrap().changes;
    let mut apply = Apply::new(fixture.layers(), &record).unwrap();
    let Progress::AttributesLeft(which) = apply.one(&changes[0], Consent::default()).unwrap() else { panic!() };
    replace_directory(&fixture, "old");
    let errors = [
        apply.one(&changes[1], Consent::default()).map(drop).unwrap_err(),
        apply.apply_attributes(&changes[0], which, false).unwrap_err(),
    ];
    assert!(errors.iter().all(|error| error.to_string().contains("was replaced")), "{errors:?}");
    let now = fixture.lower().join("old");
    assert_eq!(fs::metadata(&now).unwrap().mode() & 0o777, 0o700);
    assert_eq!(fs::read_dir(&now).unwrap().count(), 1);
}

#[test]
fn a_directory_that_was_made_and_is_replaced_is_not_written_to_with_force_either() {
    let Some(fixture) = OverlayFixture::new("swapped-new") else { return };
    fixture.change(|merged| {
        fs::create_dir(merged.join("new")).unwrap();
        fs::write(merged.join("new/file"), "").unwrap();
    });
    let record = fixture.noted();
    let changes = list(fixture.layers(), &record).unwrap().changes;
    let mut apply = Apply::new(fixture.layers(), &record).unwrap();
    let force = Consent { force: true, privileged: true };
    assert_eq!(apply.all(&changes[..1], force), []);
    replace_directory(&fixture, "new");
    let error = apply.one(&changes[1], force).map(drop).unwrap_err();
    assert!(error.to_string().contains("was replaced"), "{error}");
}

#[test]
fn what_takes_the_place_of_a_directory_that_is_to_go_is_not_removed() {
    let Some(fixture) = OverlayFixture::new("swapped-gone") else { return };
    let at = |name: &str| fixture.lower().join(name);
    for name in ["gone", "other"] {
        fs::create_dir(at(name)).unwrap();
        fs::write(at(name).join("file"), "").unwrap();
    }
    let old = |name: &str| Some(file_id(&statat(CWD, at(name), AtFlags::SYMLINK_NOFOLLOW).unwrap()));
    let to = AccessGuard::beneath(fs::File::open(fixture.lower()).unwrap(), b".", WRITE_ACCESS).unwrap();
    let target =
        TargetName { directory: &to, name: b"gone", temporary: ".temporary", must_be_new: false, old: old("other") };
    assert_eq!(remove_name(target), Err(Errno::STALE));
    assert!(at("gone/file").exists() && !at(".temporary").exists());
    remove_name(TargetName { old: old("gone"), ..target }).unwrap();
    assert!(!at("gone").exists());
}
