//! Whole trees.

use super::*;

#[test]
fn a_sparse_file_is_sparse_in_every_form() {
    let scratch = Scratch::new("sparse");
    let source = scratch.0.join("outside/source");
    fs::create_dir(&source).unwrap();
    let file = fs::File::create(source.join("sparse")).unwrap();
    for part in 0..40_u64 {
        std::os::unix::fs::FileExt::write_all_at(&file, b"data", part * 1_000_003).unwrap();
    }
    file.set_len(60_000_000).unwrap();
    fs::File::create(source.join("empty")).unwrap().set_len(5_000_000).unwrap();
    for form in ["--format=gnu", "--sparse-version=0.0", "--sparse-version=0.1", "--sparse-version=1.0"] {
        let pax = form.starts_with("--sparse");
        let mut tar = Command::new("tar");
        tar.args(["-C"]).arg(&source).args(["-cSf", "-", form]).args(pax.then_some("--format=pax")).arg(".");
        let archive = tar.output().unwrap();
        assert!(archive.status.success(), "{form}");
        let _ = fs::remove_dir_all(scratch.at(""));
        fs::create_dir(scratch.at("")).unwrap();
        scratch.unpack(&archive.stdout).unwrap();
        for name in ["sparse", "empty"] {
            let (a, b) = (fs::read(source.join(name)).unwrap(), fs::read(scratch.at(name)).unwrap());
            assert!(a == b, "{form} {name}");
        }
        assert!(fs::metadata(scratch.at("sparse")).unwrap().blocks() * 512 < 4_000_000, "{form}");
    }
    fs::remove_dir_all(&source).unwrap();
}

/// A tree with everything that a layer may hold; some of it only root can make.
fn everything(base: &std::path::Path) {
    fs::create_dir_all(base.join("dir/sub")).unwrap();
    fs::write(base.join("dir/file"), "content").unwrap();
    fs::write(base.join("big"), vec![b'b'; 3_000_000]).unwrap();
    fs::write(base.join("empty"), "").unwrap();
    fs::hard_link(base.join("dir/file"), base.join("dir/sub/hard")).unwrap();
    symlink("dir/file", base.join("soft")).unwrap();
    symlink("/nowhere", base.join("dangling")).unwrap();
    fs::write(base.join("ünïcode"), "x").unwrap();
    let long = "long-".repeat(40);
    fs::create_dir_all(base.join(&long).join(&long)).unwrap();
    fs::write(base.join(&long).join(&long).join(&long), "deep").unwrap();
    symlink(format!("{long}/{long}"), base.join("long-link")).unwrap();
    fs::write(base.join("suid"), "x").unwrap();
    fs::create_dir(base.join("sticky")).unwrap();
    fs::create_dir(base.join("setgid")).unwrap();
    fs::write(base.join("setgid/in"), "x").unwrap();
    fs::create_dir(base.join("closed")).unwrap();
    fs::write(base.join("closed/in"), "x").unwrap();
    let chmod = |path: &str, mode| fs::set_permissions(base.join(path), fs::Permissions::from_mode(mode)).unwrap();
    rustix::fs::setxattr(base.join("dir/file"), "user.test", b"line\nfeed\0", rustix::fs::XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(base.join("dir"), "user.dir", b"d", rustix::fs::XattrFlags::empty()).unwrap();
    if root() {
        for (path, uid, gid) in
            [("dir/file", 1000, 2000), ("suid", 5, 6), ("setgid", 7, 8), ("soft", 9, 10), ("big", 3_000_000, 70_000)]
        {
            std::os::unix::fs::lchown(base.join(path), Some(uid), Some(gid)).unwrap();
        }
        // cap_net_raw=ep: a line feed would be among its bytes for others.
        let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0x0a, 0, 0, 0, 0, 0, 0, 0];
        rustix::fs::setxattr(base.join("big"), "security.capability", &capability, rustix::fs::XattrFlags::empty())
            .unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            base.join("device"),
            rustix::fs::FileType::CharacterDevice,
            rustix::fs::Mode::from(0o640),
            rustix::fs::makedev(1, 5),
        )
        .unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            base.join("block"),
            rustix::fs::FileType::BlockDevice,
            rustix::fs::Mode::from(0o600),
            rustix::fs::makedev(7, 200),
        )
        .unwrap();
    }
    rustix::fs::mknodat(
        rustix::fs::CWD,
        base.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from(0o620),
        0,
    )
    .unwrap();
    chmod("suid", 0o4711);
    chmod("sticky", 0o1777);
    chmod("setgid", 0o2775);
    chmod("closed", 0o500);
    for path in ["dir/file", "dir/sub", "dir", "sticky", "closed", "soft"] {
        let time = rustix::fs::Timespec { tv_sec: 1_234_567_890, tv_nsec: 123_456_789 };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(rustix::fs::CWD, base.join(path), &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

/// Everything that can be seen of a tree, a line for each name.
fn listing(base: &std::path::Path, skip: &[&str]) -> Vec<String> {
    fn walk(base: &std::path::Path, path: &std::path::Path, skip: &[&str], lines: &mut Vec<String>) {
        let meta = fs::symlink_metadata(path).unwrap();
        let kind = meta.file_type();
        let mut line = format!(
            "{} {:o} {}:{} {}.{} {:x} {}",
            path.strip_prefix(base).unwrap().display(),
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.rdev(),
            if kind.is_dir() { 0 } else { meta.nlink() }
        );
        if kind.is_symlink() {
            line += &format!(" -> {}", fs::read_link(path).unwrap().display());
        }
        if kind.is_file() {
            line += &format!(" {}", Digest::of(&fs::read(path).unwrap()));
        }
        for name in ["user.test", "user.dir", "security.capability"] {
            if let Some(value) = xattr(path, name) {
                line += &format!(" {name}={value:?}");
            }
        }
        lines.push(line);
        if kind.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                let entry = entry.unwrap();
                if !skip.iter().any(|skip| *skip == entry.file_name()) {
                    walk(base, &entry.path(), skip, lines);
                }
            }
        }
    }
    let mut lines = Vec::new();
    walk(base, base, skip, &mut lines);
    lines.sort();
    lines
}

#[test]
fn a_benign_layer_becomes_the_tree_that_it_was() {
    let scratch = Scratch::new("everything");
    let source = scratch.0.join("outside/source");
    everything(&source);
    for form in ["pax", "gnu"] {
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(&source).args(["-cf", "-", "--format", form]).args((form == "pax").then_some("--xattrs"));
        let archive = tar.args((form == "pax").then_some("--xattrs-include=*")).arg(".").output().unwrap();
        assert!(archive.status.success(), "{}", String::from_utf8_lossy(&archive.stderr));
        for packed in [archive.stdout.clone(), gzip(&archive.stdout), zstd::encode_all(&archive.stdout[..], 3).unwrap()]
        {
            gone(&scratch.at(""));
            fs::create_dir(scratch.at("")).unwrap();
            let unpacked = scratch.unpack(&packed).unwrap();
            assert_eq!(unpacked.implicit, [""; 0]);
            if form == "pax" {
                assert_eq!(listing(&source, &[]), listing(&scratch.at(""), &[]));
            } else {
                // What GNU tar itself makes of it: whole seconds, no attributes.
                let other = scratch.0.join("outside/other");
                fs::create_dir(&other).unwrap();
                let mut tar = Command::new("tar")
                    .arg("-C")
                    .arg(&other)
                    .args(["-xpf", "-"])
                    .stdin(std::process::Stdio::piped())
                    .spawn()
                    .unwrap();
                std::io::Write::write_all(&mut tar.stdin.take().unwrap(), &archive.stdout).unwrap();
                assert!(tar.wait().unwrap().success());
                assert_eq!(listing(&other, &[]), listing(&scratch.at(""), &[]));
                gone(&other);
            }
        }
    }
    gone(&source);
    scratch.untouched();
}
