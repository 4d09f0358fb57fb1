//! Which image of several, and documents that are none.

use nsrs_store::digest::Digest;
use serde_json::{Value, json};

use crate::support::{Nsrs, Registry, Source, ready, tool};

const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Pushes an image under `a:NAME` and returns its entry for an index.
fn entry(registry: &Registry, name: &str, platform: Value, extra: &[&str]) -> Value {
    Source::new(&[1000]).copy_to(registry, &format!("a:{name}"), extra);
    let raw = tool(
        "skopeo",
        &["inspect", "--raw", "--tls-verify=false", &format!("docker://{}", registry.image(&format!("a:{name}")))],
    );
    let kind = if extra.is_empty() { OCI } else { DOCKER };
    json!({ "mediaType": kind, "digest": Digest::of(raw.as_bytes()).to_string(), "size": raw.len(), "platform": platform })
}

#[test]
fn an_index_gives_the_image_of_the_platform_or_says_which_there_are() {
    if !ready() {
        return;
    }
    let registry = Registry::start();
    for (list, manifest, extra) in [
        ("application/vnd.oci.image.index.v1+json", "oci", &[] as &[&str]),
        ("application/vnd.docker.distribution.manifest.list.v2+json", "docker", &["--format", "v2s2"]),
    ] {
        let images = [
            ("amd", json!({"os": "linux", "architecture": "amd64"})),
            ("v6", json!({"os": "linux", "architecture": "arm", "variant": "v6"})),
            ("arm64", json!({"os": "linux", "architecture": "arm64", "variant": "v8"})),
        ];
        let entries: Vec<Value> =
            images.iter().map(|(name, platform)| entry(&registry, name, platform.clone(), extra)).collect();
        let index = json!({ "schemaVersion": 2, "mediaType": list, "manifests": entries }).to_string();
        registry.put_manifest("a", manifest, list, &index);
        let name = registry.image(&format!("a:{manifest}"));
        for (platform, wanted) in [("linux/amd64", 0), ("linux/arm/v7", 1), ("arm64", 2)] {
            let nsrs = Nsrs::new();
            let ran = nsrs.works(&["pull", "--format", "json", "--platform", platform, &name]);
            let result: Value = serde_json::from_str(&ran.stdout).unwrap();
            assert_eq!(result["image"], entries[wanted]["digest"], "{platform}");
            assert_eq!(result["digest"], Digest::of(index.as_bytes()).to_string());
            let again = nsrs.works(&["pull", "--format", "json", "--platform", platform, &name]);
            assert_eq!(serde_json::from_str::<Value>(&again.stdout).unwrap()["present"], true);
        }
        let nsrs = Nsrs::new();
        nsrs.fails(
            &["pull", "--platform", "linux/s390x", &name],
            &["no image for linux/s390x; available: linux/amd64, linux/arm/v6, linux/arm64/v8", "--platform"],
        );
        // Another platform under the same name takes its place.
        nsrs.works(&["pull", "--platform", "linux/arm/v6", &name]);
        let ran = nsrs.works(&["pull", "--format", "json", "--platform", "linux/arm64", &name]);
        assert_eq!(serde_json::from_str::<Value>(&ran.stdout).unwrap()["image"], entries[2]["digest"]);
    }
}

#[test]
fn documents_of_other_kinds_are_named() {
    if !ready() {
        return;
    }
    let registry = Registry::start();
    let proxy = crate::faulty::Faulty::before(&registry.address);
    let answer = |content_type: &str, document: String| {
        proxy.mend();
        let headers = format!("Content-Type: {content_type}\r\n");
        proxy.fault(99, crate::faulty::Act::Reply("200 OK", headers, document), |asked| asked.is_manifest());
    };
    let (nsrs, name) = (Nsrs::new(), proxy.image("a:1"));
    let config = json!({ "mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": Digest::of(b"").to_string(), "size": 0 });
    for (content_type, document, texts) in [
        ("application/vnd.example+json", json!({}), vec!["unknown type application/vnd.example+json"]),
        (
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            json!({ "schemaVersion": 1, "fsLayers": [] }),
            vec!["docker's old schema 1", "hint: "],
        ),
        (
            OCI,
            json!({ "schemaVersion": 2, "config": config, "layers": [] }),
            vec!["vnd.cncf.helm.config", "not an image of a root"],
        ),
        (OCI, json!({ "schemaVersion": 2, "config": config, "manifests": [] }), vec!["both an image and an index"]),
        (OCI, json!([1]), vec!["read the manifest"]),
    ] {
        answer(content_type, document.to_string());
        nsrs.fails(&["pull", &name], &texts);
    }
    assert_eq!(nsrs.check_blobs(), 0);
}
