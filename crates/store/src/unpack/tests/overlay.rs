//! Whiteouts, in overlayfs's form.

use super::*;

#[test]
fn whiteouts_and_opaque_directories_take_the_form_of_overlayfs() {
    let prefix = if root() { "trusted" } else { "user" };
    let opaque = format!("{prefix}.overlay.opaque");
    let scratch = Scratch::new("whiteouts");
    let archive = Archive::new()
        .file("etc/.wh.gone", "")
        .file("var/.wh..wh..opq", "")
        .file("var/new", "x")
        // Gone below, and there again: a file hides it anyway, a directory must be marked opaque.
        .file(".wh.file", "")
        .file("file", "x")
        .file(".wh.dir", "")
        .dir("dir")
        .file("dir/in", "x")
        .file(".wh.by-content", "")
        .file("by-content/in", "x")
        .dir("before")
        .file(".wh.before", "")
        .file("before-file", "x")
        .file(".wh.before-file", "")
        .end();
    let unpacked = scratch.unpack(&archive).unwrap();
    assert!(!unpacked.opaque && !unpacked.xattr_whiteouts);
    let gone = fs::symlink_metadata(scratch.at("etc/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    for path in ["var", "dir", "by-content", "before"] {
        assert_eq!(xattr(&scratch.at(path), &opaque).as_deref(), Some(&b"y"[..]), "{path}");
    }
    assert_eq!(xattr(&scratch.at("etc"), &opaque), None);
    for path in ["file", "before-file"] {
        assert_eq!(fs::read_to_string(scratch.at(path)).unwrap(), "x");
    }
    let scratch = Scratch::new("opaque-root");
    assert!(scratch.unpack(&Archive::new().file(".wh..wh..opq", "").end()).unwrap().opaque);
}

#[test]
fn xattrs_of_overlayfs_s_own_are_left_out() {
    let scratch = Scratch::new("own-xattrs");
    let xattrs = vec![
        (b"trusted.overlay.redirect".to_vec(), b"/etc".to_vec()),
        (b"user.overlay.whiteout".to_vec(), b"y".to_vec()),
        (b"user.mine".to_vec(), b"a\nb".to_vec()),
        (b"security.selinux".to_vec(), b"x".to_vec()),
    ];
    let archive = Archive::new().put(&TarEntry { xattrs, ..entry(EntryKind::File, b"f") }, b"").end();
    assert_eq!(scratch.unpack(&archive).unwrap().dropped_xattrs, 3);
    assert_eq!(xattr(&scratch.at("f"), "user.mine").as_deref(), Some(&b"a\nb"[..]));
    assert_eq!(xattr(&scratch.at("f"), "user.overlay.whiteout"), None);
}

/// What overlayfs shows of these layers, lowest first; `None` where it can't be mounted here.
fn mounted(layers: &[PathBuf], at: &std::path::Path) -> Option<String> {
    let lower: Vec<&str> = layers.iter().rev().map(|layer| layer.to_str().unwrap()).collect();
    let xattrs = if root() { "" } else { "userxattr," };
    let script = format!(
        "mount -t overlay overlay -o {xattrs}lowerdir={} '{}' && cd '{1}' && find . | sort",
        lower.join(":"),
        at.display()
    );
    let unshare: &[&str] = if root() { &["-m"] } else { &["-Urm"] };
    let output = Command::new("unshare").args(unshare).args(["sh", "-c", &script]).output().unwrap();
    if !output.status.success() {
        println!("{}", String::from_utf8_lossy(&output.stderr));
        nsrs_testing::leave_out("the kernel mounts no overlay for this user");
        return None;
    }
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn the_kernel_s_overlay_sees_what_was_meant() {
    let scratch = Scratch::new("overlay");
    let layer = |name: &str, archive: Archive| {
        let path = scratch.0.join("outside").join(name);
        fs::create_dir(&path).unwrap();
        unpack(&archive.end()[..], &path, &options()).unwrap();
        path
    };
    let below = || {
        Archive::new()
            .file("a", "1")
            .file("d/x", "1")
            .file("d/y", "1")
            .file("e/old", "1")
            .file("f/old", "1")
            .file("g", "1")
    };
    let lower = layer("lower", below());
    let upper = layer(
        "upper",
        Archive::new()
            .file(".wh.a", "")
            .file("d/.wh.x", "")
            .file("e/.wh..wh..opq", "")
            .file("e/new", "2")
            .file(".wh.f", "")
            .file("f/new", "2"),
    );
    let meant = ".\n./d\n./d/y\n./e\n./e/new\n./f\n./f/new\n./g\n";
    if let Some(seen) = mounted(&[lower.clone(), upper], &scratch.at("")) {
        assert_eq!(seen, meant);
    }
    // The form for where no device can be made.
    let other = layer("other", Archive::new().dir("d").file("g", "2"));
    let own = options();
    let mut place = unpacker::Unpacker::open(&other, &own).unwrap();
    for (directory, name) in [("", "a"), ("d", "x"), ("", "e"), ("", "f")] {
        let directory = place.destination.directory(directory.as_bytes()).unwrap();
        place.xattr_whiteout(&directory, name.as_bytes()).unwrap();
    }
    if let Some(seen) = mounted(&[lower, other], &scratch.at("")) {
        assert_eq!(seen, ".\n./d\n./d/y\n./g\n");
    }
    gone(&scratch.0.join("outside"));
    fs::create_dir(scratch.0.join("outside")).unwrap();
}
