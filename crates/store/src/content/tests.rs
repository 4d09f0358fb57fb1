use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use nsrs_base::options::{Front, in_words_of};
use oci_spec::image::{Descriptor, MediaType};
use serde_json::json;

use super::*;

/// A store in a directory of its own, removed at the end.
pub(crate) struct Scratch(pub PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("nsrs-store-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Scratch(path)
    }

    pub(crate) fn store(&self) -> Store {
        Store::open(&self.0).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Adds an image of one layer that is as many letters; returns its manifest.
fn image(store: &Store, layer: &[u8]) -> Descriptor {
    let layer_digest = store.add(layer).unwrap();
    let config = json!({ "architecture": "amd64", "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": [layer_digest.to_string()] } });
    let config = serde_json::to_vec(&config).unwrap();
    let config_digest = store.add(&config).unwrap();
    let manifest = json!({ "schemaVersion": 2,
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest.to_string(), "size": config.len() },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer_digest.to_string(), "size": layer.len() }] });
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let digest = store.add(&manifest).unwrap();
    Descriptor::new(MediaType::ImageManifest, manifest.len() as u64, digest.to_oci())
}

fn begun(store: &Store, digest: &Digest) -> Ingest {
    match store.ingest(digest).unwrap() {
        IngestStart::Write(ingest) => ingest,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_blob_is_there_when_it_is_whole_and_not_before() {
    let scratch = Scratch::new("whole");
    let store = scratch.store();
    let bytes = vec![7; 300_000];
    let digest = Digest::of(&bytes);
    let mut ingest = begun(&store, &digest);
    ingest.expect_size(300_000);
    ingest.write(&bytes[..100_000]).unwrap();
    assert!(!store.has(&digest));
    assert!(matches!(store.try_ingest(&digest).unwrap(), IngestStart::Busy));
    drop(ingest);
    // The next one goes on where this one ended.
    let mut ingest = begun(&store, &digest);
    assert_eq!(ingest.offset(), 100_000);
    ingest.write(&bytes[100_000..]).unwrap();
    assert_eq!(ingest.commit().unwrap(), digest);
    assert_eq!(store.read(&digest).unwrap(), bytes);
    assert!(matches!(store.ingest(&digest).unwrap(), IngestStart::Present));
    assert_eq!(fs::read_dir(scratch.0.join("ingest")).unwrap().count(), 0);
}

#[test]
fn what_is_altered_or_of_another_size_is_refused() {
    let scratch = Scratch::new("altered");
    let store = scratch.store();
    let digest = Digest::of(b"right");
    let mut ingest = begun(&store, &digest);
    ingest.write(b"wrong").unwrap();
    assert_eq!(ingest.commit().unwrap_err().code, Code::ImageInvalid);
    let mut ingest = begun(&store, &digest);
    assert_eq!(ingest.offset(), 0, "a wrong blob isn't resumed");
    ingest.expect_size(5);
    assert!(ingest.write(b"too much").unwrap_err().to_string().contains("larger than"));
    let mut ingest = begun(&store, &digest);
    ingest.expect_size(5);
    ingest.write(b"rig").unwrap();
    assert!(ingest.commit().unwrap_err().to_string().contains("3 of 5 bytes"));
    let mut ingest = begun(&store, &digest);
    assert_eq!(ingest.offset(), 3);
    ingest.write(b"ht").unwrap();
    ingest.commit().unwrap();
    // On disk it may still be altered.
    fs::write(store.blob_path(&digest), "evil!").unwrap();
    assert_eq!(store.read(&digest).unwrap_err().code, Code::ImageInvalid);
}

#[test]
fn who_follows_reads_all_of_it_or_fails() {
    let scratch = Scratch::new("follow");
    let store = scratch.store();
    let bytes: Vec<u8> = (0..2_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let digest = Digest::of(&bytes);
    let mut ingest = begun(&store, &digest);
    let mut follow = ingest.follow();
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        follow.read_to_end(&mut all).map(|_| Digest::of(&all))
    });
    for part in bytes.chunks(123_457) {
        ingest.write(part).unwrap();
    }
    ingest.commit().unwrap();
    assert_eq!(reader.join().unwrap().unwrap(), digest);
    let ingest = begun(&store, &Digest::of(b"never"));
    let mut follow = ingest.follow();
    drop(ingest);
    assert!(follow.read_to_end(&mut Vec::new()).is_err());
}

#[test]
fn two_who_want_one_blob_write_it_once() {
    let scratch = Scratch::new("twice");
    let store = scratch.store();
    let digest = Digest::of(b"shared");
    let mut ingest = begun(&store, &digest);
    let other = store.clone();
    let waiting = std::thread::spawn(move || other.ingest(&digest).unwrap());
    std::thread::sleep(Duration::from_millis(50));
    ingest.write(b"shared").unwrap();
    ingest.commit().unwrap();
    assert!(matches!(waiting.join().unwrap(), IngestStart::Present));
}

#[test]
fn names_are_given_moved_and_taken() {
    let scratch = Scratch::new("names");
    let store = scratch.store();
    let (one, two) = (image(&store, b"one"), image(&store, b"two"));
    store.list(&one).unwrap();
    assert_eq!(store.images().unwrap()[0].name, None);
    store.tag("docker.io/library/a:1", &one).unwrap();
    assert_eq!(store.images().unwrap().len(), 1, "it has found its name");
    store.tag("docker.io/library/a:1", &two).unwrap();
    store.tag("docker.io/library/b:1", &two).unwrap();
    assert_eq!(store.resolve("docker.io/library/a:1").unwrap().digest(), two.digest());
    let error = store.resolve("docker.io/library/c:1").unwrap_err();
    assert_eq!(error.code, Code::ImageNotFound);
    assert_eq!(error.hint, "did you mean a:1 or b:1?");
    assert_eq!(error.suggestions, ["a:1", "b:1"]);
    let near = |name: &str| store.resolve(name).unwrap_err().hint;
    assert_eq!(near("docker.io/library/a:everything-else"), "did you mean a:1 or b:1?");
    store.tag("docker.io/team/base:latest", &two).unwrap();
    store.tag("docker.io/team/base:1.36.1-slim", &two).unwrap();
    assert_eq!(near("docker.io/team/bsae:latest"), "did you mean team/base or team/base:1.36.1-slim?");
    assert_eq!(near("docker.io/team/base:lates"), "did you mean team/base or team/base:1.36.1-slim?");
    assert_eq!(near("docker.io/team/base:1.36"), "did you mean team/base:1.36.1-slim or team/base?");
    let hint = near("docker.io/team/xyz:latest");
    assert!(in_words_of(Front::Shell, &hint).starts_with("nsrs images lists"));
    assert!(in_words_of(Front::JavaScript, &hint).starts_with("images.list() lists"));
    store.remove("docker.io/team/base:latest").unwrap();
    store.remove("docker.io/team/base:1.36.1-slim").unwrap();
    store.remove("docker.io/library/a:1").unwrap();
    assert!(store.remove("docker.io/library/a:1").is_err());
    assert_eq!(store.images().unwrap().len(), 1);
    assert!(store.tag("", &two).is_err());
    assert!(store.tag("a\nb", &two).is_err());
    let missing = Descriptor::new(MediaType::ImageManifest, 1, Digest::of(b"missing").to_oci());
    assert_eq!(store.tag("x", &missing).unwrap_err().code, Code::ImageNotFound);
}

#[test]
fn fields_of_others_stay_in_the_index() {
    let scratch = Scratch::new("others");
    let store = scratch.store();
    let one = image(&store, b"one");
    fs::write(
        scratch.0.join("index.json"),
        r#"{"schemaVersion":2,"x-own":1,"manifests":[{"mediaType":"text/plain","digest":"sha512:00","size":1,"x-other":true}]}"#,
    )
    .unwrap();
    store.tag("a", &one).unwrap();
    let text = fs::read_to_string(scratch.0.join("index.json")).unwrap();
    assert!(text.contains("x-own") && text.contains("x-other"), "{text}");
}

#[test]
fn prune_removes_what_no_image_needs_and_nothing_else() {
    let scratch = Scratch::new("prune");
    let store = scratch.store();
    let (one, two) = (image(&store, b"shared"), image(&store, b"alone"));
    store.tag("one", &one).unwrap();
    store.tag("two", &two).unwrap();
    let mut broken = begun(&store, &Digest::of(b"broken off"));
    broken.write(b"brok").unwrap();
    drop(broken);
    assert_eq!(store.prune(PruneWait::Yes, false).unwrap().unwrap(), Pruned::default());
    store.remove("two").unwrap();
    // Somebody who is about to name something keeps it away.
    let guard = store.guard().unwrap();
    assert_eq!(store.prune(PruneWait::No, false).unwrap(), None);
    drop(guard);
    let pruned = store.prune(PruneWait::Yes, false).unwrap().unwrap();
    assert_eq!(pruned.blobs, 3);
    assert_eq!(begun(&store, &Digest::of(b"broken off")).offset(), 4);
    assert!(store.has(&Digest::of(b"shared")) && !store.has(&Digest::of(b"alone")));
    store.prune(PruneWait::Yes, true).unwrap();
    assert_eq!(fs::read_dir(scratch.0.join("ingest")).unwrap().count(), 0);
}

#[test]
fn what_a_damaged_image_needs_is_removed_when_that_is_asked_for_and_not_by_the_way() {
    let scratch = Scratch::new("damaged");
    let store = scratch.store();
    let (one, two) = (image(&store, b"one"), image(&store, b"two"));
    for (name, image) in [("one", &one), ("again", &one), ("two", &two)] {
        store.tag(name, image).unwrap();
    }
    let path = store.blob_path(&index::digest_of(&one).unwrap());
    let whole = fs::read(&path).unwrap();
    for bytes in [Some(&b"{}"[..]), None] {
        match bytes {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let pruned = store.prune(PruneWait::No, false).unwrap().unwrap();
        let damaged: Vec<&str> = pruned.damaged.iter().map(|damaged| damaged.name.as_str()).collect();
        assert_eq!((pruned.blobs, &damaged[..]), (0, &["one", "again"][..]));
        assert!(store.has(&Digest::of(b"one")));
    }
    assert_eq!(store.add(&whole).unwrap(), index::digest_of(&one).unwrap());
    assert_eq!(store.prune(PruneWait::Yes, false).unwrap().unwrap(), Pruned::default());
    fs::write(&path, "{}").unwrap();
    let pruned = store.prune(PruneWait::Yes, false).unwrap().unwrap();
    assert_eq!((pruned.blobs, pruned.damaged.len()), (2, 2));
    assert!(!store.has(&Digest::of(b"one")) && store.has(&Digest::of(b"two")));
    assert!(store.images().unwrap().len() == 3 && path.exists(), "its names stay");
    // One that can't be read may be whole.
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    store.remove("two").unwrap();
    assert!(store.prune(PruneWait::Yes, false).is_err());
    assert!(store.has(&Digest::of(b"two")));
}

#[test]
fn a_damaged_blob_is_removed_by_who_finds_it_and_written_again() {
    let scratch = Scratch::new("repair");
    let store = scratch.store();
    let digest = store.add(b"right").unwrap();
    store.check(&digest).unwrap();
    for damaged in ["wrong", "rig", "right and more"] {
        fs::write(store.blob_path(&digest), damaged).unwrap();
        assert_eq!(store.add(b"right").unwrap(), digest);
        assert_eq!(store.read(&digest).unwrap(), b"right");
        fs::write(store.blob_path(&digest), damaged).unwrap();
        assert_eq!(store.check(&digest).unwrap_err().code, Code::ImageInvalid);
        assert_eq!(store.check(&digest).unwrap_err().code, Code::ImageNotFound);
        assert_eq!(fs::read_dir(scratch.0.join("ingest")).unwrap().count(), 0);
    }
    // Not while somebody brings it, and not another file than the one that was read.
    store.add(b"right").unwrap();
    let read = store.open_blob(&digest).unwrap();
    fs::remove_file(store.blob_path(&digest)).unwrap();
    let ingest = begun(&store, &digest);
    store.discard(&digest, &read);
    drop(ingest);
    store.add(b"right").unwrap();
    store.discard(&digest, &read);
    assert!(store.has(&digest));
}

/// What the child of the next test writes; one blob is larger than a pipe or a page.
fn blobs() -> Vec<Vec<u8>> {
    (0..40_u32).map(|number| number.to_le_bytes().repeat(if number == 0 { 1_500_000 } else { 20_000 })).collect()
}

#[test]
#[ignore = "the child process that the next test kills"]
fn writes_until_it_is_killed() {
    let path = std::env::var_os("NSRS_TEST_STORE").unwrap();
    let store = Store::open(Path::new(&path)).unwrap();
    let _guard = store.guard().unwrap();
    println!("open");
    std::io::stdout().flush().unwrap();
    for (number, bytes) in blobs().into_iter().enumerate() {
        let digest = Digest::of(&bytes);
        if let IngestStart::Write(mut ingest) = store.ingest(&digest).unwrap() {
            let from = usize::try_from(ingest.offset()).unwrap();
            for part in bytes[from..].chunks(100_000) {
                ingest.write(part).unwrap();
            }
            ingest.commit().unwrap();
        }
        let image = image(&store, &bytes);
        store.tag(&format!("image:{number}"), &image).unwrap();
    }
    println!("all");
}

#[test]
fn a_store_whose_writer_is_killed_at_any_moment_is_consistent_and_goes_on() {
    let scratch = Scratch::new("killed");
    let (mut seed, mut finished, mut resumed) = (0x9e37_79b9_u64 ^ u64::from(std::process::id()), 0, 0);
    for _round in 0..50 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "content::tests::writes_until_it_is_killed", "--nocapture"])
            .env("NSRS_TEST_STORE", &scratch.0)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = child.stdout.take().unwrap();
        // It tells when it has begun; a moment later it dies.
        let mut seen = Vec::new();
        let mut byte = [0; 1];
        while !seen.ends_with(b"open\n") && out.read(&mut byte).unwrap() == 1 {
            seen.push(byte[0]);
        }
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_micros(seed >> 33 & 0x3fff));
        child.kill().unwrap();
        child.wait().unwrap();
        let mut rest = Vec::new();
        out.read_to_end(&mut rest).unwrap();
        finished += usize::from(rest.starts_with(b"all"));

        let store = scratch.store();
        for entry in fs::read_dir(scratch.0.join("blobs/sha256")).unwrap() {
            let path = entry.unwrap().path();
            let digest = Digest::from_hex(&path.file_name().unwrap().to_string_lossy()).unwrap();
            assert_eq!(Digest::of(&fs::read(path).unwrap()), digest);
        }
        for image in store.images().unwrap() {
            assert!(store.has(&image.digest().unwrap()));
        }
        resumed += fs::read_dir(scratch.0.join("ingest"))
            .unwrap()
            .filter(|entry| entry.as_ref().is_ok_and(|entry| entry.metadata().is_ok_and(|meta| meta.len() > 0)))
            .count();
        if finished > 0 && fs::read_dir(scratch.0.join("ingest")).unwrap().count() == 0 {
            // Everything is there: from the beginning again.
            drop(fs::remove_dir_all(&scratch.0));
            finished = 0;
        }
    }
    println!("{resumed} blobs were found half written");
    let store = scratch.store();
    let bytes = &blobs()[0];
    if let IngestStart::Write(mut ingest) = store.ingest(&Digest::of(bytes)).unwrap() {
        let from = usize::try_from(ingest.offset()).unwrap();
        ingest.write(&bytes[from..]).unwrap();
        ingest.commit().unwrap();
    }
    assert!(store.has(&Digest::of(bytes)));
    store.prune(PruneWait::Yes, true).unwrap().unwrap();
}

#[test]
#[ignore = "the child process of the next test, which gives it a disk of two megabytes"]
fn fills_a_small_disk() {
    let path = std::env::var_os("NSRS_TEST_SMALL_DISK").unwrap();
    let store = Store::open(Path::new(&path)).unwrap();
    let bytes = vec![1; 3 << 20];
    let mut ingest = begun(&store, &Digest::of(&bytes));
    let error = bytes.chunks(100_000).find_map(|part| ingest.write(part).err()).unwrap();
    assert!(error.to_string().contains("ENOSPC") && error.hint.contains("free disk space"), "{error}");
    drop(ingest);
    assert_eq!(fs::read_dir(store.path("ingest")).unwrap().count(), 0);
    // And in the middle of a layer, whose archive itself has room.
    let mut archive = crate::tar::write::Writer::new(Vec::new());
    let entry = crate::tar::TarEntry {
        path: b"big".to_vec(),
        link: Vec::new(),
        kind: crate::tar::EntryKind::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: (0, 0),
        device: (0, 0),
        size: bytes.len() as u64,
        sparse: None,
        xattrs: Vec::new(),
    };
    archive.entry(&entry).unwrap();
    archive.data(&bytes).unwrap();
    let archive = archive.finish().unwrap();
    let options = crate::unpack::UnpackOptions::default();
    let error = store.unpack_layer(&Digest::of(&archive), &archive[..], &options).unwrap_err();
    assert!(error.to_string().contains("ENOSPC") && error.hint.contains("free disk space"), "{error}");
    assert_eq!(fs::read_dir(store.path("layers")).unwrap().count(), 0);
    // There is room again.
    store.add(&bytes[..1 << 20]).unwrap();
    println!("all of it");
}

#[test]
fn a_full_disk_is_said_and_nothing_half_made_stays() {
    let scratch = Scratch::new("full");
    fs::create_dir(&scratch.0).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=2m tmpfs '{0}' && NSRS_TEST_SMALL_DISK='{0}/s' exec '{1}' --ignored --exact content::tests::fills_a_small_disk --nocapture",
        scratch.0.display(),
        std::env::current_exe().unwrap().display()
    );
    let unshare: &[&str] = if rustix::process::geteuid().is_root() { &["-m"] } else { &["-Urm"] };
    let output = Command::new("unshare").args(unshare).args(["sh", "-c", &script]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("all of it"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_store_that_others_can_change_is_refused() {
    let scratch = Scratch::new("foreign");
    drop(scratch.store());
    assert_eq!(fs::metadata(scratch.0.join("layers")).unwrap().mode() & 0o777, 0o700);
    fs::set_permissions(&scratch.0, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(Store::open(&scratch.0).unwrap_err().to_string().contains("writable by other users"));
    fs::set_permissions(&scratch.0, fs::Permissions::from_mode(0o755)).unwrap();
    drop(scratch.store());
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&scratch.0, Some(12345), None).unwrap();
        assert!(Store::open(&scratch.0).unwrap_err().to_string().contains("another user"));
        // Nor is anything made in one that isn't a store yet: its owner would be locked out.
        let empty = Scratch::new("foreign-empty");
        fs::create_dir(&empty.0).unwrap();
        std::os::unix::fs::chown(&empty.0, Some(12345), None).unwrap();
        assert!(Store::open(&empty.0).unwrap_err().to_string().contains("another user"));
        assert_eq!(fs::read_dir(&empty.0).unwrap().count(), 0);
    }
}
