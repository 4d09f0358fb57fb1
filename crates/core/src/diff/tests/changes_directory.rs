//! Changes that are kept in a directory.

use super::*;

#[test]
fn a_record_that_somebody_else_could_have_written_is_refused() {
    let Some(fixture) = OverlayFixture::new("trust") else { return };
    let dir = kept(&fixture);
    let record = dir.join("changes.json");
    let why = || ChangesDirectory::find(dir.to_str().unwrap()).err().map(|error| error.to_string()).unwrap_or_default();
    assert_eq!(why(), "");
    for path in [&dir, &record] {
        let was = mode(path);
        std::os::unix::fs::chown(path, Some(1000), None).unwrap();
        assert!(why().contains("owned by user 1000"), "{}", why());
        std::os::unix::fs::chown(path, Some(0), None).unwrap();
        set_mode(path, was | 0o020);
        assert!(why().contains("writable by other users"), "{}", why());
        set_mode(path, was);
        assert_eq!(why(), "");
    }
    fs::hard_link(&record, fixture.0.join("other")).unwrap();
    assert!(why().contains("other names"), "{}", why());
}

#[test]
fn a_link_that_came_into_the_path_of_the_real_tree_is_refused() {
    let Some(fixture) = OverlayFixture::new("path") else { return };
    tree(&fixture);
    fixture.change(|merged| fs::write(merged.join("new"), "x").unwrap());
    let record = fixture.record();
    fs::create_dir(fixture.0.join("victim")).unwrap();
    fs::rename(fixture.lower(), fixture.0.join("aside")).unwrap();
    symlink("victim", fixture.lower()).unwrap();
    let error = Apply::new(fixture.layers(), &record).unwrap_err();
    assert!(error.to_string().contains("has a link"), "{error}");
}

#[test]
fn only_what_is_ours_is_discarded_and_only_where_it_still_is() {
    let Some(fixture) = OverlayFixture::new("discard") else { return };
    let dir = kept(&fixture);
    fs::create_dir_all(dir.join("layers/0/work/work")).unwrap();
    fs::write(dir.join("notes"), "mine").unwrap();
    let (held, _) = ChangesDirectory::find(dir.to_str().unwrap()).unwrap();
    assert_eq!(held.discard().unwrap(), ["notes"]);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    fs::remove_file(dir.join("notes")).unwrap();
    fs::rename(&dir, fixture.0.join("aside")).unwrap();
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("theirs"), "").unwrap();
    assert!(held.discard().unwrap_err().to_string().contains("was replaced"));
    assert!(dir.join("theirs").exists());
    fs::remove_dir_all(&dir).unwrap();
    fs::rename(fixture.0.join("aside"), &dir).unwrap();
    assert_eq!(held.discard().unwrap(), Vec::<String>::new());
    assert!(!dir.exists());
}
