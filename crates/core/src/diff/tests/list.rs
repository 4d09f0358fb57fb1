//! What is listed of a layer.

use super::*;

#[test]
fn a_real_overlay_tells_what_was_done() {
    let Some(fixture) = OverlayFixture::new("walk") else { return };
    tree(&fixture);
    fixture.change(commands);
    let expected = "C /a\nC /again/both\nD /again/old\nC /b\nD /gone\nA /kept/new\nA /kept/other\nC /link\nA /link/inside\nA /odd\\x0a\\xff\\x5c\n";
    assert_eq!(lines(&fixture.list()), expected);
    let differs: Vec<_> =
        fixture.list().into_iter().map(|change| change.differences).filter(|all| !all.is_empty()).collect();
    assert_eq!(differs, [[Difference::Content], [Difference::Content], [Difference::Mode], [Difference::Type]]);
}

#[test]
fn a_mount_point_and_the_way_to_it_are_nobodys_change_but_with_what_is_put_there() {
    let Some(fixture) = OverlayFixture::new("mounts") else { return };
    fs::create_dir_all(fixture.upper().join("srv/data")).unwrap();
    fs::create_dir_all(fixture.upper().join("opt/tool")).unwrap();
    fs::write(fixture.upper().join("opt/file"), "").unwrap();
    let points = ["/", "/srv/data", "/opt/tool", "/opt/file"];
    let record = ChangesRecord { mount_points: points.map(str::to_owned).to_vec(), ..fixture.record() };
    let listed = || lines(&list_changes(fixture.layers(), &record).unwrap().changes);
    assert_eq!(listed(), "");
    fs::write(fixture.upper().join("srv/own"), "").unwrap();
    assert_eq!(listed(), "A /srv\nA /srv/own\n");
    // By another command, for which nothing was mounted there.
    fs::write(fixture.upper().join("srv/data/kept"), "").unwrap();
    fs::write(fixture.upper().join("opt/file"), "written").unwrap();
    assert_eq!(listed(), "A /opt\nA /opt/file\nA /srv\nA /srv/data\nA /srv/data/kept\nA /srv/own\n");
    assert_eq!(fixture.apply_record(&record, Consent::default()), []);
    assert!(fixture.lower().join("srv/data/kept").exists() && !fixture.lower().join("opt/tool").exists());
}

#[test]
fn only_overlayfs_itself_makes_a_directory_opaque() {
    let Some(fixture) = OverlayFixture::new("opaque") else { return };
    tree(&fixture);
    fixture.change(|merged| fs::write(merged.join("kept/z"), "z").unwrap());
    let kept = rustix::fs::open(fixture.upper().join("kept"), OFlags::RDONLY, Mode::empty()).unwrap();
    rustix::fs::fsetxattr(&kept, "user.overlay.opaque", b"y", rustix::fs::XattrFlags::empty()).unwrap();
    fs::remove_file(fixture.upper().join("kept/z")).unwrap();
    assert_eq!(lines(&fixture.list()), "");
}

#[test]
fn a_name_can_steer_no_terminal_in_text_nor_in_json() {
    let path = "/\u{7f}\u{9b}2J\u{61c}\u{200e}\u{202e}\u{2066}é";
    let change = Change {
        kind: ChangeKind::Added,
        path: path.as_bytes().to_vec(),
        file_type: FileType::RegularFile,
        differences: Vec::new(),
        hazards: Vec::new(),
        layer: 0,
        inner: Vec::new(),
        other_names: 0,
        existing_link: None,
        unreadable: false,
    };
    let expected = r#"[{"kind":"added","path":"/\u007f\u009b2J\u061c\u200e\u202e\u2066é","type":"file"}]"#;
    let json = json(std::slice::from_ref(&change)).unwrap();
    assert_eq!(json, expected);
    let read: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(read[0]["path"], path);
    assert_eq!(lines(&[change]), "A /\\x7f\\xc2\\x9b2J\\xd8\\x9c\\xe2\\x80\\x8e\\xe2\\x80\\xae\\xe2\\x81\\xa6é\n");
}

#[test]
fn what_is_nested_too_deep_is_told_as_that() {
    let Some(fixture) = OverlayFixture::new("deep") else { return };
    let deep = |top: PathBuf| {
        let mut path = top.join("top");
        for _ in 0..1600 {
            path.push("d");
        }
        fs::create_dir_all(path).unwrap();
    };
    deep(fixture.lower());
    // Deeper than the stack of a test's thread.
    let work = || {
        let whiteout = fixture.upper().join("top");
        let device = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, &whiteout, device, Mode::empty(), 0).unwrap();
        let errors = fixture.apply(Consent { force: true, privileged: false });
        assert_eq!(errors.len(), 1);
        assert!(errors[0].to_string().contains("nested too deep"), "{errors:?}");
        assert!(fixture.lower().join("top/d").exists());
        fs::remove_file(whiteout).unwrap();
        deep(fixture.upper());
        let error = list_changes(fixture.layers(), &fixture.record()).unwrap_err();
        assert!(error.to_string().contains("nested too deep"), "{error}");
    };
    std::thread::scope(|scope| {
        std::thread::Builder::new().stack_size(256 << 20).spawn_scoped(scope, work).unwrap().join().unwrap();
    });
}

#[test]
fn what_was_made_for_the_command_is_nobodys_change_but_what_is_in_it_is() {
    let Some(fixture) = OverlayFixture::new("made") else { return };
    tree(&fixture);
    fixture.change(|merged| {
        fs::create_dir_all(merged.join("new/work/own")).unwrap();
        fs::create_dir_all(merged.join("kept/volume")).unwrap();
        fs::create_dir(merged.join("new/workshop")).unwrap();
        fs::write(merged.join("kept/volume/file"), "").unwrap();
    });
    let record = ChangesRecord { made: vec!["/kept/volume".into(), "/new/work".into()], ..fixture.record() };
    let changes = list_changes(fixture.layers(), &record).unwrap().changes;
    let all = ["/kept/volume", "/kept/volume/file", "/new", "/new/work", "/new/work/own", "/new/workshop"];
    assert_eq!(lines(&changes), all.map(|path| format!("A {path}\n")).concat());
}
