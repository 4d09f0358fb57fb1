//! What somebody else has done to the real tree since.

use super::*;

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
