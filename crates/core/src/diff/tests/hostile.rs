//! ContainerLayers and trees that were made to lead elsewhere.

use super::*;

#[test]
fn a_link_in_the_real_tree_is_not_followed() {
    let Some(fixture) = OverlayFixture::new("links") else { return };
    let outside = fixture.0.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::create_dir(fixture.lower().join("dir")).unwrap();
    fixture.change(|merged| fs::write(merged.join("dir/file"), "x").unwrap());
    let changes = fixture.list();
    // Between the list and the act.
    fs::remove_dir(fixture.lower().join("dir")).unwrap();
    symlink(&outside, fixture.lower().join("dir")).unwrap();
    let record = fixture.record();
    let errors =
        Apply::new(fixture.layers(), &record).unwrap().all(&changes, Consent { force: true, privileged: true });
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn a_layer_with_links_for_directories_leads_nowhere() {
    let Some(fixture) = OverlayFixture::new("hostile") else { return };
    fs::create_dir(fixture.0.join("outside")).unwrap();
    fs::write(fixture.0.join("outside/secret"), "x").unwrap();
    fs::create_dir(fixture.lower().join("dir")).unwrap();
    fixture.change(|merged| fs::write(merged.join("dir/secret"), "mine").unwrap());
    let changes = fixture.list();
    fs::remove_dir_all(fixture.upper().join("dir")).unwrap();
    symlink(fixture.0.join("outside"), fixture.upper().join("dir")).unwrap();
    let record = fixture.record();
    let errors = Apply::new(fixture.layers(), &record).unwrap().all(&changes, Consent::default());
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(!fixture.lower().join("dir/secret").exists());
}

#[test]
fn what_gives_rights_and_what_has_changed_is_left_out() {
    let Some(fixture) = OverlayFixture::new("consent") else { return };
    tree(&fixture);
    fixture.change(|merged| {
        fs::write(merged.join("suid"), "").unwrap();
        fs::set_permissions(merged.join("suid"), PermissionsExt::from_mode(0o4755)).unwrap();
        fs::write(merged.join("a"), "changed").unwrap();
        fs::remove_dir_all(merged.join("gone")).unwrap();
    });
    let record = ChangesRecord { since: 0, ..fixture.record() };
    let changes = fixture.list();
    let errors = Apply::new(fixture.layers(), &record).unwrap().all(&changes, Consent::default());
    assert_eq!(errors.len(), 3, "{errors:?}");
    assert_eq!(fs::read_to_string(fixture.lower().join("a")).unwrap(), "a");
    assert!(fixture.lower().join("gone/x/y").exists() && !fixture.lower().join("suid").exists());
    let consent = Consent { force: true, privileged: true };
    assert_eq!(Apply::new(fixture.layers(), &record).unwrap().all(&changes, consent), []);
    assert_eq!(lines(&fixture.list()), "");
}

#[test]
fn nothing_mounted_in_a_removed_directory_is_emptied() {
    let Some(fixture) = OverlayFixture::new("border") else { return };
    tree(&fixture);
    fixture.change(|merged| fs::remove_dir_all(merged.join("gone")).unwrap());
    let changes = fixture.list();
    fs::create_dir(fixture.0.join("elsewhere")).unwrap();
    fs::write(fixture.0.join("elsewhere/file"), "").unwrap();
    let point = fixture.lower().join("gone/x");
    rustix::mount::mount_bind(fixture.0.join("elsewhere"), &point).unwrap();
    let record = fixture.record();
    let errors =
        Apply::new(fixture.layers(), &record).unwrap().all(&changes, Consent { force: true, privileged: true });
    let survived = fixture.0.join("elsewhere/file").exists();
    unmount(&point, UnmountFlags::DETACH).unwrap();
    assert!(survived && errors.len() == 1, "{errors:?}");
}

#[test]
fn a_directory_that_is_mounted_over_keeps_its_mode() {
    let Some(fixture) = OverlayFixture::new("mounted-over") else { return };
    tree(&fixture);
    fixture.change(|merged| fs::set_permissions(merged.join("kept"), PermissionsExt::from_mode(0o700)).unwrap());
    let changes = fixture.list();
    let elsewhere = fixture.0.join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::set_permissions(&elsewhere, PermissionsExt::from_mode(0o755)).unwrap();
    mount("tmpfs", fixture.lower().join("kept"), "tmpfs", MountFlags::empty(), Some(c"mode=755")).unwrap();
    let record = fixture.record();
    let errors =
        Apply::new(fixture.layers(), &record).unwrap().all(&changes, Consent { force: true, privileged: true });
    let mode = fs::metadata(fixture.lower().join("kept")).unwrap().permissions().mode() & 0o777;
    unmount(fixture.lower().join("kept"), UnmountFlags::DETACH).unwrap();
    assert_eq!((mode, errors.len()), (0o755, 1), "{errors:?}");
}
