//! Layers and trees that were made to lead elsewhere.

use super::*;

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
