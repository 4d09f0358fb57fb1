//! What somebody else has done to the real tree since.

use super::*;

#[test]
fn what_was_removed_meanwhile_is_told_and_needs_force() {
    let Some(fixture) = OverlayFixture::new("removed") else { return };
    tree(&fixture);
    fs::create_dir(fixture.lower().join("sub")).unwrap();
    fs::write(fixture.lower().join("sub/x"), "x").unwrap();
    fixture.change(|merged| {
        fs::write(merged.join("kept/z"), "changed").unwrap();
        fs::write(merged.join("sub/x"), "changed").unwrap();
        fs::write(merged.join("sub/new"), "new").unwrap();
    });
    let record = fixture.noted();
    fs::remove_dir_all(fixture.lower().join("sub")).unwrap();
    fs::remove_file(fixture.lower().join("kept/z")).unwrap();
    let listed = lines(&apply::list(fixture.layers(), &record).unwrap().changes);
    assert_eq!(listed, "C /kept/z\nC /sub\nA /sub/new\nC /sub/x\n");
    let errors = fixture.apply_record(&record, Consent::default());
    assert_eq!(errors.len(), 4, "{errors:?}");
    assert!(errors[0].to_string().contains("was removed since the command ran"), "{errors:?}");
    assert!(errors[2].to_string().contains("the directory it was in is gone"), "{errors:?}");
    assert!(!fixture.lower().join("sub").exists());
    assert_eq!(fixture.apply_record(&record, Consent { force: true, privileged: false }), []);
    assert_eq!(fs::read_to_string(fixture.lower().join("sub/x")).unwrap(), "changed");
}

#[test]
fn another_file_or_directory_in_the_place_is_not_written_over() {
    let Some(fixture) = OverlayFixture::new("exchanged") else { return };
    for (path, content) in [("a/file", "seen"), ("a/old", "seen"), ("b/file", "precious"), ("b/old", "precious")] {
        fs::create_dir_all(fixture.lower().join(path).parent().unwrap()).unwrap();
        fs::write(fixture.lower().join(path), content).unwrap();
    }
    fixture.change(|merged| {
        fs::write(merged.join("a/file"), "changed").unwrap();
        fs::remove_file(merged.join("a/old")).unwrap();
    });
    // However long before the command it was written.
    let record = ChangesRecord { since: i64::MAX, ..fixture.noted() };
    fs::rename(fixture.lower().join("a"), fixture.lower().join("c")).unwrap();
    fs::rename(fixture.lower().join("b"), fixture.lower().join("a")).unwrap();
    let errors = fixture.apply_record(&record, Consent::default());
    assert_eq!(errors.len(), 2, "{errors:?}");
    for name in ["file", "old"] {
        assert_eq!(fs::read_to_string(fixture.lower().join("a").join(name)).unwrap(), "precious");
    }
}

#[test]
fn what_somebody_else_did_to_a_directory_is_nobodys_change_here() {
    let Some(fixture) = OverlayFixture::new("others-mode") else { return };
    tree(&fixture);
    fixture.change(|merged| fs::write(merged.join("kept/added"), "").unwrap());
    let record = fixture.noted();
    set_mode(&fixture.lower().join("kept"), 0o700);
    assert_eq!(lines(&apply::list(fixture.layers(), &record).unwrap().changes), "A /kept/added\n");
    assert_eq!(fixture.apply_record(&record, Consent::default()), []);
    assert_eq!(mode(&fixture.lower().join("kept")), 0o700);
}

#[test]
fn what_was_below_of_what_was_brought_is_forgotten() {
    let Some(fixture) = OverlayFixture::new("forget") else { return };
    let dir = kept(&fixture);
    let path = dir.to_str().unwrap();
    let (kept, record) = ChangesDirectory::find(path).unwrap();
    let base =
        |inner: &str| BaselineEntry { layer: 0, inner: inner.into(), ino: 1, changed: 0, since: 0, attributes: None };
    let all = ["a", "a/b", "ab", "d", "d/e"].map(base).to_vec();
    kept.add_baseline(all).unwrap();
    let brought = |inner: &str, whole| apply::AppliedChange { layer: 0, inner: inner.into(), whole };
    kept.drop_baseline(&[brought("a", true), brought("d", false)]).unwrap();
    let left = kept.record().unwrap().unwrap();
    assert_eq!(left.baseline, ["ab", "d/e"].map(base));
    assert_eq!(ChangesRecord { baseline: Vec::new(), ..left }, record);
}

#[test]
fn what_changed_in_the_very_moment_of_the_start_has_changed() {
    use std::os::unix::fs::MetadataExt;
    let Some(fixture) = OverlayFixture::new("moment") else { return };
    tree(&fixture);
    fixture.change(|merged| fs::write(merged.join("a"), "new").unwrap());
    let stat = fs::metadata(fixture.lower().join("a")).unwrap();
    let moment = stat.ctime() * 1_000_000_000 + stat.ctime_nsec();
    let apply = |since| {
        let record = ChangesRecord { since, ..fixture.record() };
        Apply::new(fixture.layers(), &record).unwrap().all(&fixture.list(), Consent::default()).len()
    };
    assert_eq!(apply(moment), 1);
    assert_eq!(apply(moment + 1), 0);
}

#[test]
fn a_directory_that_somebody_else_has_given_other_attributes_is_left_alone_and_told() {
    let Some(fixture) = OverlayFixture::new("directories") else { return };
    tree(&fixture);
    for name in ["kept", "src", "again"] {
        set_mode(&fixture.lower().join(name), 0o755);
    }
    fixture.change(|merged| {
        set_mode(merged, 0o711);
        set_mode(&merged.join("kept"), 0o700);
        set_mode(&merged.join("src"), 0o700);
        std::os::unix::fs::chown(merged.join("again"), Some(7), Some(8)).unwrap();
    });
    let record = fixture.noted();
    // New entries don't change the attributes.
    fs::write(fixture.lower().join("kept/mine"), "").unwrap();
    set_mode(&fixture.lower().join("src"), 0o750);
    std::os::unix::fs::chown(fixture.lower().join("again"), Some(9), None).unwrap();
    let apply =
        |record: &ChangesRecord, consent| Apply::new(fixture.layers(), record).unwrap().all(&fixture.list(), consent);
    let errors = apply(&record, Consent::default());
    let told: Vec<_> = errors.iter().map(|error| (error.subject.as_str(), error.code)).collect();
    assert_eq!(told, [("/again", Code::InUse), ("/src", Code::InUse)]);
    let modes = ["", "kept", "src"].map(|name| mode(&fixture.lower().join(name)));
    assert_eq!(modes, [0o711, 0o700, 0o750]);
    // Of what nothing was noted, a change since then is enough.
    let errors = apply(&ChangesRecord { baseline: Vec::new(), ..record.clone() }, Consent::default());
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert_eq!(apply(&record, Consent { force: true, privileged: false }), []);
    assert_eq!(lines(&fixture.list()), "");
}
