use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;

use super::*;
use crate::image::tar::write::Writer;
use crate::image::tar::{Entry, Kind};

/// A destination with a canary beside it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("nsrs-unpack-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("root")).unwrap();
        fs::write(path.join("canary"), "alive").unwrap();
        fs::create_dir(path.join("outside")).unwrap();
        Scratch(path)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.join("root").join(path)
    }

    fn unpack(&self, archive: &[u8]) -> Result<Unpacked> {
        unpack(archive, &self.0.join("root"), &options())
    }

    /// Nothing beside the destination was touched.
    fn untouched(&self) {
        let mut names: Vec<_> = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["canary", "outside", "root"]);
        assert_eq!(fs::read_to_string(self.0.join("canary")).unwrap(), "alive");
        let meta = fs::symlink_metadata(self.0.join("canary")).unwrap();
        assert_eq!((meta.nlink(), meta.mode() & 0o7777), (1, 0o644));
        assert_eq!(fs::read_dir(self.0.join("outside")).unwrap().count(), 0);
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        gone(&self.0);
    }
}

/// Removes a tree, also where its directories are closed to their owner.
fn gone(path: &std::path::Path) {
    let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    crate::image::tree::remove::remove(rustix::fs::CWD, &name).unwrap();
}

fn root() -> bool {
    rustix::process::geteuid().is_root()
}

fn options() -> Options {
    Options { squash: !root(), devices: root(), user_xattrs: !root(), ..Options::default() }
}

fn entry(kind: Kind, path: &[u8]) -> Entry {
    Entry {
        path: path.to_vec(),
        link: Vec::new(),
        kind,
        mode: if kind == Kind::Directory { 0o755 } else { 0o644 },
        uid: 0,
        gid: 0,
        mtime: (1_000_000_000, 0),
        device: (0, 0),
        size: 0,
        sparse: None,
        xattrs: Vec::new(),
    }
}

/// Builds an archive.
struct Archive(Writer<Vec<u8>>);

impl Archive {
    fn new() -> Archive {
        Archive(Writer::new(Vec::new()))
    }

    fn put(mut self, entry: &Entry, data: &[u8]) -> Archive {
        self.0.entry(entry).unwrap();
        self.0.data(data).unwrap();
        self
    }

    fn file(self, path: impl AsRef<[u8]>, data: &str) -> Archive {
        let entry = Entry { size: data.len() as u64, ..entry(Kind::File, path.as_ref()) };
        self.put(&entry, data.as_bytes())
    }

    fn dir(self, path: impl AsRef<[u8]>) -> Archive {
        self.put(&entry(Kind::Directory, path.as_ref()), b"")
    }

    fn link(self, kind: Kind, path: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Archive {
        self.put(&Entry { link: to.as_ref().to_vec(), ..entry(kind, path.as_ref()) }, b"")
    }

    fn symlink(self, path: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Archive {
        self.link(Kind::Symlink, path, to)
    }

    fn hard(self, path: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Archive {
        self.link(Kind::HardLink, path, to)
    }

    fn end(self) -> Vec<u8> {
        self.0.finish().unwrap()
    }
}

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
        crate::image::tar::pax::push(&mut bytes, key.as_bytes(), value);
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
            Error("which the layer hasn't"),
        ),
        ("hard-link-absolute", new().hard("h", "/etc/passwd").end(), Error("which the layer hasn't")),
        ("hard-link-to-directory", new().dir("d").hard("h", "d").end(), Error("hard link to the directory")),
        ("hard-link-to-root", new().hard("h", ".").end(), Error("hard link to the root")),
        ("hard-link-ring", new().hard("a", "b").hard("b", "a").end(), Error("which the layer hasn't")),
        ("hard-link-to-itself", new().file("a", "x").hard("a", "a").end(), Tree("a")),
        ("link-loop", new().symlink("a", "b").symlink("b", "a").file("a/x", "x").end(), Error("ELOOP")),
        ("link-to-itself", new().symlink("a", "a/a").file("a/a/a", "x").end(), Error("ELOOP")),
        ("link-to-nothing", new().link(Kind::Symlink, "a", "").end(), Error("link to nothing")),
        ("magic-link", new().symlink("a", "/proc/self/cwd").file("a/x", "x").end(), Tree("proc/self/cwd/x")),
        ("root-as-file", new().file(".", "x").end(), Error("root is no directory")),
        ("root-as-link", new().symlink("./", "../outside").end(), Error("root is no directory")),
        ("file-in-file", new().file("a", "x").file("a/b", "x").end(), Error("stands in its way")),
        ("fifo-as-parent", new().put(&entry(Kind::Fifo, b"a"), b"").file("a/b", "x").end(), Error("stands in its way")),
        ("fifo-replaced", new().put(&entry(Kind::Fifo, b"a"), b"").file("a", "x").end(), Tree("a")),
        (
            "device-replaced",
            new().put(&Entry { device: (1, 3), ..entry(Kind::CharDevice, b"a") }, b"").file("a", "x").end(),
            Tree("a"),
        ),
        ("fifo-as-root", new().put(&entry(Kind::Fifo, b"."), b"").end(), Error("root is no directory")),
        ("fifo-over-directory", new().dir("a").file("a/b", "x").put(&entry(Kind::Fifo, b"a"), b"").end(), Tree("a")),
        (
            // To open it would be to wait for good.
            "write-through-hard-link-to-fifo",
            new().put(&entry(Kind::Fifo, b"a"), b"").hard("h", "a").file("h", "x").end(),
            Tree("h"),
        ),
        ("fifo-as-whiteout", new().dir("a").put(&entry(Kind::Fifo, b".wh.a"), b"").file("b", "x").end(), Tree("b")),
        (
            "device-as-parent",
            new().put(&Entry { device: (1, 3), ..entry(Kind::CharDevice, b"a") }, b"").file("a/b", "x").end(),
            // Who may make no devices leaves them out.
            if root() { Error("stands in its way") } else { Tree("a/b") },
        ),
        (
            "device-as-root",
            new().put(&Entry { device: (8, 0), ..entry(Kind::BlockDevice, b"./") }, b"").end(),
            Error("root is no directory"),
        ),
        (
            "hard-link-to-device",
            new().put(&Entry { device: (8, 0), ..entry(Kind::BlockDevice, b"a") }, b"").hard("h", "a").end(),
            if root() { Tree("h") } else { Error("which the layer hasn't") },
        ),
        (
            // The device that is overlayfs's whiteout, as an entry of its own.
            "whiteout-device",
            new().file("b", "x").put(&entry(Kind::CharDevice, b"b"), b"").file("c", "x").end(),
            Tree("c"),
        ),
        ("whiteout-of-dotdot", new().file(".wh...", "").end(), Error("whiteout of nothing")),
        ("whiteout-of-dot", new().file("a/.wh..", "").end(), Error("whiteout of nothing")),
        ("whiteout-of-nothing", new().file("a/.wh.", "").end(), Error("whiteout of nothing")),
        ("whiteout-outside", new().file("../.wh.canary", "").end(), Error("leads out")),
        ("whiteout-through-link", new().symlink("l", "../").file("l/.wh.canary", "").end(), Tree("canary")),
        ("whiteout-as-directory", new().dir(".wh.x").file(".wh.x/y", "").end(), Error("inside of a whiteout")),
        ("opaque-outside", new().symlink("l", "../outside").file("l/.wh..wh..opq", "").end(), Tree("outside")),
        ("aufs", new().file(".wh..wh.plnk", "").file("x", "").end(), Tree("x")),
        ("long-name", new().file(vec![b'n'; 10_000], "x").end(), Error("longer than")),
        ("long-path", new().file(b"n/".repeat(5_000), "x").end(), Error("longer than")),
        ("long-component", new().file(vec![b'n'; 256], "x").end(), Error("longer than")),
        ("long-link", new().symlink("l", vec![b'n'; 10_000]).end(), Error("ENAMETOOLONG")),
        ("nul-in-pax-path", [extended(&record("path", b"a\0b")), raw(|_| {})].concat(), Error("zero byte")),
        ("pax-size-negative", [extended(&record("size", b"-1")), raw(|_| {})].concat(), Error("no number")),
        (
            "pax-size-huge",
            [extended(&record("size", b"18446744073709551615")), raw(|_| {})].concat(),
            Error("larger than a file"),
        ),
        (
            "pax-size-overflow",
            [extended(&record("size", b"99999999999999999999999")), raw(|_| {})].concat(),
            Error("no number"),
        ),
        (
            "pax-size-longer",
            [extended(&record("size", b"100000")), raw(|_| {}), new().file("x", "y").end()].concat(),
            Error("cut short"),
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
        ("extended-at-the-end", extended(&record("path", b"x")), Error("behind an extended header")),
        (
            "size-negative",
            raw(|header| header.as_old_mut().size = *b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
            Error("larger than a file"),
        ),
        ("size-longer", raw(|header| header.set_size(1_000_000)), Error("cut short")),
        ("uid-minus-one", raw(|header| header.set_uid(u64::from(u32::MAX))), Error("no id that there can be")),
        ("uid-wraps-to-root", raw(|header| header.set_uid(1 << 32)), Error("no id that there can be")),
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
        ("cut-in-header", raw(|_| {})[..100].to_vec(), Error("cut short")),
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
                extended(&[record("GNU.sparse.map", b"0,99999"), record("GNU.sparse.size", b"100000")].concat()),
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
                    &Entry {
                        xattrs: vec![
                            (b"trusted.overlay.redirect".to_vec(), b"/../../x".to_vec()),
                            (b"user.overlay.opaque".to_vec(), b"y".to_vec()),
                        ],
                        ..entry(Kind::Directory, b"d")
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
            Error("cut short"),
        ),
        (
            "cut-in-second-header",
            {
                let all = new().file("a", "x").file("b", "y").end();
                all[..1100].to_vec()
            },
            Error("cut short"),
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
            Error("cut short"),
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

fn sparse(parts: &[(u64, u64)], size: u64) -> Vec<u8> {
    let entry = Entry { size, sparse: Some(parts.to_vec()), ..entry(Kind::File, b"sparse") };
    let stored: u64 = parts.iter().map(|part| part.1).sum();
    Archive::new().put(&entry, &vec![b'x'; usize::try_from(stored).unwrap()]).end()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut writer, bytes).unwrap();
    writer.finish().unwrap()
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
fn links_that_were_written_through_stay_links_or_become_files_of_the_image() {
    let scratch = Scratch::new("through");
    scratch.unpack(&Archive::new().symlink("l", "../canary").file("l", "new").end()).unwrap();
    assert!(fs::symlink_metadata(scratch.at("l")).unwrap().is_file());
    scratch.untouched();
}

#[test]
fn ten_gigabytes_of_zeroes_are_not_written() {
    let scratch = Scratch::new("bomb");
    // As many zeroes as it takes; the limit is lowered so that the test is over soon.
    let size = 64 << 20;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut writer = Writer::new(&mut gzip);
    writer.entry(&Entry { size, ..entry(Kind::File, b"zeroes") }).unwrap();
    for _ in 0..64 {
        writer.data(&vec![0; 1 << 20]).unwrap();
    }
    writer.finish().unwrap();
    let archive = gzip.finish().unwrap();
    let limits = Limits { floor: 1 << 20, ratio: 50, entries: 10 };
    let strict = Options { limits, ..options() };
    let error = unpack(&archive[..], &scratch.0.join("root"), &strict).unwrap_err();
    assert!(error.to_string().contains("50 times its size") && error.hint.contains("max-ratio"), "{error}");
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
fn the_diff_id_is_that_of_the_whole_stream() {
    let mut archive = Archive::new().file("a", "x").end();
    archive.extend_from_slice(&[7; 5000]);
    let diff_id = Digest::of(&archive);
    for packed in [archive.clone(), gzip(&archive), zstd::encode_all(&archive[..], 3).unwrap()] {
        let scratch = Scratch::new("diff-id");
        let expecting = Options { diff_id: Some(diff_id), ..options() };
        let unpacked = unpack(&packed[..], &scratch.0.join("root"), &expecting).unwrap();
        assert_eq!((unpacked.diff_id, unpacked.size, unpacked.entries), (diff_id, archive.len() as u64, 1));
        let scratch = Scratch::new("diff-id-wrong");
        let expecting = Options { diff_id: Some(Digest::of(b"")), ..options() };
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
    let device = Entry { device: (1, 3), ..entry(Kind::CharDevice, b"null") };
    let archive = Archive::new().hard("before", "null").put(&device, b"").hard("after", "null").file("file", "x").end();
    let own = Options { devices: false, ..options() };
    let unpacked = unpack(&archive[..], &scratch.at(""), &own).unwrap();
    assert_eq!(unpacked.skipped_devices, 3);
    assert!(scratch.at("file").exists() && !scratch.at("after").exists());
}

#[test]
fn a_hard_link_to_itself_is_none_unless_it_is_there() {
    let scratch = Scratch::new("self-link");
    let error = scratch.unpack(&Archive::new().hard("a", "./a").end()).unwrap_err();
    assert!(error.to_string().contains("which the layer hasn't"), "{error}");
    let scratch = Scratch::new("self-link-there");
    scratch.unpack(&Archive::new().file("a", "x").hard("a", "a").end()).unwrap();
    assert_eq!(fs::read(scratch.at("a")).unwrap(), b"x");
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

fn xattr(path: &std::path::Path, name: &str) -> Option<Vec<u8>> {
    let mut value = [0_u8; 256];
    let count = rustix::fs::lgetxattr(path, name, &mut value).ok()?;
    Some(value[..count].to_vec())
}

#[test]
fn whiteouts_and_opaque_directories_take_the_form_of_overlayfs() {
    let prefix = if root() { "trusted" } else { "user" };
    let opaque = format!("{prefix}.overlay.opaque");
    let scratch = Scratch::new("whiteouts");
    let archive = Archive::new()
        .file("etc/.wh.gone", "")
        .file("var/.wh..wh..opq", "")
        .file("var/new", "x")
        // Gone below, and there again: a file hides it anyway, a directory must be told.
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
    let archive = Archive::new().put(&Entry { xattrs, ..entry(Kind::File, b"f") }, b"").end();
    assert_eq!(scratch.unpack(&archive).unwrap().dropped_xattrs, 3);
    assert_eq!(xattr(&scratch.at("f"), "user.mine").as_deref(), Some(&b"a\nb"[..]));
    assert_eq!(xattr(&scratch.at("f"), "user.overlay.whiteout"), None);
}

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
            let _ = unpack(&archive[..], &scratch.at(""), &Options { devices: false, limits, ..options() });
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
        let _ = unpack(&bytes[..], &scratch.at(""), &Options { devices: false, limits, ..options() });
        scratch.untouched();
    }
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
        eprintln!("skipped: {}", String::from_utf8_lossy(&output.stderr));
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
    let mut place = place::Place::open(&other, &own).unwrap();
    for (directory, name) in [("", "a"), ("d", "x"), ("", "e"), ("", "f")] {
        let directory = place.tree.directory(directory.as_bytes()).unwrap();
        place.xattr_whiteout(&directory, name.as_bytes()).unwrap();
    }
    if let Some(seen) = mounted(&[lower, other], &scratch.at("")) {
        assert_eq!(seen, ".\n./d\n./d/y\n./g\n");
    }
    gone(&scratch.0.join("outside"));
    fs::create_dir(scratch.0.join("outside")).unwrap();
}
