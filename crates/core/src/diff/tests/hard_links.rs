//! Files with several names.

use super::*;

#[test]
fn another_name_of_an_unchanged_file_becomes_one_in_the_real_tree() {
    let Some(fixture) = OverlayFixture::new("names") else { return };
    tree(&fixture);
    let lower = fixture.lower();
    fs::hard_link(lower.join("b"), lower.join("b2")).unwrap();
    fs::write(lower.join("same2"), "same").unwrap();
    fixture.change(|merged| {
        fs::hard_link(merged.join("a"), merged.join("hard")).unwrap();
        fs::hard_link(merged.join("link"), merged.join("kept/link")).unwrap();
        fs::remove_file(merged.join("kept/z")).unwrap();
        fs::hard_link(merged.join("b"), merged.join("kept/z")).unwrap();
        // As one that looks for duplicates does.
        fs::remove_file(merged.join("same2")).unwrap();
        fs::hard_link(merged.join("same"), merged.join("same2")).unwrap();
    });
    let record = ChangesRecord { since: now(), ..fixture.record() };
    assert_eq!(lines(&fixture.list()), "A /hard\nA /kept/link\nC /kept/z\nC /same2\n");
    assert_eq!(fixture.list()[3].differences, [Difference::Links]);
    assert_eq!(fixture.apply_record(&record, Consent::default()), []);
    for (one, other) in [("a", "hard"), ("link", "kept/link"), ("b", "kept/z"), ("b", "b2"), ("same", "same2")] {
        assert_eq!(ino(&lower.join(one)), ino(&lower.join(other)), "{one} {other}");
    }
    assert_eq!(lines(&fixture.list()), "");
}

#[test]
fn a_name_is_given_to_no_file_that_has_changed_or_was_exchanged() {
    let Some(fixture) = OverlayFixture::new("exchanged") else { return };
    tree(&fixture);
    fixture.change(|merged| fs::hard_link(merged.join("a"), merged.join("hard")).unwrap());
    let (record, changes) = (fixture.record(), fixture.list());
    fs::remove_file(fixture.lower().join("a")).unwrap();
    symlink("/etc/passwd", fixture.lower().join("a")).unwrap();
    assert_eq!(Apply::new(fixture.layers(), &record).unwrap().all(&changes, Consent::default()), []);
    assert_eq!(fs::read_to_string(fixture.lower().join("hard")).unwrap(), "a");
    assert!(fs::symlink_metadata(fixture.lower().join("hard")).unwrap().is_file());
}

#[test]
fn a_changed_file_with_other_names_is_told_and_needs_force() {
    let Some(fixture) = OverlayFixture::new("other-names") else { return };
    tree(&fixture);
    let lower = fixture.lower();
    for (one, other) in [("a", "a2"), ("b", "b2"), ("same", "same2"), ("src/deep/f", "f2")] {
        fs::hard_link(lower.join(one), lower.join(other)).unwrap();
    }
    fixture.change(|merged| {
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
    let record = ChangesRecord { since: now(), ..fixture.record() };
    let changes = fixture.list();
    let told: Vec<_> = changes.iter().map(|change| change.other_names).collect();
    assert_eq!(lines(&changes), "C /a\nC /b\nC /b2\nC /f2\nC /same\nD /src/deep/f\n");
    assert_eq!(told, [1, 0, 0, 0, 0, 0]);
    assert!(warnings(&changes).contains("/a is a hard link; the file's other name keeps its content"));
    let errors = fixture.apply_record(&record, Consent::default());
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].to_string().contains("hard link"), "{errors:?}");
    let read = |name: &str| fs::read_to_string(lower.join(name)).unwrap();
    assert_eq!(["a", "b", "b2", "f2", "same2"].map(read), ["a", "changed", "too", "changed", "same"]);
    assert_eq!(fixture.apply_record(&record, Consent { force: true, privileged: false }), []);
    assert_eq!(["a", "a2"].map(read), ["changed", "a"]);
    assert_eq!(lines(&fixture.list()), "");
}

#[test]
fn a_file_that_lost_a_name_to_an_earlier_apply_has_not_changed() {
    let Some(fixture) = OverlayFixture::new("lost") else { return };
    tree(&fixture);
    fs::hard_link(fixture.lower().join("a"), fixture.lower().join("two")).unwrap();
    fixture.change(|merged| {
        fs::write(merged.join("a"), "one").unwrap();
        set_mode(&merged.join("a"), 0o4755);
        fs::write(merged.join("two"), "two").unwrap();
    });
    let mut record = ChangesRecord { since: now(), ..fixture.record() };
    let changes = fixture.list();
    let mut apply = Apply::new(fixture.layers(), &record).unwrap();
    let known = apply.add_linked_files(&changes);
    assert_eq!(apply.all(&changes, Consent::default()).len(), 1);
    drop(apply);
    record.linked_files = known;
    assert_eq!(fixture.apply_record(&record, Consent { force: false, privileged: true }), []);
    assert_eq!(lines(&fixture.list()), "");
    // What somebody writes is another matter.
    fs::write(fixture.lower().join("two"), "mine").unwrap();
    assert_eq!(fixture.apply_record(&record, Consent { force: false, privileged: true }).len(), 1);
}
