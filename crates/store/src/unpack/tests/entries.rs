//! Entries in odd orders, and the digest of all of them.

use super::*;

#[test]
fn the_diff_id_is_that_of_the_whole_stream() {
    let mut archive = Archive::new().file("a", "x").end();
    archive.extend_from_slice(&[7; 5000]);
    let diff_id = Digest::of(&archive);
    for packed in [archive.clone(), gzip(&archive), zstd::encode_all(&archive[..], 3).unwrap()] {
        let scratch = Scratch::new("diff-id");
        let expecting = UnpackOptions { diff_id: Some(diff_id), ..options() };
        let unpacked = unpack(&packed[..], &scratch.0.join("root"), &expecting).unwrap();
        assert_eq!((unpacked.diff_id, unpacked.size, unpacked.entries), (diff_id, archive.len() as u64, 1));
        let scratch = Scratch::new("diff-id-wrong");
        let expecting = UnpackOptions { diff_id: Some(Digest::of(b"")), ..options() };
        let error = unpack(&packed[..], &scratch.0.join("root"), &expecting).unwrap_err();
        assert_eq!(error.code, Code::ImageInvalid);
        assert!(error.to_string().contains("verify the layer"), "{error}");
    }
}

#[test]
fn the_last_of_several_entries_wins_also_when_it_is_something_else() {
    let scratch = Scratch::new("last");
    let archive = Archive::new()
        .file("a", "first")
        .file("a", "second")
        .dir("b")
        .file("b/in", "x")
        .file("b", "a file now")
        .file("c", "x")
        .dir("c")
        .file("c/in", "x")
        .symlink("d", "a")
        .file("d", "no link now")
        .file("e", "x")
        .symlink("e", "a")
        .dir("f")
        .file("f/in", "stays")
        .dir("f")
        .hard("g", "later")
        .file("g", "a file of its own")
        .file("later", "x")
        .end();
    scratch.unpack(&archive).unwrap();
    let read = |path: &str| fs::read_to_string(scratch.at(path)).unwrap();
    assert_eq!(
        (read("a"), read("b"), read("c/in"), read("d")),
        ("second".into(), "a file now".into(), "x".into(), "no link now".into())
    );
    assert_eq!(fs::read_link(scratch.at("e")).unwrap(), PathBuf::from("a"));
    assert_eq!((read("f/in"), read("g")), ("stays".into(), "a file of its own".into()));
}

#[test]
fn what_has_no_entry_of_its_own_is_root_s_and_noted() {
    let scratch = Scratch::new("implicit");
    let archive = Archive::new().file("a/b/c", "x").dir("a").symlink("l", "far/away").file("l/x", "x").end();
    let unpacked = scratch.unpack(&archive).unwrap();
    assert_eq!(unpacked.implicit, ["a/b", "far", "far/away"]);
    let meta = fs::metadata(scratch.at("a/b")).unwrap();
    assert_eq!(meta.mode() & 0o7777, 0o755);
    assert!(scratch.at("far/away/x").exists());
}
