//! An ordinary user's apply.

use super::*;

#[test]
fn what_is_closed_to_its_own_owner_is_brought_and_stays_closed() {
    alone!();
    let Some(fixture) = OverlayFixture::new("closed") else { return };
    tree(&fixture);
    let lower = fixture.lower();
    fs::create_dir(lower.join("shut")).unwrap();
    fs::write(lower.join("shut/old"), "old").unwrap();
    fs::create_dir(lower.join("empty")).unwrap();
    set_mode(&lower.join("shut"), 0o000);
    fixture.change(|merged| {
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
    give_all(&fixture);
    as_user(|| {
        let expected = "C /a\nA /closed\nA /closed/in\nA /closed/in/x\nC /empty\nC /kept\nA /kept/none\nA /shut/new\nD /shut/old\n";
        assert_eq!(lines(&fixture.list()), expected);
        assert_eq!(fixture.apply(Consent::default()), []);
        assert_eq!(lines(&fixture.list()), "", "nothing is left to apply");
    });
    let modes = ["closed", "closed/in", "shut", "empty", "a", "kept", "kept/none"].map(|name| mode(&lower.join(name)));
    assert_eq!(modes, [0o000, 0o500, 0o000, 0o000, 0o000, 0o100, 0o000]);
    assert_eq!(fs::read_to_string(lower.join("closed/in/x")).unwrap(), "x");
    assert_eq!(fs::read_to_string(lower.join("kept/none")).unwrap(), "none");
    assert!(lower.join("shut/new").exists() && !lower.join("shut/old").exists());
}

#[test]
fn what_belongs_to_others_is_left_out_and_told_and_the_rest_is_brought() {
    alone!();
    let Some(fixture) = OverlayFixture::new("others") else { return };
    tree(&fixture);
    fixture.change(|merged| {
        fs::write(merged.join("mine"), "").unwrap();
        fs::create_dir(merged.join("theirs")).unwrap();
        fs::write(merged.join("theirs/file"), "").unwrap();
        set_mode(&merged.join("theirs"), 0o700);
        fs::write(merged.join("b"), "x").unwrap();
        set_mode(&merged.join("b"), 0o600);
        fs::write(merged.join("src/deep/f"), "x").unwrap();
        set_mode(&merged.join("src"), 0o755);
    });
    give_all(&fixture);
    for name in ["theirs", "b", "src/deep"] {
        std::os::unix::fs::chown(fixture.upper().join(name), Some(7), Some(7)).unwrap();
        set_mode(&fixture.upper().join(name), 0o700);
    }
    as_user(|| {
        let changes = super::apply::list(fixture.layers(), &fixture.record()).unwrap().changes;
        assert_eq!(lines(&changes), "C /b\nA /mine\nC /src/deep\nA /theirs\n");
        let record = fixture.record();
        let errors = Apply::new(fixture.layers(), &record).unwrap().all(&changes, Consent::default());
        let told: Vec<_> = errors.iter().map(|error| (error.subject.as_str(), error.errno)).collect();
        assert_eq!(told, ["/b", "/src/deep", "/theirs"].map(|name| (name, Some(libc::EACCES))));
        assert!(fixture.lower().join("mine").exists() && !fixture.lower().join("theirs").exists());
    });
}
