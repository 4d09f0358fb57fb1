//! An apply that was ended, and the next one.

use super::*;

#[test]
fn an_apply_goes_on_where_one_was_that_was_killed() {
    alone!();
    for moment in [1, 3, 6, 10, 15, 25] {
        let Some(fixture) = OverlayFixture::new("go-on") else { return };
        tree(&fixture);
        fs::create_dir(fixture.lower().join("src/own")).unwrap();
        fixture.change(|merged| {
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
        let record = ChangesRecord { since: now(), ..fixture.noted() };
        let apply = || {
            let listed = super::apply::list(fixture.layers(), &record).unwrap();
            Apply::new(fixture.layers(), &record)
                .unwrap()
                .with_leftovers_of(&listed)
                .all(&listed.changes, Consent::default())
        };
        let child = nsrs_base::sys::child::spawn(0, || apply().len().try_into().unwrap_or(1)).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(moment));
        child.kill();
        child.wait(None).unwrap();
        assert_eq!(apply(), [], "after {moment} ms");
        assert_eq!(lines(&fixture.list()), "");
        let left = std::process::Command::new("find").arg(fixture.lower()).args(["-name", ".nsrs-*"]).output().unwrap();
        assert!(left.stdout.is_empty(), "{left:?}");
    }
}

#[test]
fn what_an_ended_apply_has_left_goes_with_the_next_and_is_no_change() {
    let Some(fixture) = OverlayFixture::new("left") else { return };
    tree(&fixture);
    let lower = fixture.lower();
    set_mode(&lower.join("src"), 0o750);
    fixture.change(|merged| {
        fs::remove_dir_all(merged.join("again")).unwrap();
        fs::create_dir(merged.join("again")).unwrap();
        fs::write(merged.join("kept/new"), "").unwrap();
        set_mode(&merged.join("src"), 0o711);
        std::os::unix::fs::chown(merged.join("src"), Some(7), Some(8)).unwrap();
    });
    let record = fixture.noted();
    let record = ChangesRecord { since: now(), ..record };
    // Between owner and mode.
    std::os::unix::fs::chown(lower.join("src"), Some(7), Some(8)).unwrap();
    let ino = rustix::fs::fstat(fixture.layers()).unwrap().st_ino;
    let temporary = format!(".nsrs-apply-{:x}-{ino:x}", record.since);
    fs::create_dir_all(lower.join("again").join(&temporary).join("deep")).unwrap();
    fs::write(lower.join(&temporary), "half").unwrap();
    fs::write(lower.join("kept").join(".nsrs-apply-1-1"), "another's").unwrap();
    let listed = super::apply::list(fixture.layers(), &record).unwrap();
    assert_eq!(lines(&listed.changes), "D /again/both\nD /again/old\nA /kept/new\nC /src\n");
    let mut apply = Apply::new(fixture.layers(), &record).unwrap().with_leftovers_of(&listed);
    assert_eq!(apply.all(&listed.changes, Consent::default()), []);
    assert!(!lower.join(&temporary).exists() && fs::read_dir(lower.join("again")).unwrap().next().is_none());
    assert!(lower.join("kept/.nsrs-apply-1-1").exists());
    assert_eq!(mode(&lower.join("src")), 0o711);
    let listed = super::apply::list(fixture.layers(), &record).unwrap();
    assert_eq!(lines(&listed.changes), "");
}

#[test]
fn an_ended_removal_is_told_and_gone_on_with() {
    let Some(fixture) = OverlayFixture::new("rest") else { return };
    let dir = kept(&fixture);
    fs::create_dir_all(dir.join("layers.gone/0/work/work")).unwrap();
    fs::remove_dir(dir.join("layers")).unwrap();
    fs::remove_file(dir.join("changes.json")).unwrap();
    let path = dir.to_str().unwrap();
    let error = ChangesDirectory::find(path).unwrap_err();
    assert!(error.to_string().contains("some files remain"), "{error}");
    assert_eq!(ChangesDirectory::find_any(path).unwrap().discard().unwrap(), Vec::<String>::new());
    assert!(!dir.exists());
    fs::create_dir(&dir).unwrap();
    set_mode(&dir, 0o700);
    fs::write(dir.join("mine"), "").unwrap();
    assert!(ChangesDirectory::find_any(path).unwrap_err().to_string().contains("no changes are kept"));
}

#[test]
fn a_directory_that_can_be_removed_in_part_only_stays_whole() {
    alone!();
    let Some(fixture) = OverlayFixture::new("in-part") else { return };
    tree(&fixture);
    let lower = fixture.lower();
    fs::create_dir_all(lower.join("gone/theirs")).unwrap();
    fs::write(lower.join("gone/theirs/file"), "").unwrap();
    fs::create_dir_all(lower.join("again/empty")).unwrap();
    fixture.change(|merged| {
        fs::remove_dir_all(merged.join("gone")).unwrap();
        fs::remove_dir_all(merged.join("again")).unwrap();
    });
    give_all(&fixture);
    for name in ["gone/theirs", "again/empty"] {
        std::os::unix::fs::chown(lower.join(name), Some(7), Some(7)).unwrap();
        set_mode(&lower.join(name), 0o755);
    }
    as_user(|| {
        for force in [false, true] {
            let errors = fixture.apply(Consent { force, privileged: false });
            let told: Vec<_> = errors.iter().map(|error| (error.subject.as_str(), error.errno)).collect();
            assert_eq!(told, [("/gone", Some(libc::EACCES))]);
        }
    });
    assert!(["gone/x/y", "gone/theirs/file"].iter().all(|name| lower.join(name).exists()));
    assert!(!lower.join("again").exists());
}
