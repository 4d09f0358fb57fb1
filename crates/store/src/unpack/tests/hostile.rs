//! Archives that try to get out, to exhaust or to confuse.

use super::*;

/// A header with fields that no writer writes.
fn raw(change: impl FnOnce(&mut tar::Header)) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..4].copy_from_slice(b"name");
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header.set_entry_type(tar::EntryType::Regular);
    change(&mut header);
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn extended(records: &[u8]) -> Vec<u8> {
    let mut bytes = raw(|header| {
        header.set_entry_type(tar::EntryType::XHeader);
        header.set_size(records.len() as u64);
    });
    bytes.extend_from_slice(records);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// What an archive must come to.
enum Comes {
    /// This text is in the error.
    Error(&'static str),
    /// It is unpacked, and this path is in the tree.
    Tree(&'static str),
}

/// Archives that try to get out, to exhaust or to confuse, each with a name for the file of the fuzzer's corpus.
fn hostile() -> Vec<(&'static str, Vec<u8>, Comes)> {
    use Comes::{Error, Tree};
    let new = Archive::new;
    let record = |key: &str, value: &[u8]| {
        let mut bytes = Vec::new();
        crate::tar::pax::push(&mut bytes, key.as_bytes(), value);
        bytes
    };
    vec![
        ("dotdot", new().file("../canary", "dead").end(), Error("leads out")),
        ("dotdot-deep", new().dir("a").file("a/../../canary", "dead").end(), Error("leads out")),
        ("dotdot-inside", new().dir("a").file("a/../b", "x").end(), Tree("b")),
        ("absolute", new().file("/etc/canary", "x").end(), Tree("etc/canary")),
        ("absolute-dotdot", new().file("/../canary", "dead").end(), Error("leads out")),
        ("through-link", new().symlink("l", "../outside").file("l/x", "x").end(), Tree("outside/x")),
        ("through-absolute-link", new().symlink("l", "/outside").file("l/x", "x").end(), Tree("outside/x")),
        (
            "through-far-link",
            new().symlink("l", "../../../../../../../tmp").file("l/nsrs-x", "x").end(),
            Tree("tmp/nsrs-x"),
        ),
        (
            "through-two-links",
            new().symlink("a", "..").symlink("b", "a/a/outside").file("b/x", "x").end(),
            Tree("outside/x"),
        ),
        ("link-then-dir", new().symlink("l", "../outside").dir("l").file("l/x", "x").end(), Tree("l/x")),
        ("write-through-link", new().symlink("l", "../canary").file("l", "dead").end(), Tree("l")),
        ("write-through-hard-link", new().symlink("l", "../canary").hard("h", "l").file("h", "dead").end(), Tree("h")),
        ("hard-link-outside", new().hard("h", "../canary").end(), Error("leads out")),
        (
            "hard-link-through-link",
            new().symlink("l", "..").hard("h", "l/canary").end(),
            Error("which isn't in the layer"),
        ),
        ("hard-link-absolute", new().hard("h", "/etc/passwd").end(), Error("which isn't in the layer")),
        ("hard-link-to-directory", new().dir("d").hard("h", "d").end(), Error("hard link to the directory")),
        ("hard-link-to-root", new().hard("h", ".").end(), Error("hard link to the root")),
        ("hard-link-ring", new().hard("a", "b").hard("b", "a").end(), Error("which isn't in the layer")),
        ("hard-link-to-itself", new().file("a", "x").hard("a", "a").end(), Tree("a")),
        ("link-loop", new().symlink("a", "b").symlink("b", "a").file("a/x", "x").end(), Error("ELOOP")),
        ("link-to-itself", new().symlink("a", "a/a").file("a/a/a", "x").end(), Error("ELOOP")),
        ("link-to-nothing", new().link(EntryKind::Symlink, "a", "").end(), Error("link to nothing")),
        ("magic-link", new().symlink("a", "/proc/self/cwd").file("a/x", "x").end(), Tree("proc/self/cwd/x")),
        ("root-as-file", new().file(".", "x").end(), Error("root is not a directory")),
        ("root-as-link", new().symlink("./", "../outside").end(), Error("root is not a directory")),
        ("file-in-file", new().file("a", "x").file("a/b", "x").end(), Error("stands in its way")),
        (
            "fifo-as-parent",
            new().put(&entry(EntryKind::Fifo, b"a"), b"").file("a/b", "x").end(),
            Error("stands in its way"),
        ),
        ("fifo-replaced", new().put(&entry(EntryKind::Fifo, b"a"), b"").file("a", "x").end(), Tree("a")),
        (
            "device-replaced",
            new().put(&TarEntry { device: (1, 3), ..entry(EntryKind::CharDevice, b"a") }, b"").file("a", "x").end(),
            Tree("a"),
        ),
        ("fifo-as-root", new().put(&entry(EntryKind::Fifo, b"."), b"").end(), Error("root is not a directory")),
        (
            "fifo-over-directory",
            new().dir("a").file("a/b", "x").put(&entry(EntryKind::Fifo, b"a"), b"").end(),
            Tree("a"),
        ),
        (
            // To open it would be to wait for good.
            "write-through-hard-link-to-fifo",
            new().put(&entry(EntryKind::Fifo, b"a"), b"").hard("h", "a").file("h", "x").end(),
            Tree("h"),
        ),
        (
            "fifo-as-whiteout",
            new().dir("a").put(&entry(EntryKind::Fifo, b".wh.a"), b"").file("b", "x").end(),
            Tree("b"),
        ),
        (
            "device-as-parent",
            new().put(&TarEntry { device: (1, 3), ..entry(EntryKind::CharDevice, b"a") }, b"").file("a/b", "x").end(),
            // Who may make no devices leaves them out.
            if root() { Error("stands in its way") } else { Tree("a/b") },
        ),
        (
            "device-as-root",
            new().put(&TarEntry { device: (8, 0), ..entry(EntryKind::BlockDevice, b"./") }, b"").end(),
            Error("root is not a directory"),
        ),
        (
            "hard-link-to-device",
            new().put(&TarEntry { device: (8, 0), ..entry(EntryKind::BlockDevice, b"a") }, b"").hard("h", "a").end(),
            // A link to what is left out is left out as well.
            if root() { Tree("h") } else { Tree("") },
        ),
        (
            // The device that is overlayfs's whiteout, as an entry of its own.
            "whiteout-device",
            new().file("b", "x").put(&entry(EntryKind::CharDevice, b"b"), b"").file("c", "x").end(),
            Tree("c"),
        ),
        ("whiteout-of-dotdot", new().file(".wh...", "").end(), Error("whiteout without a name")),
        ("whiteout-of-dot", new().file("a/.wh..", "").end(), Error("whiteout without a name")),
        ("whiteout-of-nothing", new().file("a/.wh.", "").end(), Error("whiteout without a name")),
        ("whiteout-outside", new().file("../.wh.canary", "").end(), Error("leads out")),
        ("whiteout-through-link", new().symlink("l", "../").file("l/.wh.canary", "").end(), Tree("canary")),
        ("whiteout-as-directory", new().dir(".wh.x").file(".wh.x/y", "").end(), Error("inside a whiteout")),
        ("opaque-outside", new().symlink("l", "../outside").file("l/.wh..wh..opq", "").end(), Tree("outside")),
        ("aufs", new().file(".wh..wh.plnk", "").file("x", "").end(), Tree("x")),
        ("long-name", new().file(vec![b'n'; 10_000], "x").end(), Error("longer than")),
        ("long-path", new().file(b"n/".repeat(5_000), "x").end(), Error("longer than")),
        ("long-component", new().file(vec![b'n'; 256], "x").end(), Error("longer than")),
        ("long-link", new().symlink("l", vec![b'n'; 10_000]).end(), Error("ENAMETOOLONG")),
        ("nul-in-pax-path", [extended(&record("path", b"a\0b")), raw(|_| {})].concat(), Error("zero byte")),
        ("pax-size-negative", [extended(&record("size", b"-1")), raw(|_| {})].concat(), Error("not a number")),
        (
            "pax-size-huge",
            [extended(&record("size", b"18446744073709551615")), raw(|_| {})].concat(),
            Error("larger than a file"),
        ),
        (
            "pax-size-overflow",
            [extended(&record("size", b"99999999999999999999999")), raw(|_| {})].concat(),
            Error("not a number"),
        ),
        (
            "pax-size-longer",
            [extended(&record("size", b"100000")), raw(|_| {}), new().file("x", "y").end()].concat(),
            Error("truncated"),
        ),
        (
            "pax-size-hides-a-header",
            [extended(&record("size", b"512")), raw(|_| {}), new().file("../canary", "dead").end()].concat(),
            Error("wrong checksum"),
        ),
        ("pax-length-lie", [extended(b"99 path=x\n"), raw(|_| {})].concat(), Error("malformed record")),
        ("pax-garbage", [extended(b"\xff\xfe\xfd"), raw(|_| {})].concat(), Error("malformed record")),
        ("pax-path-dotdot", [extended(&record("path", b"../canary")), raw(|_| {})].concat(), Error("leads out")),
        (
            "pax-endless",
            raw(|header| {
                header.set_entry_type(tar::EntryType::XHeader);
                header.set_size(10 << 30);
            }),
            Error("claims 10737418240 bytes"),
        ),
        (
            "name-endless",
            raw(|header| {
                header.set_entry_type(tar::EntryType::GNULongName);
                header.set_size(1 << 40);
            }),
            Error("claims"),
        ),
        ("extended-at-the-end", extended(&record("path", b"x")), Error("follows an extended header")),
        (
            "size-negative",
            raw(|header| header.as_old_mut().size = *b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
            Error("is negative"),
        ),
        ("size-longer", raw(|header| header.set_size(1_000_000)), Error("truncated")),
        ("uid-minus-one", raw(|header| header.set_uid(u64::from(u32::MAX))), Error("not a valid id")),
        ("uid-wraps-to-root", raw(|header| header.set_uid(1 << 32)), Error("not a valid id")),
        (
            "checksum",
            {
                let mut bytes = raw(|_| {});
                bytes[0] = b'X';
                bytes
            },
            Error("wrong checksum"),
        ),
        ("type-unknown", raw(|header| header.set_entry_type(tar::EntryType::new(b'Z'))), Error("type 'Z'")),
        ("cut-in-header", raw(|_| {})[..100].to_vec(), Error("truncated")),
        (
            "after-the-end",
            [new().file("a", "x").end(), new().file("../canary", "dead").file("b", "x").end()].concat(),
            Tree("a"),
        ),
        ("sparse-overlap", sparse(&[(0, 512), (256, 512)], 1024), Error("overlap")),
        ("sparse-outside", sparse(&[(0, 512), (4096, 512)], 1024), Error("outside")),
        ("sparse-wraps", sparse(&[(u64::MAX - 10, 512)], 1024), Error("outside")),
        (
            "sparse-lies",
            [
                extended(
                    &[
                        record("GNU.sparse.numblocks", b"1"),
                        record("GNU.sparse.map", b"0,99999"),
                        record("GNU.sparse.size", b"100000"),
                    ]
                    .concat(),
                ),
                raw(|_| {}),
            ]
            .concat(),
            Error("as long as its data"),
        ),
        ("sparse-huge", sparse(&[(0, 512)], u64::MAX), Error("larger than a file")),
        (
            "redirect",
            new()
                .put(
                    &TarEntry {
                        xattrs: vec![
                            (b"trusted.overlay.redirect".to_vec(), b"/../../x".to_vec()),
                            (b"user.overlay.opaque".to_vec(), b"y".to_vec()),
                        ],
                        ..entry(EntryKind::Directory, b"d")
                    },
                    b"",
                )
                .end(),
            Tree("d"),
        ),
        ("not-an-archive", b"this is a text, and a rather long one\n".repeat(40), Error("wrong checksum")),
        (
            "no-end-marker",
            {
                let all = new().file("a", "x").end();
                all[..1024].to_vec()
            },
            Tree("a"),
        ),
        (
            "no-end-marker-unfilled",
            {
                let all = new().file("a", "x").end();
                all[..513].to_vec()
            },
            Tree("a"),
        ),
        (
            "cut-in-data",
            {
                let all = new().file("a", "xyz").end();
                all[..514].to_vec()
            },
            Error("truncated"),
        ),
        (
            "cut-in-second-header",
            {
                let all = new().file("a", "x").file("b", "y").end();
                all[..1100].to_vec()
            },
            Error("truncated"),
        ),
        (
            "zstd-window",
            {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
                encoder.window_log(27).unwrap();
                std::io::Write::write_all(&mut encoder, &new().file("a", "text").end()).unwrap();
                encoder.finish().unwrap()
            },
            Error("a window of 128 MiB"),
        ),
        (
            "gzip-cut",
            {
                let all = gzip(&new().file("a", &"text".repeat(5000)).end());
                all[..all.len() / 2].to_vec()
            },
            Error("truncated"),
        ),
        (
            "gzip-altered",
            {
                let mut all = gzip(&new().file("a", "text").end());
                let at = all.len() - 6;
                all[at] ^= 1;
                all
            },
            Error(""),
        ),
        (
            "zstd-cut",
            {
                let all = zstd::encode_all(&new().file("a", &"text".repeat(5000)).end()[..], 3).unwrap();
                all[..all.len() - 5].to_vec()
            },
            Error(""),
        ),
        ("xz", b"\xfd7zXZ\0whatever".to_vec(), Error("xz")),
    ]
}

#[test]
fn a_hostile_archive_ends_in_an_error_or_stays_inside() {
    for (name, archive, comes) in hostile() {
        let scratch = Scratch::new(name);
        let result = scratch.unpack(&archive);
        scratch.untouched();
        match (result, comes) {
            (Err(error), Comes::Error(text)) => {
                assert!(error.to_string().contains(text), "{name}: {error}");
            }
            (Ok(_), Comes::Tree(path)) => {
                assert!(fs::symlink_metadata(scratch.at(path)).is_ok(), "{name}: {path} is missing");
            }
            (Ok(unpacked), Comes::Error(text)) => panic!("{name}: {unpacked:?} instead of {text}"),
            (Err(error), Comes::Tree(_)) => panic!("{name}: {error}"),
        }
    }
}

#[test]
fn ten_gigabytes_of_zeroes_are_not_written() {
    let scratch = Scratch::new("bomb");
    // As many zeroes as it takes; the limit is lowered so that the test is over soon.
    let size = 64 << 20;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut writer = Writer::new(&mut gzip);
    writer.entry(&TarEntry { size, ..entry(EntryKind::File, b"zeroes") }).unwrap();
    for _ in 0..64 {
        writer.data(&vec![0; 1 << 20]).unwrap();
    }
    writer.finish().unwrap();
    let archive = gzip.finish().unwrap();
    let limits = Limits { floor: 1 << 20, ratio: 50, entries: 10 };
    let strict = UnpackOptions { limits, ..options() };
    let error = unpack(&archive[..], &scratch.0.join("root"), &strict).unwrap_err();
    assert!(error.to_string().contains("50 times its size") && error.hint.contains("maxRatio"), "{error}");
    // With a limit that allows them they are a hole.
    let scratch = Scratch::new("hole");
    scratch.unpack(&archive).unwrap();
    let meta = fs::metadata(scratch.at("zeroes")).unwrap();
    assert_eq!(meta.len(), size);
    assert!(meta.blocks() * 512 < 1 << 20, "{} blocks", meta.blocks());
    let many = (0..20).fold(Archive::new(), |archive, number| archive.file(format!("{number}"), "")).end();
    let error = unpack(&many[..], &Scratch::new("many").0.join("root"), &strict).unwrap_err();
    assert!(error.to_string().contains("more than 10 entries"), "{error}");
}

#[test]
fn no_bytes_make_the_reader_panic() {
    // A simple generator, so that a failure can be had again.
    let mut seed = 42_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let scratch = Scratch::new("random");
    for (_, archive, _) in hostile() {
        for _ in 0..10 {
            let mut archive = archive[..archive.len().min(8192)].to_vec();
            for _ in 0..=random() % 5 {
                let at = usize::try_from(random()).unwrap() % archive.len();
                archive[at] = random() as u8;
            }
            // Checksums would hide most of the reader.
            for block in archive.chunks_mut(512).filter(|block| block.len() == 512 && block[257..262] == *b"ustar") {
                block[148..156].fill(b' ');
                let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
                block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
            let _ = fs::remove_dir_all(scratch.at(""));
            fs::create_dir(scratch.at("")).unwrap();
            let limits = Limits { floor: 10 << 20, ratio: 10, entries: 100 };
            let _ = unpack(&archive[..], &scratch.at(""), &UnpackOptions { devices: false, limits, ..options() });
        }
    }
    scratch.untouched();
}

#[test]
fn the_fuzzer_s_archives_stay_inside() {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/archive"));
    // The hostile archives of this file are the seeds: NSRS_WRITE_CORPUS=1 writes them anew.
    if std::env::var_os("NSRS_WRITE_CORPUS").is_some() {
        for (name, archive, _) in hostile() {
            fs::write(folder.join(name), &archive[..archive.len().min(32 << 10)]).unwrap();
        }
    }
    let scratch = Scratch::new("corpus");
    for entry in fs::read_dir(&folder).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        let _ = fs::remove_dir_all(scratch.at(""));
        fs::create_dir(scratch.at("")).unwrap();
        let limits = Limits { floor: 16 << 20, ratio: 10, entries: 1000 };
        let _ = unpack(&bytes[..], &scratch.at(""), &UnpackOptions { devices: false, limits, ..options() });
        scratch.untouched();
    }
}
