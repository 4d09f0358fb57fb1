//! A store of which something was altered, cut short or removed: told by name, and brought again.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::support::{Nsrs, Registry, Source, ready};

/// An image in a store, and where its parts are.
struct Bench {
    _registry: Registry,
    nsrs: Nsrs,
    name: String,
    manifest: PathBuf,
    config: PathBuf,
    layer: PathBuf,
    tree: PathBuf,
}

fn bench() -> Option<Bench> {
    if !ready() {
        return None;
    }
    let registry = Registry::start();
    Source::new(&[100_000]).copy_to(&registry, "a:1", &[]);
    let (nsrs, name) = (Nsrs::new(), registry.image("a:1"));
    nsrs.works(&["pull", &name]);
    let found: Value = serde_json::from_str(&nsrs.works(&["inspect", &name]).stdout).unwrap();
    let hex = |digest: &Value| digest.as_str().unwrap()["sha256:".len()..].to_owned();
    let blob = |digest: &Value| nsrs.store().join("blobs/sha256").join(hex(digest));
    let (manifest, config) = (blob(&found[0]["Digest"]), blob(&found[0]["Id"]));
    let layer = blob(&found[0]["Layers"][1]["digest"]);
    let tree = nsrs.store().join("layers").join(hex(&found[0]["RootFS"]["Layers"][1]));
    Some(Bench { _registry: registry, nsrs, name, manifest, config, layer, tree })
}

impl Bench {
    /// All of it is there again.
    fn is_whole(&self) {
        assert!(self.nsrs.check_blobs() >= 4);
        assert!(self.tree.join("fs/noise0").exists());
        self.nsrs.works(&["export", "--output", "/dev/null", &self.name]);
        self.nsrs.works(&["save", "--output", "/dev/null", &self.name]);
    }
}

fn alter(path: &PathBuf) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn cut(path: &PathBuf) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

#[test]
fn a_pull_brings_what_is_damaged_or_gone() {
    let Some(bench) = bench() else { return };
    let gone = |path: &PathBuf| fs::remove_file(path).unwrap();
    for (part, path) in [("manifest", &bench.manifest), ("configuration", &bench.config), ("layer", &bench.layer)] {
        for (how, damage) in [("altered", alter as fn(&PathBuf)), ("cut", cut), ("gone", gone)] {
            println!("{part} {how}");
            damage(path);
            // That a layer is altered shows when it is needed: a pull of what is unpacked doesn't read it.
            if part == "layer" && how == "altered" {
                fs::remove_dir_all(&bench.tree).unwrap();
            }
            bench.nsrs.works(&["pull", &bench.name]);
            bench.is_whole();
        }
    }
    for gone in [bench.tree.clone(), bench.tree.join("fs"), bench.tree.join("layer.json")] {
        match gone.is_dir() {
            true => fs::remove_dir_all(gone).unwrap(),
            false => fs::remove_file(gone).unwrap(),
        }
        let ran = bench.nsrs.works(&["pull", &bench.name]);
        assert!(!ran.stderr.contains("already exists; checked in"), "{}", ran.stderr);
        bench.is_whole();
    }
}

#[test]
fn what_fails_on_a_damaged_layer_names_it_and_the_next_pull_brings_it() {
    let Some(bench) = bench() else { return };
    let blob = bench.layer.file_name().unwrap().to_str().unwrap();
    alter(&bench.layer);
    bench.nsrs.fails(&["save", "--output", "/dev/null", &bench.name], &[blob, "hint: ", "pull"]);
    bench.nsrs.works(&["pull", &bench.name]);
    bench.is_whole();
    let target = bench.name.replace("a:1", "b:1");
    bench.nsrs.works(&["tag", &bench.name, &target]);
    alter(&bench.layer);
    // Somewhere else, where no other repository lends it.
    let other = Registry::start();
    let elsewhere = other.image("c:1");
    bench.nsrs.works(&["tag", &bench.name, &elsewhere]);
    bench.nsrs.fails(&["push", &elsewhere], &[blob, "hint: ", "pull"]);
    bench.nsrs.works(&["pull", &bench.name]);
    bench.nsrs.works(&["push", &elsewhere]);
    // As a container that is to run finds it: the error has the image, the blob and what helps.
    for damage in [alter as fn(&PathBuf), cut] {
        damage(&bench.layer);
        fs::remove_dir_all(&bench.tree).unwrap();
        let hint = format!("nsrs pull {}", bench.name);
        bench.nsrs.fails(&["prepare", &bench.name], &[&bench.name, blob, &hint]);
        bench.nsrs.works(&["pull", &bench.name]);
        bench.is_whole();
    }
    alter(&bench.config);
    let hint = format!("nsrs pull {}", bench.name);
    bench
        .nsrs
        .fails(&["inspect", &bench.name], &[&bench.name, bench.config.file_name().unwrap().to_str().unwrap(), &hint]);
}

#[test]
fn a_load_brings_what_is_damaged() {
    let Some(bench) = bench() else { return };
    let docker = bench.nsrs.dir.path("docker.tar").display().to_string();
    let oci = bench.nsrs.dir.path("oci.tar").display().to_string();
    let layout = bench.nsrs.dir.path("layout");
    bench.nsrs.works(&["save", "--output", &docker, &bench.name]);
    bench.nsrs.works(&["save", "--type", "oci", "--output", &oci, &bench.name]);
    fs::create_dir(&layout).unwrap();
    crate::support::tool("tar", &["-C", layout.to_str().unwrap(), "-xf", &oci]);
    for archive in [docker.as_str(), &oci, layout.to_str().unwrap()] {
        for path in [&bench.manifest, &bench.config, &bench.layer] {
            alter(path);
            fs::remove_dir_all(bench.tree.join("fs")).unwrap();
            bench.nsrs.works(&["load", "--input", archive]);
            bench.is_whole();
        }
    }
}

#[test]
fn a_damaged_image_is_in_nobody_s_way() {
    let Some(bench) = bench() else { return };
    let nsrs = &bench.nsrs;
    let root = bench.nsrs.dir.path("tree");
    fs::create_dir(&root).unwrap();
    for name in ["one", "two", "three"] {
        fs::write(root.join("file"), name).unwrap();
        nsrs.works(&["import", root.to_str().unwrap(), name]);
    }
    for path in [&bench.manifest, &bench.config] {
        alter(path);
        let listed = nsrs.works(&["images"]).stdout;
        assert!(listed.contains("damaged") && listed.contains("three"), "{listed}");
        let ran = nsrs.works(&["rmi", if path == &bench.manifest { "one" } else { "two" }]);
        assert!(ran.stdout.contains("untagged: docker.io/library/"), "{}", ran.stdout);
        assert!(ran.stderr.contains(&format!("{} is damaged", bench.name)), "{}", ran.stderr);
        nsrs.works(&["pull", &bench.name]);
        bench.is_whole();
    }
    alter(&bench.manifest);
    let ran = nsrs.works(&["prune"]);
    assert!(ran.stdout.contains("removed") && ran.stderr.contains("is damaged"), "{} {}", ran.stdout, ran.stderr);
    nsrs.works(&["export", "--output", "/dev/null", "three"]);
    nsrs.works(&["pull", &bench.name]);
    bench.is_whole();
    alter(&bench.manifest);
    // By the beginning of the digest that is listed, too.
    let hex = bench.manifest.file_name().unwrap().to_str().unwrap();
    nsrs.works(&["rmi", &hex[..12]]);
    assert!(!nsrs.works(&["images"]).stdout.contains("damaged"));
    assert!(!bench.manifest.exists() && !bench.tree.exists());
    nsrs.works(&["export", "--output", "/dev/null", "three"]);
}
