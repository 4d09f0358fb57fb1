//! Pushing, read back by skopeo.

use std::fs;

use crate::faulty::{Act, Faulty};
use crate::support::{Dir, Nsrs, Registry, Source, ready, tool};

/// A registry with `a:1`, which was pulled into the store of this program.
fn pulled(sizes: &[usize]) -> Option<(Registry, Nsrs, String)> {
    if !ready() {
        return None;
    }
    let registry = Registry::start();
    Source::new(sizes).copy_to(&registry, "a:1", &[]);
    let (nsrs, name) = (Nsrs::new(), registry.image("a:1"));
    nsrs.works(&["pull", &name]);
    Some((registry, nsrs, name))
}

fn digest_by_skopeo(name: &str) -> String {
    let inspected = tool("skopeo", &["inspect", "--tls-verify=false", &format!("docker://{name}")]);
    serde_json::from_str::<serde_json::Value>(&inspected).unwrap()["Digest"].as_str().unwrap().to_owned()
}

fn copy_by_skopeo(name: &str) {
    let dir = Dir::new();
    let target = format!("dir:{}", dir.path("copy").display());
    tool("skopeo", &["copy", "-q", "--src-tls-verify=false", &format!("docker://{name}"), &target]);
    assert!(fs::read_dir(dir.path("copy")).unwrap().count() > 3);
}

#[test]
fn what_was_pushed_is_read_by_skopeo() {
    let Some((_registry, nsrs, name)) = pulled(&[3_000_000]) else { return };
    let empty = Registry::start();
    let target = empty.image("team/b:2");
    let ran = nsrs.works(&["push", "--quiet", &name, &target]);
    assert_eq!(ran.stdout.trim(), digest_by_skopeo(&target));
    copy_by_skopeo(&target);
    // The second time everything exists.
    let proxy = Faulty::before(&empty.address);
    nsrs.works(&["push", &name, &proxy.image("team/b:3")]);
    let asked = proxy.asked();
    assert!(asked.iter().all(|asked| asked.method == "HEAD" || asked.is_manifest()), "{asked:?}");
    assert_eq!(digest_by_skopeo(&empty.image("team/b:3")), ran.stdout.trim());
}

#[test]
fn blobs_of_another_repository_are_mounted() {
    if !ready() {
        return;
    }
    let registry = Registry::start();
    Source::new(&[1_000_000]).copy_to(&registry, "a:1", &[]);
    let proxy = Faulty::before(&registry.address);
    let nsrs = Nsrs::new();
    nsrs.works(&["pull", &proxy.image("a:1")]);
    proxy.asked();
    nsrs.works(&["push", &proxy.image("a:1"), &proxy.image("b:1")]);
    let asked = proxy.asked();
    let mounts = asked.iter().filter(|asked| asked.path.contains("mount=sha256:") && asked.path.contains("from=a"));
    assert_eq!(mounts.count(), 3, "{asked:?}");
    assert!(!asked.iter().any(|asked| asked.method == "PUT" && asked.path.contains("/blobs/")), "{asked:?}");
    copy_by_skopeo(&registry.image("b:1"));
}

#[test]
fn a_broken_upload_goes_on_in_pieces() {
    let Some((_registry, nsrs, name)) = pulled(&[12_000_000]) else { return };
    let empty = Registry::start();
    let proxy = Faulty::before(&empty.address);
    proxy.fault(1, Act::CutUpload(5_000_000), |asked| {
        asked.method == "PUT" && asked.header("content-length").is_some_and(|length| length.len() > 7)
    });
    proxy.fault(1, Act::CutUpload(2_000_000), |asked| {
        asked.method == "PATCH" && asked.header("content-range").is_some_and(|range| range.starts_with('4'))
    });
    nsrs.works(&["push", &name, &proxy.image("b:1")]);
    let asked = proxy.asked();
    assert!(asked.iter().filter(|asked| asked.method == "PATCH").count() >= 3, "{asked:?}");
    copy_by_skopeo(&empty.image("b:1"));
}

#[test]
fn a_server_that_fails_now_and_then_gets_everything_in_the_end() {
    let Some((_registry, nsrs, name)) = pulled(&[1_000_000]) else { return };
    let empty = Registry::start();
    let proxy = Faulty::before(&empty.address);
    let busy = |header: &str| Act::Reply("503 Busy", header.to_owned(), String::new());
    proxy.fault(1, busy("Retry-After: 1\r\n"), |asked| asked.method == "POST");
    proxy.fault(2, busy(""), |asked| asked.method == "PUT");
    proxy.fault(1, busy(""), |asked| asked.method == "HEAD");
    nsrs.works(&["push", &name, &proxy.image("b:1")]);
    copy_by_skopeo(&empty.image("b:1"));
}

#[test]
fn what_cannot_be_pushed_is_said() {
    let Some((registry, nsrs, name)) = pulled(&[10]) else { return };
    nsrs.fails(&["push", &registry.image("unknown:1")], &["find the image", "not in the store"]);
    let digest = format!("{}@sha256:{}", registry.image("a"), "0".repeat(64));
    nsrs.fails(&["push", &name, &digest], &["a digest can't be pushed to"]);
    let proxy = Faulty::before(&registry.address);
    proxy.fault(99, Act::Reply("403 No", String::new(), String::new()), |asked| asked.method == "POST");
    proxy.fault(99, Act::Reply("404 No", String::new(), String::new()), |asked| asked.method == "HEAD");
    nsrs.fails(&["push", &name, &proxy.image("b:1")], &["push", "denies access to", &proxy.address, "nsrs login"]);
}

#[test]
fn an_index_is_pushed_with_all_it_names() {
    if !ready() {
        return;
    }
    let registry = Registry::start();
    let list = "application/vnd.oci.image.index.v1+json";
    let entries: Vec<_> = ["amd64", "arm64"]
        .iter()
        .map(|arch| {
            Source::new(&[1000]).copy_to(&registry, &format!("a:{arch}"), &[]);
            let source = format!("docker://{}", registry.image(&format!("a:{arch}")));
            let raw = tool("skopeo", &["inspect", "--raw", "--tls-verify=false", &source]);
            serde_json::json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": nsrs_store::digest::Digest::of(raw.as_bytes()).to_string(),
                "size": raw.len(),
                "platform": { "os": "linux", "architecture": arch },
            })
        })
        .collect();
    let index = serde_json::json!({ "schemaVersion": 2, "mediaType": list, "manifests": entries }).to_string();
    registry.put_manifest("a", "all", list, &index);
    let empty = Registry::start();
    let (nsrs, target) = (Nsrs::new(), empty.image("b:all"));
    // Written by skopeo, whole: a pull takes only one platform.
    let archive = nsrs.dir.path("all.tar").display().to_string();
    let source = format!("docker://{}", registry.image("a:all"));
    tool(
        "skopeo",
        &["copy", "-q", "--all", "--src-tls-verify=false", &source, &format!("oci-archive:{archive}:{target}")],
    );
    nsrs.works(&["load", "--input", &archive]);
    nsrs.works(&["push", &target]);
    let dir = Dir::new();
    let copy = format!("dir:{}", dir.path("copy").display());
    tool("skopeo", &["copy", "-q", "--all", "--src-tls-verify=false", &format!("docker://{target}"), &copy]);
    assert_eq!(tool("skopeo", &["inspect", "--raw", &copy]).matches("linux").count(), 2);
}

#[test]
fn layers_that_lie_unpacked_are_sent_packed_and_the_same_each_time() {
    if !ready() {
        return;
    }
    let nsrs = Nsrs::new();
    let tree = nsrs.dir.path("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("zeroes"), vec![0; 5_000_000]).unwrap();
    nsrs.works(&["import", "--", &tree.display().to_string(), "tree:1"]);
    let registry = Registry::start();
    let pushed = nsrs.works(&["push", "--quiet", "tree:1", &registry.image("tree:1")]);
    assert_eq!(pushed.stdout.trim(), digest_by_skopeo(&registry.image("tree:1")));
    let source = format!("docker://{}", registry.image("tree:1"));
    let raw = tool("skopeo", &["inspect", "--raw", "--tls-verify=false", &source]);
    let layer = serde_json::from_str::<serde_json::Value>(&raw).unwrap()["layers"][0].clone();
    assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
    assert!(layer["size"].as_u64().unwrap() < 100_000, "{layer}");
    let dir = Dir::new();
    let unpacked = dir.path("unpacked").display().to_string();
    let layout = format!("oci:{}:tree", dir.path("oci").display());
    tool("skopeo", &["copy", "-q", "--src-tls-verify=false", &source, &layout]);
    tool("umoci", &["unpack", "--rootless", "--image", &layout[4..], &unpacked]);
    assert_eq!(fs::read(dir.path("unpacked/rootfs/zeroes")).unwrap(), vec![0; 5_000_000]);

    let proxy = Faulty::before(&registry.address);
    let again = nsrs.works(&["push", "--quiet", "tree:1", &proxy.image("tree:2")]);
    assert_eq!(again.stdout, pushed.stdout);
    let asked = proxy.asked();
    assert!(asked.iter().all(|asked| asked.method == "HEAD" || asked.is_manifest()), "{asked:?}");
    // What is here stays as it is.
    assert_ne!(nsrs.read_by_skopeo("docker.io/library/tree:1")["layers"][0], layer);
    assert_eq!(fs::read_dir(nsrs.store().join("ingest")).unwrap().count(), 0);
}

#[test]
fn an_altered_layer_is_not_packed() {
    if !ready() {
        return;
    }
    let nsrs = Nsrs::new();
    let tree = nsrs.dir.path("tree");
    fs::create_dir(&tree).unwrap();
    nsrs.works(&["import", "--", &tree.display().to_string(), "tree:1"]);
    let digest = nsrs.read_by_skopeo("docker.io/library/tree:1")["layers"][0]["digest"].clone();
    let blob = nsrs.store().join("blobs/sha256").join(digest.as_str().unwrap().trim_start_matches("sha256:"));
    let mut bytes = fs::read(&blob).unwrap();
    bytes[0] ^= 1;
    fs::write(&blob, bytes).unwrap();
    let registry = Registry::start();
    nsrs.fails(&["push", "tree:1", &registry.image("tree:1")], &["verify the blob", "altered on disk"]);
}
