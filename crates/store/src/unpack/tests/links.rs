//! Hard links and symbolic ones.

use super::*;

#[test]
fn links_that_were_written_through_stay_links_or_become_files_of_the_image() {
    let scratch = Scratch::new("through");
    scratch.unpack(&Archive::new().symlink("l", "../canary").file("l", "new").end()).unwrap();
    assert!(fs::symlink_metadata(scratch.at("l")).unwrap().is_file());
    scratch.untouched();
}

#[test]
fn a_long_chain_of_hard_links_to_what_comes_later_takes_no_long_time() {
    // By the names as they are, and by way of a link, so that the same name is never written twice.
    for by in ["", "s/"] {
        let many = 10_000;
        let mut archive = Archive::new().symlink("s", ".");
        for number in 0..many {
            archive = archive.hard(format!("l{number:05}"), format!("{by}l{:05}", number + 1));
        }
        let scratch = Scratch::new("chain");
        let start = std::time::Instant::now();
        scratch.unpack(&archive.file(format!("l{many:05}"), "x").end()).unwrap();
        assert!(start.elapsed() < std::time::Duration::from_secs(15), "{:?}", start.elapsed());
        assert_eq!(fs::metadata(scratch.at("l00000")).unwrap().nlink(), many + 1);
    }
}

#[test]
fn hard_links_come_in_any_order() {
    let scratch = Scratch::new("links");
    let archive = Archive::new()
        .hard("z", "y")
        .hard("y", "d/x")
        .hard("b", "/d/./x")
        .file("d/x", "one")
        .hard("after", "d/x")
        .symlink("s", "d")
        .hard("by-link", "s/x")
        .symlink("sl", "nowhere")
        .hard("hard-to-link", "sl")
        .end();
    scratch.unpack(&archive).unwrap();
    let inode = |path: &str| fs::symlink_metadata(scratch.at(path)).unwrap().ino();
    for path in ["z", "y", "b", "after", "by-link"] {
        assert_eq!(inode(path), inode("d/x"), "{path}");
    }
    assert_eq!(inode("hard-to-link"), inode("sl"));
}

#[test]
fn a_hard_link_to_a_device_that_is_left_out_is_left_out_too() {
    let scratch = Scratch::new("device-link");
    let device = TarEntry { device: (1, 3), ..entry(EntryKind::CharDevice, b"null") };
    let archive = Archive::new().hard("before", "null").put(&device, b"").hard("after", "null").file("file", "x").end();
    let own = UnpackOptions { devices: false, ..options() };
    let unpacked = unpack(&archive[..], &scratch.at(""), &own).unwrap();
    assert_eq!(unpacked.skipped_devices, 3);
    assert!(scratch.at("file").exists() && !scratch.at("after").exists());
}

#[test]
fn a_hard_link_to_itself_is_none_unless_it_is_there() {
    let scratch = Scratch::new("self-link");
    let error = scratch.unpack(&Archive::new().hard("a", "./a").end()).unwrap_err();
    assert!(error.to_string().contains("which isn't in the layer"), "{error}");
    let scratch = Scratch::new("self-link-there");
    scratch.unpack(&Archive::new().file("a", "x").hard("a", "a").end()).unwrap();
    assert_eq!(fs::read(scratch.at("a")).unwrap(), b"x");
}
