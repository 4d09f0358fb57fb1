//! Pulling what others made and pushed.

use std::collections::BTreeSet;
use std::fs;

use crate::faulty::{Act, Faulty};
use crate::support::{Nsrs, Registry, Source, ready};

#[test]
fn an_image_made_by_umoci_arrives_whole_and_is_not_fetched_twice() {
    if !ready() {
        return;
    }
    let registry = Registry::start();
    let source = Source::new(&[3_000_000, 10]);
    source.copy_to(&registry, "a/b:1", &[]);
    let proxy = Faulty::before(&registry.address);
    let nsrs = Nsrs::new();
    let name = proxy.image("a/b:1");
    let ran = nsrs.works(&["pull", "--format", "json", &name]);
    let result: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((result["reference"].as_str(), result["present"].as_bool()), (Some(name.as_str()), Some(false)));
    // A manifest, a configuration and three layers, each as umoci wrote it.
    assert_eq!(nsrs.check_blobs(), 5);
    let names = |directory: std::path::PathBuf| -> BTreeSet<_> {
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    };
    assert!(names(nsrs.store().join("blobs/sha256")).is_subset(&names(source.dir.path("oci/blobs/sha256"))));
    let manifest = nsrs.read_by_skopeo(&name);
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 3);
    let first = proxy.asked();
    assert_eq!(first.iter().filter(|asked| asked.is_blob()).count(), 4, "{first:?}");

    let again = nsrs.works(&["pull", "--quiet", &name]);
    assert_eq!(again.stdout.trim(), result["digest"].as_str().unwrap());
    assert_eq!(again.stderr, "");
    let second = proxy.asked();
    assert_eq!(second.len(), 1, "one request: {second:?}");
    assert_eq!(second[0].method, "HEAD");

    // By its digest nothing needs to be asked once it is there.
    let by_digest = proxy.image(&format!("a/b@{}", result["digest"].as_str().unwrap()));
    nsrs.works(&["pull", &by_digest]);
    let third = proxy.asked();
    assert!(third.iter().all(|asked| asked.is_manifest()), "{third:?}");
    nsrs.works(&["pull", &by_digest]);
    assert_eq!(proxy.asked().len(), 0);
}

#[test]
fn the_digest_that_the_registry_has_is_shown_and_a_tag_before_one_is_dropped() {
    if !ready() {
        return;
    }
    let registry = Registry::start();
    Source::new(&[10]).copy_to(&registry, "a/b:1", &[]);
    let (nsrs, name) = (Nsrs::new(), registry.image("a/b:1"));
    let digest = nsrs.works(&["pull", "--quiet", &name]).stdout.trim().to_owned();
    let by_digest = format!("{}@{digest}", registry.image("a/b"));
    let inspect = |name: &str| -> serde_json::Value {
        serde_json::from_str::<serde_json::Value>(&nsrs.works(&["inspect", name]).stdout).unwrap()[0].take()
    };
    assert_eq!(inspect(&name)["RepoDigests"], serde_json::json!([by_digest]));
    // A name that was given here says nothing of its registry.
    nsrs.works(&["tag", &name, "local:1"]);
    let both = inspect("local:1");
    assert_eq!(both["RepoDigests"], serde_json::json!([by_digest]));
    assert_eq!(both["RepoTags"].as_array().unwrap().len(), 2);
    nsrs.works(&["rmi", &name]);
    assert_eq!(inspect("local:1")["RepoDigests"], serde_json::json!([]));
    nsrs.works(&["rmi", "local:1"]);
    // As docker has it.
    let tagged = format!("{name}@{digest}");
    nsrs.works(&["pull", &tagged]);
    let (listed, shown) = (nsrs.works(&["images", "--format", "json"]).stdout, inspect(&tagged));
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed[0]["name"], by_digest.as_str());
    assert_eq!((&shown["RepoTags"], &shown["RepoDigests"]), (&serde_json::json!([]), &serde_json::json!([by_digest])));
    assert!(nsrs.works(&["pull", &tagged]).stderr.contains("already exists; checked in"));
}

#[test]
fn a_tag_that_moved_brings_only_what_is_new() {
    if !ready() {
        return;
    }
    let registry = Registry::start();
    let proxy = Faulty::before(&registry.address);
    let (nsrs, name) = (Nsrs::new(), proxy.image("a:1"));
    let source = Source::new(&[1000]);
    source.copy_to(&registry, "a:1", &[]);
    let first = nsrs.works(&["pull", "--quiet", &name]).stdout;
    let layout = format!("{}:image", source.dir.path("oci").display());
    let more = source.dir.path("root.tar").display().to_string();
    crate::support::tool("tar", &["--append", "-f", &more, "-C", &source.dir.0.display().to_string(), "noise0"]);
    crate::support::tool("umoci", &["raw", "add-layer", "--image", &layout, &more]);
    source.copy_to(&registry, "a:1", &[]);
    proxy.asked();
    let second = nsrs.works(&["pull", "--quiet", &name]).stdout;
    assert_ne!(first, second);
    let asked = proxy.asked();
    assert_eq!(asked.iter().filter(|asked| asked.is_blob()).count(), 2, "a configuration and a layer: {asked:?}");
    assert_eq!(nsrs.read_by_skopeo(&name)["layers"].as_array().unwrap().len(), 3);
}

#[test]
fn docker_schema_2_and_every_compression_are_taken() {
    if !ready() {
        return;
    }
    let registry = Registry::start();
    let source = Source::new(&[100_000]);
    // First, for later skopeo would take what it knows to be in the registry.
    source.copy_to(&registry, "zstd:1", &["--dest-compress-format", "zstd", "--format", "oci"]);
    source.copy_to(&registry, "docker:1", &["--format", "v2s2"]);
    let plain = source.dir.path("plain");
    let uncompressed = format!("dir:{}", plain.display());
    crate::support::tool("skopeo", &["copy", "-q", "--dest-decompress", &source.name(), &uncompressed]);
    let target = format!("docker://{}", registry.image("plain:1"));
    let as_it_is = ["copy", "-q", "--preserve-digests", "--dest-tls-verify=false", &uncompressed, &target];
    crate::support::tool("skopeo", &as_it_is);
    let nsrs = Nsrs::new();
    for name in ["docker:1", "zstd:1", "plain:1"] {
        nsrs.works(&["pull", &registry.image(name)]);
    }
    nsrs.check_blobs();
    for (name, kind) in [("zstd:1", "v1.tar+zstd"), ("plain:1", "v1.tar"), ("docker:1", "rootfs.diff.tar.gzip")] {
        let source = format!("docker://{}", registry.image(name));
        let raw = crate::support::tool("skopeo", &["inspect", "--raw", "--tls-verify=false", &source]);
        let manifest: serde_json::Value = serde_json::from_str(&raw).unwrap();
        assert!(
            manifest["layers"][1]["mediaType"].as_str().unwrap().ends_with(kind),
            "{name} is no test of {kind}: {raw}"
        );
    }
    // Another tool reads what is of OCI's types; docker's it does not expect in an OCI layout.
    for name in ["zstd:1", "plain:1"] {
        nsrs.read_by_skopeo(&registry.image(name));
    }
}

#[test]
fn a_layer_that_unpacks_to_very_much_more_is_taken_when_it_is_said() {
    if !ready() {
        return;
    }
    let registry = Registry::start();
    let source = Source::new(&[]);
    let (zeroes, archive) = (source.dir.path("zeroes"), source.dir.path("zeroes.tar"));
    fs::File::create(&zeroes).unwrap().set_len(1100 << 20).unwrap();
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    crate::support::tool("tar", &["-C", &text(&source.dir.0), "-cf", &text(&archive), "zeroes"]);
    source.add(&archive);
    source.copy_to(&registry, "a:1", &[]);
    let (nsrs, name) = (Nsrs::new(), registry.image("a:1"));
    nsrs.fails(&["pull", &name], &["200 times its size", "hint: ", "a higher --max-ratio"]);
    nsrs.fails(&["pull", "--max-ratio", "0", &name], &["invalid --max-ratio"]);
    assert_eq!(nsrs.works(&["images", "--quiet"]).stdout, "");
    nsrs.works(&["pull", "--max-ratio", "2000", &name]);
    assert!(nsrs.works(&["pull", &name]).stderr.contains("already exists; checked in"));
}

#[test]
fn a_layer_of_another_diff_id_is_an_error_and_nothing_of_it_can_be_used() {
    if !ready() {
        return;
    }
    let registry = Registry::start();
    let source = Source::new(&[100_000]);
    let other = nsrs_store::digest::Digest::of(b"another").to_string();
    let mut right = serde_json::Value::Null;
    source.change(|_, config| {
        right = std::mem::replace(&mut config["rootfs"]["diff_ids"][1], other.as_str().into());
    });
    source.copy_to(&registry, "a:1", &[]);
    let (nsrs, name) = (Nsrs::new(), registry.image("a:1"));
    for _ in 0..2 {
        nsrs.fails(&["pull", &name], &["verify the layer", &other, right.as_str().unwrap(), "diff id"]);
        assert_eq!(nsrs.works(&["images", "--format", "json"]).stdout.trim(), "[]");
        nsrs.fails(&["prepare", &name], &["not in the store"]);
        for diff_id in [&other, right.as_str().unwrap()] {
            assert!(!nsrs.store().join("layers").join(&diff_id["sha256:".len()..]).exists());
        }
        let layers = fs::read_dir(nsrs.store().join("layers")).unwrap();
        assert!(layers.flatten().all(|entry| !entry.file_name().to_string_lossy().starts_with('.')));
        nsrs.check_blobs();
    }
    nsrs.works(&["prune"]);
    assert_eq!(nsrs.check_blobs(), 0);
    // Taken packed, it is found when it is to be unpacked.
    nsrs.works(&["pull", "--no-unpack", &name]);
    nsrs.fails(&["prepare", &name], &["verify the layer", &other]);
}

#[test]
fn a_layer_is_held_against_its_diff_id_whatever_the_store_has() {
    if !ready() {
        return;
    }
    let registry = Registry::start();
    let (good, bad) = (Source::new(&[1000]), Source::new(&[1000]));
    good.copy_to(&registry, "good:1", &[]);
    let mut known = serde_json::Value::Null;
    good.change(|_, config| known = config["rootfs"]["diff_ids"][1].clone());
    bad.change(|_, config| config["rootfs"]["diff_ids"][1] = known.clone());
    bad.copy_to(&registry, "bad:1", &[]);
    let proxy = Faulty::before(&registry.address);
    let nsrs = Nsrs::new();
    nsrs.works(&["pull", &proxy.image("good:1")]);
    proxy.asked();
    // The second time the blob is there, too.
    for _ in 0..2 {
        nsrs.fails(&["pull", &proxy.image("bad:1")], &["verify the layer", known.as_str().unwrap()]);
    }
    let listed = nsrs.works(&["images", "--format", "json"]).stdout;
    assert!(listed.contains("good:1") && !listed.contains("bad:1"), "{listed}");
    // What was seen to belong together isn't looked at again.
    proxy.asked();
    assert!(nsrs.works(&["pull", &proxy.image("good:1")]).stderr.contains("already exists; checked in"));
    assert_eq!(proxy.asked().len(), 1);
    // Taken packed, it is found when it is unpacked.
    nsrs.works(&["pull", "--no-unpack", &proxy.image("bad:1")]);
    nsrs.fails(&["prepare", &proxy.image("bad:1")], &["verify the layer"]);
}

#[test]
fn a_layer_that_is_listed_in_two_ways_is_an_error() {
    if !ready() {
        return;
    }
    let registry = Registry::start();
    let other = nsrs_store::digest::Digest::of(b"another").to_string();
    let (twice, size) = (Source::new(&[10]), Source::new(&[10]));
    size.copy_to(&registry, "right:1", &[]);
    twice.change(|manifest, config| {
        let first = manifest["layers"][0].clone();
        manifest["layers"].as_array_mut().unwrap().push(first);
        config["rootfs"]["diff_ids"].as_array_mut().unwrap().push(other.into());
        config["history"] = serde_json::json!([]);
    });
    size.change(|manifest, _| {
        let layer = &mut manifest["layers"][1]["size"];
        *layer = (layer.as_u64().unwrap() + 1).into();
    });
    for (source, why) in [(&twice, "listed with different"), (&size, "the manifest says")] {
        source.put_to(&registry, "wrong");
        let nsrs = Nsrs::new();
        nsrs.works(&["pull", &registry.image("right:1")]);
        nsrs.fails(&["pull", &registry.image("wrong:1")], &["pull", why]);
        assert!(!nsrs.works(&["images"]).stdout.contains("wrong"));
    }
}

#[test]
fn an_id_is_removed_with_all_manifests_that_have_it() {
    if !ready() {
        return;
    }
    let registry = Registry::start();
    let source = Source::new(&[10]);
    // The same configuration, under manifests of two kinds.
    source.copy_to(&registry, "docker:1", &["--format", "v2s2"]);
    source.copy_to(&registry, "oci:1", &[]);
    let nsrs = Nsrs::new();
    let pull = || {
        for name in ["docker:1", "oci:1"] {
            nsrs.works(&["pull", &registry.image(name)]);
        }
        let listed: serde_json::Value =
            serde_json::from_str(&nsrs.works(&["images", "--format", "json"]).stdout).unwrap();
        assert!(listed[0]["id"] == listed[1]["id"] && listed[0]["digest"] != listed[1]["digest"], "{listed}");
        (listed[0]["id"].as_str().unwrap().to_owned(), listed[0]["digest"].as_str().unwrap().to_owned())
    };
    let (id, digest) = pull();
    nsrs.fails(&["rmi", &id], &["2 names", "docker:1", "oci:1"]);
    let ran = nsrs.works(&["rmi", "--force", &id[7..19]]);
    assert_eq!(ran.stdout.lines().filter(|line| line.starts_with("untagged: ")).count(), 2, "{}", ran.stdout);
    assert_eq!(nsrs.check_blobs(), 0);
    // The digest of a manifest means this one.
    pull();
    nsrs.works(&["rmi", &digest]);
    assert_eq!(nsrs.works(&["images", "--quiet"]).stdout.lines().count(), 1);
}

#[test]
fn progress_is_told_as_it_was_asked_for() {
    if !ready() {
        return;
    }
    let registry = Registry::start();
    Source::new(&[500_000]).copy_to(&registry, "a:1", &[]);
    let name = registry.image("a:1");
    let ran = Nsrs::new().works(&["pull", "--progress", "json", &name]);
    let events: Vec<serde_json::Value> =
        ran.stderr.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert_eq!(events[0]["event"], "resolving");
    let layers: Vec<_> = events.iter().filter(|event| event["event"] == "layer").collect();
    for phase in ["waiting", "downloading", "verifying", "done"] {
        assert!(layers.iter().any(|event| event["phase"] == phase), "{phase}: {}", ran.stderr);
    }
    let last = events.last().unwrap();
    assert_eq!((&last["event"], &last["reference"]), (&"done".into(), &name.as_str().into()));
    assert!(last["digest"].as_str().unwrap().starts_with("sha256:"));

    let plain = Nsrs::new().works(&["pull", &name]);
    let lines: Vec<&str> = plain.stderr.lines().collect();
    assert!(lines.iter().filter(|line| line.contains(": done, ")).count() >= 2, "{lines:?}");
    assert!(lines.last().unwrap().starts_with(&format!("{name}: sha256:")), "{lines:?}");
    let failed = Nsrs::new().run(&["pull", "--progress", "json", &registry.image("nothing")]);
    let error: serde_json::Value = serde_json::from_str(failed.stderr.lines().last().unwrap()).unwrap();
    assert_eq!((&error["event"], &error["code"]), (&"error".into(), &"ERR_NSRS_IMAGE_NOT_FOUND".into()));
}

#[test]
fn a_registry_that_knows_no_head_is_asked_with_get() {
    if !ready() {
        return;
    }
    let registry = Registry::start();
    Source::new(&[10]).copy_to(&registry, "a:1", &[]);
    let proxy = Faulty::before(&registry.address);
    let refuse = Act::Reply("405 Method Not Allowed", String::new(), String::new());
    proxy.fault(99, refuse, |asked| asked.method == "HEAD");
    let (nsrs, name) = (Nsrs::new(), proxy.image("a:1"));
    nsrs.works(&["pull", &name]);
    proxy.asked();
    nsrs.works(&["pull", &name]);
    let asked: Vec<_> = proxy.asked().iter().map(|asked| asked.method.clone()).collect();
    assert_eq!(asked, ["HEAD", "GET"]);
}

#[test]
fn a_terminal_shows_a_line_for_each_layer() {
    if !ready() {
        return;
    }
    let registry = Registry::start();
    Source::new(&[2_000_000]).copy_to(&registry, "a:1", &[]);
    let proxy = Faulty::before(&registry.address);
    proxy.fault(99, Act::Slow(40_000), |asked| asked.is_blob());
    let (nsrs, name) = (Nsrs::new(), proxy.image("a:1"));
    // What is asked for is what a terminal gets.
    let ran = nsrs.works(&["pull", "--progress", "live", &name]);
    assert!(ran.stderr.contains("\u{1b}[2A"), "two lines are drawn over: {:?}", ran.stderr);
    assert!(ran.stderr.contains(" of 2.0 MB  ") && ran.stderr.contains("B/s"), "{:?}", ran.stderr);
    let last: Vec<&str> = ran.stderr.lines().rev().take(3).collect();
    assert!(last[0].starts_with(&format!("\u{1b}[J{name}: sha256:")), "{last:?}");
    assert!(last[1].contains("  done  ") && last[2].contains("  done  "), "{last:?}");
}

#[test]
fn mirrors_are_asked_first_and_may_fail() {
    if !ready() {
        return;
    }
    let (registry, empty) = (Registry::start(), Registry::start());
    Source::new(&[1000]).copy_to(&registry, "library/a:1", &[]);
    let (front, mirror) = (Faulty::before(&registry.address), Faulty::before(&registry.address));
    let useless = Faulty::before(&empty.address);
    // All of an image of the default registry comes from its mirror.
    let nsrs = Nsrs::new().env("NSRS_REGISTRY_MIRRORS", &format!("http://{}", mirror.address));
    nsrs.works(&["pull", "a:1"]);
    assert!(mirror.asked().iter().any(|asked| asked.path.starts_with("/v2/library/a/")));
    // A mirror may keep the repositories of several registries, each below a path.
    Source::new(&[1000]).copy_to(&registry, "cache/docker/library/b:1", &[]);
    let nsrs = Nsrs::new().env("NSRS_REGISTRY_MIRRORS", &format!("docker.io=http://{}/cache/docker/", mirror.address));
    nsrs.works(&["pull", "b:1"]);
    // One that has nothing is told of, and then the registry itself is asked.
    let mirrors = format!("{0}=http://{1} {0}=http://127.0.0.1:1", front.address, useless.address);
    let nsrs = Nsrs::new().env("NSRS_REGISTRY_MIRRORS", &mirrors);
    let ran = nsrs.works(&["pull", &front.image("library/a:1")]);
    assert!(ran.stderr.contains("mirror 127.0.0.1") && ran.stderr.contains(" failed: "), "{}", ran.stderr);
    assert_eq!(useless.asked().len(), 1, "it is asked once");
    assert_eq!(ran.stderr.matches("127.0.0.1:1 ").count(), 1, "and so is one that isn't there: {}", ran.stderr);
    assert!(front.asked().iter().any(|asked| asked.is_blob()));
    let bad = Nsrs::new().env("NSRS_REGISTRY_MIRRORS", "nonsense");
    bad.fails(&["pull", "a"], &["invalid NSRS_REGISTRY_MIRRORS \"nonsense\""]);
}

#[test]
fn a_mirror_that_never_answers_is_not_waited_for_long() {
    if !ready() {
        return;
    }
    let registry = Registry::start();
    Source::new(&[1000]).copy_to(&registry, "a:1", &[]);
    // Connections are made, and nobody reads what comes.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mirrors = format!("{}=http://{}", registry.address, silent.local_addr().unwrap());
    let nsrs = Nsrs::new().env("NSRS_REGISTRY_MIRRORS", &mirrors);
    let ran = nsrs.works(&["pull", &registry.image("a:1")]);
    assert_eq!(ran.stderr.matches("does not respond").count(), 1, "{}", ran.stderr);
    assert!(ran.time < std::time::Duration::from_secs(30), "{:?}", ran.time);
}

#[test]
fn two_pulls_at_the_same_time_fetch_each_blob_once() {
    if !ready() {
        return;
    }
    let registry = Registry::start();
    Source::new(&[2_000_000, 2_000_000]).copy_to(&registry, "a:1", &[]);
    let proxy = Faulty::before(&registry.address);
    let (nsrs, name) = (Nsrs::new(), proxy.image("a:1"));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| nsrs.works(&["pull", &name]));
        }
    });
    assert_eq!(proxy.asked().iter().filter(|asked| asked.is_blob()).count(), 4);
    nsrs.check_blobs();
}

#[test]
fn an_ordinary_user_pulls_into_a_store_of_their_own() {
    if !ready() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        // The other tests are those of an ordinary user already.
        nsrs_testing::skip!("needs root");
    }
    let registry = Registry::start();
    Source::new(&[100_000]).copy_to(&registry, "a:1", &[]);
    let nsrs = Nsrs::new();
    let program = nsrs.dir.path("nsrs-image");
    std::fs::copy(env!("CARGO_BIN_EXE_nsrs-image"), &program).unwrap();
    for path in [&nsrs.dir.0, &nsrs.dir.path("home")] {
        std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
    }
    let command = nsrs.command(&["pull", &registry.image("a:1")]);
    let mut ordinary = std::process::Command::new("setpriv");
    ordinary.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(&program).args(command.get_args());
    ordinary.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    for _ in 0..2 {
        let output = ordinary.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() && text.contains("user namespace") {
            println!("{text}");
            nsrs_testing::skip!("ordinary users can't make user namespaces");
        }
        assert!(output.status.success(), "{text}");
    }
    assert_eq!(nsrs.check_blobs(), 4);
}

#[test]
fn memory_does_not_grow_with_the_image() {
    if !ready() {
        return;
    }
    let registry = Registry::start();
    Source::new(&[60_000_000, 60_000_000]).copy_to(&registry, "a:1", &[]);
    let nsrs = Nsrs::new();
    let mut command = nsrs.command(&["pull", "--quiet", &registry.image("a:1")]);
    let mut child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
    let mut most = 0;
    while child.try_wait().unwrap().is_none() {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
        most = most.max(line.trim().trim_end_matches(" kB").parse::<u64>().unwrap());
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    assert!(child.wait().unwrap().success());
    assert!(most > 5_000 && most < 100_000, "{most} kB");
}
