//! The reader beside Go's `archive/tar`, with which docker, containerd and scanners look into an image: what is read here
//! is what they see. Needs the `go` command.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use nsrs_testing::skip;

use super::EntryKind;
use super::pax::push;
use super::read::TarReader;

/// The entries of an archive as `list.go` prints them; `error` for one that is refused.
fn list(archive: &[u8]) -> String {
    let mut reader = TarReader::new(archive);
    let mut entries = Vec::new();
    loop {
        let entry = match reader.next_entry() {
            Ok(Some(entry)) => entry,
            Ok(None) => return entries.join(";"),
            Err(_) => return "error".to_owned(),
        };
        let Ok(stored) = reader.bytes(1 << 20) else { return "error".to_owned() };
        let data = match &entry.sparse {
            None => stored,
            Some(parts) => {
                let mut data = vec![0; usize::try_from(entry.size).unwrap()];
                let mut rest = &stored[..];
                for (offset, length) in parts {
                    let (offset, length) = (usize::try_from(*offset).unwrap(), usize::try_from(*length).unwrap());
                    data[offset..offset + length].copy_from_slice(&rest[..length]);
                    rest = &rest[length..];
                }
                data
            }
        };
        let kind = match entry.kind {
            EntryKind::File => '0',
            EntryKind::HardLink => '1',
            EntryKind::Symlink => '2',
            EntryKind::CharDevice => '3',
            EntryKind::BlockDevice => '4',
            EntryKind::Directory => '5',
            EntryKind::Fifo => '6',
        };
        let (path, link, data) = (hex(&entry.path), hex(&entry.link), hex(&data));
        let (mode, uid, gid, time, device) = (entry.mode, entry.uid, entry.gid, entry.mtime.0, entry.device);
        entries.push(format!("{kind} {path} {link} {mode:o} {uid} {gid} {time} {},{} {data}", device.0, device.1));
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What Go sees in each archive; `None`: there is no Go.
fn by_go(name: &str, archives: &[Vec<u8>]) -> Option<Vec<String>> {
    Command::new("go").arg("version").output().ok()?;
    let scratch: PathBuf = std::env::temp_dir().join(format!("nsrs-go-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&scratch);
    fs::create_dir_all(&scratch).unwrap();
    fs::write(scratch.join("list.go"), include_str!("list.go")).unwrap();
    let names: Vec<String> = (0..archives.len()).map(|number| format!("{number}.tar")).collect();
    for (name, archive) in names.iter().zip(archives) {
        fs::write(scratch.join(name), archive).unwrap();
    }
    let mut go = Command::new("go");
    // It has a cache where the user has none, and asks the network for nothing.
    go.args(["run", "list.go"]).args(&names).current_dir(&scratch).env("GO111MODULE", "off").env("GOFLAGS", "");
    if std::env::var_os("HOME").is_none() {
        go.env("GOCACHE", scratch.join("cache"));
    }
    let output = go.output().unwrap();
    let _ = fs::remove_dir_all(&scratch);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<String> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), archives.len());
    Some(lines)
}

/// A header of 512 bytes in ustar form, and the data behind it in whole blocks.
struct Member {
    block: [u8; 512],
    data: Vec<u8>,
}

impl Member {
    fn new(kind: u8, name: &[u8], data: &[u8]) -> Member {
        let mut block = [0; 512];
        block[..name.len()].copy_from_slice(name);
        block[100..108].copy_from_slice(b"0000644\0");
        block[108..116].copy_from_slice(b"0000001\0");
        block[116..124].copy_from_slice(b"0000002\0");
        block[124..136].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
        block[136..148].copy_from_slice(b"07346545000\0");
        block[156] = kind;
        block[257..265].copy_from_slice(b"ustar\x0000");
        let mut data = data.to_vec();
        data.resize(data.len().next_multiple_of(512), 0);
        Member { block, data }
    }

    /// In GNU's form.
    fn gnu(self) -> Member {
        self.with(257, b"ustar  \0")
    }

    fn with(mut self, at: usize, bytes: &[u8]) -> Member {
        self.block[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut block = self.block;
        block[148..156].copy_from_slice(b"        ");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        [&block[..], &self.data].concat()
    }
}

fn pax(records: &[(&str, &str)]) -> Member {
    let mut data = Vec::new();
    for (key, value) in records {
        push(&mut data, key.as_bytes(), value.as_bytes());
    }
    Member::new(b'x', b"PaxHeaders/x", &data)
}

fn archive(members: &[Member]) -> Vec<u8> {
    let mut all: Vec<u8> = members.iter().flat_map(Member::bytes).collect();
    all.resize(all.len() + 1024, 0);
    all
}

fn file(name: &str) -> Member {
    Member::new(b'0', name.as_bytes(), b"x")
}

fn long(kind: u8, text: &str) -> Member {
    Member::new(kind, b"././@LongLink", format!("{text}\0").as_bytes()).gnu()
}

/// Archives that readers are known to disagree on.
fn disputed() -> Vec<(&'static str, Vec<u8>)> {
    let hidden = Member::new(b'0', b"hidden", b"text").bytes();
    let directory = |kind| Member::new(kind, b"dir/", b"").with(124, &[0; 12]);
    let old = |kind, name: &str| Member::new(kind, name.as_bytes(), b"").with(257, &[0; 8]);
    vec![
        ("slash-headers", archive(&[Member::new(b'0', b"dir/", &hidden), file("after")])),
        ("slash-text", archive(&[Member::new(b'0', b"dir/", b"hello"), file("after")])),
        ("slash-contiguous", archive(&[Member::new(b'7', b"dir/", &hidden), file("after")])),
        ("slash-old", archive(&[old(0, "dir/"), file("after")])),
        ("slash-old-size", archive(&[Member::new(0, b"dir/", b"").with(124, b"00000001000\0"), file("after")])),
        ("directory-without-size", archive(&[directory(b'5'), file("after")])),
        ("blank-owner", archive(&[file("f").with(108, b"       \0       \0")])),
        (
            "long-name-then-global",
            archive(&[long(b'L', "long"), Member::new(b'g', b"global", b"13 comment=c\n"), file("own")]),
        ),
        (
            "pax-then-global",
            archive(&[pax(&[("path", "long")]), Member::new(b'g', b"global", b"13 comment=c\n"), file("own")]),
        ),
        ("long-name-then-label", archive(&[long(b'L', "long"), Member::new(b'V', b"label", b"").gnu(), file("own")])),
        ("label-with-data", archive(&[Member::new(b'V', b"label", &hidden).gnu(), file("own")])),
        ("prefix-without-version", archive(&[file("name").with(263, b"\0\0").with(345, b"pre/fix")])),
        ("prefix-with-other-version", archive(&[file("name").with(263, b"zz").with(345, b"pre/fix")])),
        (
            "device-without-version",
            archive(&[Member::new(b'3', b"null", b"").with(263, b"\0\0").with(329, b"0000001\x000000003\0")]),
        ),
        ("device-of-old", archive(&[old(b'3', "null").with(329, b"0000001\x000000003\0")])),
        ("prefix-of-old", archive(&[old(b'0', "name").with(345, b"pre/fix")])),
        (
            "prefix-of-star",
            archive(&[file("name").with(345, b"pre").with(476, b"07346545000 07346545000 ").with(508, b"tar\0")]),
        ),
        ("prefix-of-gnu", archive(&[file("name").gnu().with(345, b"pre/fix/which/is/no/time")])),
        ("times-of-gnu", archive(&[file("name").gnu().with(345, b"07346545000\x0007346545000\0")])),
        ("gnu-with-one-space", archive(&[file("name").with(257, b"ustar 00").with(345, b"pre/fix")])),
        ("pax-twice", archive(&[pax(&[("path", "first"), ("uid", "7")]), pax(&[("gid", "8")]), file("own")])),
        ("pax-twice-path", archive(&[pax(&[("path", "first")]), pax(&[("path", "second")]), file("own")])),
        ("pax-key-twice", archive(&[pax(&[("path", "first"), ("path", "second")]), file("own")])),
        ("pax-key-removed", archive(&[pax(&[("path", "first"), ("path", "")]), file("own")])),
        ("long-then-pax", archive(&[long(b'L', "gnu"), pax(&[("path", "pax")]), file("own")])),
        ("pax-then-long", archive(&[pax(&[("path", "pax")]), long(b'L', "gnu"), file("own")])),
        (
            "long-link-and-pax",
            archive(&[
                long(b'K', "gnu"),
                pax(&[("linkpath", "pax")]),
                Member::new(b'2', b"link", b"").with(157, b"own"),
            ]),
        ),
        ("empty-long-name", archive(&[long(b'L', ""), pax(&[("path", "pax")]), file("own")])),
        ("long-names", archive(&[long(b'L', "one"), long(b'L', "two"), file("own")])),
        (
            "pax-size",
            archive(&[pax(&[("size", "512")]), Member::new(b'0', b"own", &[b'y'; 512]).with(124, b"00000000001\0")]),
        ),
        (
            "sparse-without-minor",
            archive(&[
                pax(&[("GNU.sparse.major", "1"), ("GNU.sparse.name", "s"), ("GNU.sparse.realsize", "4")]),
                file("own"),
            ]),
        ),
        (
            "sparse-of-other-version",
            archive(&[pax(&[("GNU.sparse.major", "2"), ("GNU.sparse.minor", "0")]), file("own")]),
        ),
        (
            "sparse-map",
            archive(&[
                pax(&[
                    ("GNU.sparse.size", "9"),
                    ("GNU.sparse.numblocks", "1"),
                    ("GNU.sparse.map", "4,1"),
                    ("GNU.sparse.name", "s"),
                ]),
                file("own"),
            ]),
        ),
        (
            "sparse-pairs",
            archive(&[
                pax(&[
                    ("GNU.sparse.size", "9"),
                    ("GNU.sparse.numblocks", "1"),
                    ("GNU.sparse.offset", "4"),
                    ("GNU.sparse.numbytes", "1"),
                ]),
                file("own"),
            ]),
        ),
        (
            "sparse-sizes",
            archive(&[
                pax(&[
                    ("GNU.sparse.realsize", "20"),
                    ("GNU.sparse.size", "9"),
                    ("GNU.sparse.realsize", "30"),
                    ("GNU.sparse.numblocks", "1"),
                    ("GNU.sparse.map", "4,1"),
                ]),
                file("own"),
            ]),
        ),
        (
            "sparse-name-and-long",
            archive(&[
                long(b'L', "gnu"),
                pax(&[
                    ("GNU.sparse.size", "9"),
                    ("GNU.sparse.numblocks", "1"),
                    ("GNU.sparse.map", "4,1"),
                    ("GNU.sparse.name", "s"),
                ]),
                file("own"),
            ]),
        ),
        (
            "sparse-gnu",
            archive(&[Member::new(b'S', b"s", b"x")
                .gnu()
                .with(386, b"00000000004\x0000000000001\0")
                .with(483, b"00000000011\0")]),
        ),
        ("one-empty-block", [&archive(&[file("a")])[..1024], &[0; 512]].concat()),
        ("no-end", archive(&[file("a")])[..1024].to_vec()),
    ]
}

#[test]
fn archives_that_readers_disagree_on_are_read_as_go_reads_them() {
    let (names, archives): (Vec<_>, Vec<_>) = disputed().into_iter().unzip();
    let Some(seen) = by_go("disputed", &archives) else { skip!("needs go") };
    for ((name, archive), go) in names.iter().zip(&archives).zip(&seen) {
        assert_ne!(go, "error", "{name}");
        assert_eq!(&list(archive), go, "{name}");
    }
    // Go refuses these, too: an entry behind half an end marker, a link that is sparse.
    let refused = [
        [file("a").bytes(), vec![0; 512], archive(&[file("b")])].concat(),
        archive(&[
            pax(&[("GNU.sparse.size", "9"), ("GNU.sparse.numblocks", "1"), ("GNU.sparse.map", "4,1")]),
            Member::new(b'2', b"link", b"").with(157, b"own"),
        ]),
        archive(&[pax(&[("GNU.sparse.major", "0"), ("GNU.sparse.minor", "1")]), file("own")]),
        archive(&[file("a").with(124, &[0xff; 12])]),
    ];
    assert!(by_go("refused", &refused).unwrap().iter().all(|go| go == "error"));
    assert!(refused.iter().all(|archive| list(archive) == "error"));
}

/// Random numbers that are the same each time (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % most as u64).unwrap()
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// An archive of a few members, each of which may be odd.
    fn archive(&mut self) -> Vec<u8> {
        let mut members: Vec<Member> = (0..1 + self.below(5)).map(|_| self.member()).collect();
        members.push(file("last"));
        let mut all = archive(&members);
        if self.below(10) == 0 {
            all.truncate(self.below(all.len()));
        }
        all
    }

    fn member(&mut self) -> Member {
        const NAMES: [&str; 6] = ["a", "dir/", "b/c", "", "./d", "x\u{e4}"];
        const KEYS: [&str; 9] =
            ["path", "linkpath", "size", "uid", "gid", "mtime", "comment", "GNU.sparse.major", "GNU.sparse.map"];
        const VALUES: [&str; 8] = ["", "a", "p/q", "dir/", "0", "1", "512", "4,1"];
        let member = match self.below(8) {
            0 => {
                let count = 1 + self.below(3);
                let records: Vec<_> = (0..count).map(|_| (self.pick(&KEYS), self.pick(&VALUES))).collect();
                pax(&records)
            }
            1 => long(self.pick(b"LK"), self.pick(&NAMES)),
            2 => Member::new(self.pick(b"gV"), b"global", b"13 comment=c\n"),
            _ => {
                let kind = self.pick(b"00\x001234567S");
                let hidden = Member::new(b'0', b"hidden", b"text").bytes();
                let data = self.pick(&[&b""[..], b"text", &hidden]);
                let data = if matches!(kind, b'1'..=b'6') { b"" } else { data };
                let member = Member::new(kind, self.pick(&NAMES).as_bytes(), data).with(157, b"target");
                if self.below(3) == 0 { member.gnu() } else { member }
            }
        };
        const FIELDS: [(usize, usize); 12] = [
            (100, 8),
            (108, 8),
            (116, 8),
            (124, 12),
            (136, 12),
            (257, 6),
            (263, 2),
            (329, 8),
            (345, 12),
            (386, 24),
            (483, 12),
            (508, 4),
        ];
        const FILLS: [&[u8]; 12] = [
            b"",
            b"        ",
            b"0000001\0",
            b" 1 ",
            b"\0\x001",
            b"7777777 ",
            b"8",
            b"+1",
            b"\x80\0\0\0\0\0\0\x01",
            b"\xff\xff\xff\xff",
            b"pre/fix",
            b"ustar",
        ];
        if self.below(3) > 0 {
            return member;
        }
        let (at, length) = self.pick(&FIELDS);
        let mut field = self.pick(&FILLS).to_vec();
        field.resize(length, 0);
        member.with(at, &field)
    }
}

#[test]
fn random_archives_are_refused_or_read_as_go_reads_them() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let archives: Vec<Vec<u8>> = (0..4000).map(|_| random.archive()).collect();
    let Some(seen) = by_go("random", &archives) else { skip!("needs go") };
    let (mut same, mut refused) = (0, 0);
    for (number, (archive, go)) in archives.iter().zip(&seen).enumerate() {
        let own = list(archive);
        match (own.as_str(), go.as_str()) {
            ("error", "error") => {}
            ("error", _) => refused += 1,
            _ => {
                assert_eq!(&own, go, "archive {number}");
                same += 1;
            }
        }
    }
    // What only this reader refuses is rare.
    assert!(same > 1000 && refused < same / 4, "{same} are read alike, {refused} refused here only");
}
