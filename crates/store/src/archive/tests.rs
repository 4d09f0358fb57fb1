use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use nsrs_testing::skip;
use serde_json::{Value, json};

use super::*;
use crate::content::{IndexEntry, IngestStart, PruneWait, Store};
use crate::digest::Digest;
use crate::limits::Limits;
use crate::reference::Reference;
use crate::tar::write::Writer;
use crate::tar::{EntryKind, TarEntry};
use crate::unpack::UnpackOptions;
use nsrs_base::error::{Code, Result};

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("nsrs-archive-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    fn store(&self, name: &str) -> Store {
        Store::open(&self.0.join(name)).unwrap()
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn root() -> bool {
    rustix::process::geteuid().is_root()
}

fn options() -> UnpackOptions {
    if root() { UnpackOptions::privileged() } else { UnpackOptions::unprivileged() }
}

fn entry(kind: EntryKind, path: &str, size: usize) -> TarEntry {
    let mode = if kind == EntryKind::Directory { 0o755 } else { 0o644 };
    TarEntry {
        path: path.into(),
        link: Vec::new(),
        kind,
        mode,
        uid: 0,
        gid: 0,
        mtime: (1_000_000_000, 0),
        device: (0, 0),
        size: size as u64,
        sparse: None,
        xattrs: Vec::new(),
    }
}

/// An archive of files (with a text) and directories (with none).
fn tar(entries: &[(&str, Option<&str>)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (path, text) in entries {
        let kind = if text.is_some() { EntryKind::File } else { EntryKind::Directory };
        writer.entry(&entry(kind, path, text.map_or(0, str::len))).unwrap();
        writer.data(text.unwrap_or_default().as_bytes()).unwrap();
    }
    writer.finish().unwrap()
}

/// Adds an image of these layers to a store.
fn image(store: &Store, name: Option<&str>, layers: &[Vec<u8>]) -> IndexEntry {
    let diff_ids: Vec<String> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
    let config = json!({ "architecture": "amd64", "os": "linux", "config": { "Cmd": ["sh"], "X-Own": 1 },
        "rootfs": { "type": "layers", "diff_ids": diff_ids } })
    .to_string();
    let layers: Vec<Value> = layers
        .iter()
        .map(|layer| {
            // What every tool of every age reads.
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut packer, layer).unwrap();
            let packed = packer.finish().unwrap();
            json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "digest": store.add(&packed).unwrap().to_string(), "size": packed.len() })
        })
        .collect();
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "layers": layers,
        "config": { "mediaType": CONFIG, "digest": store.add(config.as_bytes()).unwrap().to_string(), "size": config.len() } })
    .to_string();
    let descriptor = load::descriptor(&store.add(manifest.as_bytes()).unwrap(), manifest.len() as u64);
    match name {
        Some(name) => store.tag(name, &descriptor).unwrap(),
        None => store.list(&descriptor).unwrap(),
    }
    IndexEntry { name: name.map(str::to_owned), descriptor }
}

const NAME: &str = "docker.io/library/test:1";

fn saved(store: &Store, images: &[IndexEntry], format: save::Format) -> Vec<u8> {
    let mut archive = Vec::new();
    save::save(store, images, format, &mut archive).unwrap();
    archive
}

/// Loads an archive as `nsrs load` does.
fn load_and_prepare(store: &Store, input: impl std::io::Read + Send, name: Option<&str>) -> Result<load::Loaded> {
    load::load(store, input, name, Limits::default(), |image| store.prepare(image, &options(), None))
}

/// Runs a program, which must succeed; returns what it printed.
fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn is_installed(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn what_is_saved_is_loaded_as_the_same_image() {
    let scratch = Scratch::new("round");
    let from = scratch.store("from");
    let layers = [tar(&[("a", Some("1"))]), tar(&[("b", Some("2"))])];
    let one = image(&from, Some(NAME), &layers);
    let two = IndexEntry { name: Some("quay.io/x/y:z".into()), ..one.clone() };
    from.tag("quay.io/x/y:z", &one.descriptor).unwrap();
    let other = image(&from, None, &layers[..1]);
    for format in [save::Format::Docker, save::Format::Oci] {
        let archive = saved(&from, &[one.clone(), two.clone(), other.clone()], format);
        assert_eq!(archive, saved(&from, &[one.clone(), two.clone(), other.clone()], format), "the same bytes again");
        for packed in [archive.clone(), zstd::encode_all(&archive[..], 1).unwrap()] {
            let to = scratch.store(&format!("to-{format:?}-{}", packed.len()));
            let loaded = load_and_prepare(&to, &packed[..], None).unwrap();
            assert_eq!((loaded.images.len(), loaded.refused), (3, vec![]));
            assert_eq!(to.resolve(NAME).unwrap().digest(), one.descriptor.digest());
            assert_eq!(to.resolve("quay.io/x/y:z").unwrap().digest(), one.descriptor.digest());
            let opened = to.image(&to.find(NAME).unwrap()).unwrap();
            assert_eq!(opened.config.raw["config"]["X-Own"], 1);
            assert_eq!(to.images().unwrap().iter().filter(|image| image.name.is_none()).count(), 1);
            to.unpack_image(&opened, &options(), None).unwrap();
            assert_eq!(to.prune(PruneWait::No, true).unwrap().unwrap().blobs, 0);
        }
    }
}

#[test]
fn skopeo_reads_what_is_saved_and_what_it_writes_is_loaded() {
    if !is_installed("skopeo") {
        skip!("needs skopeo");
    }
    let scratch = Scratch::new("skopeo");
    let from = scratch.store("from");
    let one = image(&from, Some(NAME), &[tar(&[("a", Some("1"))]), tar(&[("b", Some("2"))])]);
    fs::write(scratch.at("docker.tar"), saved(&from, std::slice::from_ref(&one), save::Format::Docker)).unwrap();
    fs::write(scratch.at("oci.tar"), saved(&from, std::slice::from_ref(&one), save::Format::Oci)).unwrap();
    let (docker, oci) = (scratch.at("docker.tar"), scratch.at("oci.tar"));
    let inspected = run("skopeo", &["inspect", &format!("docker-archive:{}", text(&docker))]);
    assert!(inspected.contains("\"Architecture\": \"amd64\""), "{inspected}");
    let inspected = run("skopeo", &["inspect", &format!("oci-archive:{}:{NAME}", text(&oci))]);
    assert!(inspected.contains(&one.descriptor.digest().to_string()), "{inspected}");
    // The store itself is a layout that others read.
    let inspected = run("skopeo", &["inspect", &format!("oci:{}:{NAME}", text(&scratch.at("from")))]);
    assert!(inspected.contains(&one.descriptor.digest().to_string()), "{inspected}");
    // And the other way: the older form with links and bare layers, and a layout of somebody else's.
    let source = format!("oci:{}:{NAME}", text(&scratch.at("from")));
    let (old, layout, archive) = (scratch.at("old.tar"), scratch.at("layout"), scratch.at("other.tar"));
    for to in [
        format!("docker-archive:{}:test:old", text(&old)),
        format!("oci:{}:test:layout", text(&layout)),
        format!("oci-archive:{}:test:archive", text(&archive)),
    ] {
        run("skopeo", &["copy", "--quiet", &source, &to]);
    }
    let to = scratch.store("to");
    load_and_prepare(&to, fs::File::open(&old).unwrap(), None).unwrap();
    load::load_layout(&to, &layout, None, |_| Ok(())).unwrap();
    load_and_prepare(&to, fs::File::open(&archive).unwrap(), None).unwrap();
    for tag in ["old", "layout", "archive"] {
        let opened = to.image(&to.find(&format!("test:{tag}")).unwrap()).unwrap();
        assert_eq!(opened.config.cmd(), ["sh"]);
        to.unpack_image(&opened, &options(), None).unwrap();
        let stack = to.stack(&opened.config.diff_ids).unwrap();
        assert_eq!(fs::read_to_string(stack.layers[1].path.join("b")).unwrap(), "2");
    }
}

#[test]
fn umoci_unpacks_the_same_tree() {
    let scratch = Scratch::new("umoci");
    let store = scratch.store("store");
    let layers = [
        tar(&[
            ("d", None),
            ("d/a", Some("1")),
            ("d/b", Some("2")),
            ("e", None),
            ("e/old", Some("3")),
            ("f", Some("4")),
        ]),
        tar(&[
            ("d", None),
            ("d/.wh.a", Some("")),
            ("e", None),
            ("e/.wh..wh..opq", Some("")),
            ("e/new", Some("5")),
            ("f", Some("6")),
        ]),
    ];
    let named = image(&store, Some("test:umoci"), &layers);
    let opened = store.image(&named).unwrap();
    store.unpack_image(&opened, &options(), None).unwrap();
    let stack = store.stack(&opened.config.diff_ids).unwrap();
    fs::create_dir(scratch.at("flat")).unwrap();
    stack.copy(&scratch.at("flat")).unwrap();
    let mut archive = Vec::new();
    export::export(&stack, &mut archive).unwrap();
    fs::create_dir(scratch.at("exported")).unwrap();
    fs::write(scratch.at("flat.tar"), &archive).unwrap();
    run("tar", &["-C", text(&scratch.at("exported")), "-xf", text(&scratch.at("flat.tar"))]);
    let list = |path: &str| {
        run("sh", &["-c", &format!("cd '{}' && find . -type f -exec grep -H . {{}} + | sort", text(&scratch.at(path)))])
    };
    assert_eq!(list("flat"), "./d/b:2\n./e/new:5\n./f:6\n");
    assert_eq!(list("exported"), list("flat"));
    if !root() {
        return nsrs_testing::leave_out("needs root");
    }
    if !is_installed("skopeo") || !is_installed("umoci") {
        return nsrs_testing::leave_out("needs skopeo and umoci");
    }
    let bundle = scratch.at("bundle");
    // It takes no name with a colon in it, so it gets a layout with another one.
    let source = format!("oci:{}:test:umoci", text(&scratch.at("store")));
    let layout = scratch.at("layout");
    run("skopeo", &["copy", "--quiet", &source, &format!("oci:{}:t", text(&layout))]);
    run("umoci", &["unpack", "--image", &format!("{}:t", text(&layout)), text(&bundle)]);
    assert_eq!(list("bundle/rootfs"), list("flat"));
}

#[test]
fn a_layer_that_umoci_inserted_is_unpacked_though_it_has_no_end() {
    if !is_installed("umoci") {
        skip!("needs umoci");
    }
    let scratch = Scratch::new("umoci-insert");
    let image = format!("{}:t", text(&scratch.at("layout")));
    fs::write(scratch.at("file"), "no whole block").unwrap();
    run("umoci", &["init", "--layout", text(&scratch.at("layout"))]);
    run("umoci", &["new", "--image", &image]);
    let mut insert = vec!["insert", "--image", &image];
    if !root() {
        insert.push("--rootless");
    }
    run("umoci", &[&insert[..], &[text(&scratch.at("file")), "/d/file"]].concat());
    let mut layers = 0;
    for blob in fs::read_dir(scratch.at("layout/blobs/sha256")).unwrap() {
        let bytes = fs::read(blob.unwrap().path()).unwrap();
        if bytes.starts_with(&[0x1f, 0x8b]) {
            fs::create_dir(scratch.at("root")).unwrap();
            crate::unpack::unpack(&bytes[..], &scratch.at("root"), &options()).unwrap();
            layers += 1;
        }
    }
    assert_eq!(layers, 1);
    assert_eq!(fs::read_to_string(scratch.at("root/d/file")).unwrap(), "no whole block");
}

#[test]
fn what_is_no_archive_of_an_image_is_refused_and_leaves_nothing() {
    let scratch = Scratch::new("bad");
    let good_store = scratch.store("good");
    let good = image(&good_store, Some(NAME), &[tar(&[("a", Some("1"))])]);
    let archive = saved(&good_store, &[good], save::Format::Docker);
    let layer = tar(&[("a", Some("1"))]);
    let config = json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": [Digest::of(b"other").to_string()] } }).to_string();
    let old = |manifest: &str, config: &str| {
        let layer = String::from_utf8(layer.clone()).unwrap();
        tar(&[("layer.tar", Some(&layer)), ("config.json", Some(config)), ("manifest.json", Some(manifest))])
    };
    let item = r#"[{"Config":"config.json","RepoTags":["x:1"],"Layers":["layer.tar"]}]"#;
    let altered = {
        // A byte of the configuration, which is in the archive as it is.
        let mut bytes = archive.clone();
        let at = bytes.windows(5).position(|window| window == b"X-Own").unwrap();
        bytes[at] = b'Y';
        bytes
    };
    for (name, bytes, why) in [
        ("empty", Vec::new(), "the archive is empty"),
        ("root", tar(&[("bin", None), ("bin/sh", Some("x"))]), "not an archive of an image"),
        ("text", b"hello, this is no archive".repeat(50), "checksum"),
        ("cut", archive[..archive.len() / 2 / 512 * 512 + 100].to_vec(), "truncated"),
        ("altered", altered, "has the digest"),
        ("no-images", tar(&[("manifest.json", Some("[]"))]), "no images"),
        ("no-json", tar(&[("manifest.json", Some("[{"))]), "manifest.json"),
        ("no-config", old(r#"[{"Config":"gone.json","Layers":["layer.tar"]}]"#, &config), "not in the archive"),
        ("outside", old(r#"[{"Config":"../../etc/passwd","Layers":["layer.tar"]}]"#, &config), "leads out"),
        ("config-is-none", old(item, "[]"), "configuration"),
        ("diff-id", old(item, &config), "has the diff id"),
        ("layers", old(r#"[{"Config":"config.json","Layers":[]}]"#, &config), "0 layers, and 1"),
        ("blob-name", tar(&[("blobs/sha256/zz", Some("x"))]), "64 hexadecimal digits"),
        ("blob-lies", tar(&[(&format!("blobs/sha256/{}", Digest::of(b"a").hex()), Some("b"))]), "has the digest"),
        ("index-of-nothing", tar(&[("oci-layout", Some("{}")), ("index.json", Some(&json!({ "manifests": [{ "mediaType": MANIFEST, "digest": Digest::of(b"x").to_string(), "size": 1 }] }).to_string()))]), "not in the store"),
    ] {
        let store = scratch.store(name);
        let error = load_and_prepare(&store, &bytes[..], None).unwrap_err();
        assert!(error.to_string().contains(why), "{name}: {error}");
        assert_eq!(store.images().unwrap(), [], "{name}");
        assert_eq!(fs::read_dir(scratch.at(name).join("blobs/sha256")).unwrap().count(), 0, "{name}");
    }
    // With the right diff id it is one.
    let right = config.replace(&Digest::of(b"other").to_string(), &Digest::of(&layer).to_string());
    let loaded = load_and_prepare(&scratch.store("right"), &old(item, &right)[..], None).unwrap();
    assert_eq!(loaded.images[0].name.as_deref(), Some("docker.io/library/x:1"));
    // Invalid names are reported, and the others stay.
    let item = item.replace(r#""x:1""#, r#""../../x","x:1","UPPER:1","hos/typeV:1""#);
    let loaded = load_and_prepare(&scratch.store("names"), &old(&item, &right)[..], None).unwrap();
    let names: Vec<_> = loaded.images.iter().map(|image| image.name.as_deref().unwrap()).collect();
    assert_eq!(names, ["docker.io/library/x:1"]);
    let refused: Vec<_> = loaded.refused.iter().map(|error| error.subject.as_str()).collect();
    assert_eq!(refused, [r#""../../x""#, r#""UPPER:1""#, r#""hos/typeV:1""#]);
}

#[test]
fn saving_an_altered_image_is_an_error() {
    let scratch = Scratch::new("altered");
    let store = scratch.store("store");
    let layer = tar(&[("a", Some("1"))]);
    let one = image(&store, Some(NAME), std::slice::from_ref(&layer));
    let blob = store.image(&one).unwrap().layers().unwrap()[0];
    let mut bytes = fs::read(store.blob_path(&blob)).unwrap();
    bytes[10] ^= 1;
    fs::write(store.blob_path(&blob), bytes).unwrap();
    let error = save::save(&store, std::slice::from_ref(&one), save::Format::Docker, std::io::sink()).unwrap_err();
    assert_eq!(error.code, Code::ImageInvalid);
    // Whoever finds it removes it.
    let error = save::save(&store, &[one], save::Format::Docker, std::io::sink()).unwrap_err();
    assert_eq!(error.code, Code::ImageNotFound);
}

#[test]
fn a_directory_and_its_archive_become_images_with_the_same_tree() {
    let scratch = Scratch::new("import");
    let source = scratch.at("source");
    fs::create_dir_all(source.join("etc")).unwrap();
    fs::write(source.join("etc/hostname"), "box").unwrap();
    fs::hard_link(source.join("etc/hostname"), source.join("hard")).unwrap();
    symlink("etc/hostname", source.join("soft")).unwrap();
    fs::write(source.join("script"), "#!").unwrap();
    fs::set_permissions(source.join("script"), fs::Permissions::from_mode(0o4750)).unwrap();
    let file = fs::File::create(source.join("sparse")).unwrap();
    file.set_len(10 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"end", (10 << 20) - 3).unwrap();
    let store = scratch.store("store");
    let mut config = json!({});
    for change in [
        "CMD sh -i",
        "ENTRYPOINT [\"/init\",\"-x\"]",
        "ENV A=1 B=\"2 3\"",
        "ENV C 4 5",
        "EXPOSE 80 53/udp",
        "LABEL k=v",
        "USER 5:6",
        "VOLUME /data",
        "WORKDIR /w",
        "STOPSIGNAL SIGINT",
    ] {
        instruction::change(&mut config, change).unwrap();
    }
    for bad in [
        "STOPSIGNAL FOO",
        "STOPSIGNAL 0",
        "EXPOSE x",
        "EXPOSE 80 99999",
        "EXPOSE 80/ip",
        "RUN x",
        "CMD",
        "ENV",
        "LABEL novalue",
    ] {
        assert!(instruction::change(&mut json!({}), bad).is_err(), "{bad}");
    }
    let about = import::About { name: Some("local/box".into()), message: "made".into(), config, architecture: None };
    let (by_directory, _) = import::import_directory(&store, &source, &about, &options()).unwrap();
    let opened = store.image(&by_directory).unwrap();
    assert_eq!(opened.name.as_deref(), Some("docker.io/local/box:latest"));
    assert_eq!(opened.config.cmd(), ["/bin/sh", "-c", "sh -i"]);
    assert_eq!(opened.config.entrypoint(), ["/init", "-x"]);
    assert_eq!(opened.config.env(), ["A=1", "B=2 3", "C=4 5"]);
    assert_eq!(opened.config.exposed_ports(), ["53/udp", "80/tcp"]);
    assert_eq!((opened.config.user(), opened.config.working_dir()), ("5:6", "/w"));
    let stack = store.stack(&opened.config.diff_ids).unwrap();
    let root = &stack.layers[0].path;
    let meta = fs::metadata(root.join("script")).unwrap();
    assert_eq!(meta.mode() & 0o7777, 0o4750);
    assert_eq!(fs::metadata(root.join("hard")).unwrap().nlink(), 2);
    let sparse = fs::metadata(root.join("sparse")).unwrap();
    assert!(sparse.len() == 10 << 20 && sparse.blocks() < 1000);
    // As an archive, packed: stored as it came.
    let mut archive = Vec::new();
    export::export(&stack, &mut archive).unwrap();
    let packed = zstd::encode_all(&archive[..], 1).unwrap();
    let about = import::About { name: Some("local/box:tar".into()), ..import::About::default() };
    let by_archive = import::import(&store, &packed[..], &about, &options()).unwrap();
    let opened = store.image(&by_archive).unwrap();
    assert_eq!(opened.layers().unwrap(), [Digest::of(&packed)]);
    assert_eq!(opened.config.diff_ids, [Digest::of(&archive)]);
    let other = store.stack(&opened.config.diff_ids).unwrap();
    let mut again = Vec::new();
    export::export(&other, &mut again).unwrap();
    assert_eq!(archive, again);
    // What isn't one leaves nothing behind.
    let error = import::import(&store, &b"no archive at all"[..], &about, &options()).unwrap_err();
    assert!(error.to_string().contains("truncated"), "{error}");
    assert_eq!(store.prune(PruneWait::No, true).unwrap().unwrap().blobs, 0);
}

#[test]
fn a_whiteout_that_hides_nothing_is_no_name() {
    let scratch = Scratch::new("whiteouts");
    let store = scratch.store("store");
    let layers = [
        tar(&[("old", None), ("old/gone", Some("1")), ("low", None), ("low/.wh.x", Some(""))]),
        tar(&[
            ("old", None),
            ("old/.wh.gone", Some("")),
            ("new", None),
            ("new/.wh.foo", Some("")),
            ("new/a", Some("2")),
        ]),
        // Without anything of the kind: as it is.
        tar(&[("new", None), ("new/b", Some("3"))]),
    ];
    let opened = store.image(&image(&store, Some(NAME), &layers)).unwrap();
    store.prepare(&opened, &options(), None).unwrap();
    let ready = store.prepared_image(NAME, None).unwrap();
    let names = |layer: usize, path: &str| -> Vec<String> {
        let directory = scratch.at("store").join(&ready.facts.layers[layer]).join(path);
        let mut names: Vec<String> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!((names(0, "low"), names(0, "old")), (vec![], vec!["gone".to_owned()]));
    assert_eq!((names(1, "new"), names(1, "old")), (vec!["a".to_owned()], vec!["gone".to_owned()]));
    let own = store.layer(&opened.config.diff_ids[2]).unwrap().unwrap().path;
    assert!(own.ends_with(&ready.facts.layers[2]), "{:?}", ready.facts.layers);
    // The shared layer stays as it was.
    let shared = store.layer(&opened.config.diff_ids[1]).unwrap().unwrap().path;
    assert!(fs::symlink_metadata(shared.join("new/foo")).is_ok());
}

#[test]
fn gnu_tar_extracts_holes_at_the_end_of_files() {
    let scratch = Scratch::new("holes");
    let (source, extracted) = (scratch.at("source"), scratch.at("extracted"));
    for directory in [&source, &extracted] {
        fs::create_dir(directory).unwrap();
    }
    for (name, text) in [("hole", ""), ("tail", "data")] {
        fs::write(source.join(name), text).unwrap();
        fs::OpenOptions::new().write(true).open(source.join(name)).unwrap().set_len(1 << 20).unwrap();
    }
    let store = scratch.store("store");
    let (named, _) = import::import_directory(&store, &source, &import::About::default(), &options()).unwrap();
    let opened = store.image(&named).unwrap();
    let stack = store.stack(&opened.config.diff_ids).unwrap();
    export::export(&stack, fs::File::create(scratch.at("flat.tar")).unwrap()).unwrap();
    run("tar", &["-C", text(&extracted), "-xf", text(&scratch.at("flat.tar"))]);
    for name in ["hole", "tail"] {
        let own = fs::read(source.join(name)).unwrap();
        assert!(fs::read(extracted.join(name)).unwrap() == own, "{name} by tar");
        assert!(fs::read(stack.layers[0].path.join(name)).unwrap() == own, "{name} in the layer");
    }
}

#[test]
fn a_layer_that_says_nothing_of_a_directory_leaves_it_as_it_is_below() {
    let scratch = Scratch::new("implicit");
    let store = scratch.store("store");
    let mut base = Writer::new(Vec::new());
    base.entry(&TarEntry { mode: 0o1777, ..entry(EntryKind::Directory, "tmp", 0) }).unwrap();
    base.entry(&TarEntry { mode: 0o700, uid: if root() { 7 } else { 0 }, ..entry(EntryKind::Directory, "home", 0) })
        .unwrap();
    let layers = [
        base.finish().unwrap(),
        tar(&[("tmp/file", Some("x")), ("home/file", Some("y")), ("new/file", Some("z")), ("tmp/.wh.gone", Some(""))]),
    ];
    let opened = store.image(&image(&store, Some(NAME), &layers)).unwrap();
    store.unpack_image(&opened, &options(), None).unwrap();
    let stack = store.stack(&opened.config.diff_ids).unwrap();
    let top = &stack.layers[1].path;
    assert!(top.to_string_lossy().contains("chain-"), "{}", top.display());
    let meta = |path: &str| fs::symlink_metadata(top.join(path)).unwrap();
    assert_eq!(meta("tmp").mode() & 0o7777, 0o1777);
    assert_eq!(meta("home").mode() & 0o7777, 0o700);
    assert_eq!(meta("new").mode() & 0o7777, 0o755);
    assert_eq!(meta("home").uid(), if root() { 7 } else { meta("new").uid() });
    assert_eq!(meta("tmp/gone").rdev(), 0);
    // The shared layer stays as it was.
    assert_eq!(
        fs::metadata(store.layer(&opened.config.diff_ids[1]).unwrap().unwrap().path.join("tmp")).unwrap().mode()
            & 0o7777,
        0o755
    );
    // It is kept with its image, and goes with it.
    drop(stack);
    store.prune(PruneWait::No, true).unwrap();
    assert_eq!(fs::read_dir(scratch.at("store/layers")).unwrap().count(), 3);
    store.remove(NAME).unwrap();
    store.prune(PruneWait::No, true).unwrap();
    assert_eq!(fs::read_dir(scratch.at("store/layers")).unwrap().count(), 0);
}

#[test]
fn a_layer_that_is_held_is_not_removed() {
    let scratch = Scratch::new("held");
    let store = scratch.store("store");
    let opened = store.image(&image(&store, Some(NAME), &[tar(&[("a", Some("1"))])])).unwrap();
    store.unpack_image(&opened, &options(), None).unwrap();
    let held = store.stack(&opened.config.diff_ids).unwrap();
    assert!(store.is_held(&opened.config.diff_ids[0]).unwrap());
    store.remove(NAME).unwrap();
    let pruned = store.prune(PruneWait::No, true).unwrap().unwrap();
    assert_eq!((pruned.layers, pruned.in_use), (0, 1));
    assert!(held.layers[0].path.join("a").exists());
    let path = held.layers[0].path.clone();
    drop(held);
    assert_eq!(store.prune(PruneWait::No, true).unwrap().unwrap().layers, 1);
    assert!(!path.exists());
}

#[test]
fn layers_that_did_not_reach_the_disk_before_a_crash_of_the_host_are_unpacked_again() {
    let scratch = Scratch::new("boot");
    let store = scratch.store("store");
    let opened = store.image(&image(&store, Some(NAME), &[tar(&[("a", Some("1"))])])).unwrap();
    let diff_id = opened.config.diff_ids[0];
    store.unpack_image(&opened, &options(), None).unwrap();
    let record = scratch.at("store/layers").join(diff_id.hex()).join("layer.json");
    let other_boot = |path: &Path| {
        let mut value: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        value["boot"] = "another".into();
        fs::write(path, value.to_string()).unwrap();
    };
    other_boot(&record);
    assert!(store.layer(&diff_id).unwrap().is_none());
    fs::write(record.with_file_name("fs").join("a"), "").unwrap();
    store.unpack_image(&opened, &options(), None).unwrap();
    assert_eq!(fs::read_to_string(store.layer(&diff_id).unwrap().unwrap().path.join("a")).unwrap(), "1");
    store.settle().unwrap();
    other_boot(&record);
    assert!(store.layer(&diff_id).unwrap().is_some());
}

#[test]
fn a_layer_that_fails_leaves_nothing_and_can_be_had_again() {
    let scratch = Scratch::new("fails");
    let store = scratch.store("store");
    let layer = tar(&[("a", Some("1"))]);
    let diff_id = Digest::of(&layer);
    let error = store.unpack_layer(&diff_id, &tar(&[("a", Some("2"))])[..], &options()).unwrap_err();
    assert_eq!(error.code, Code::ImageInvalid);
    assert!(store.unpack_layer(&diff_id, &layer[..700], &options()).is_err());
    assert_eq!(fs::read_dir(scratch.at("store/layers")).unwrap().count(), 0);
    // What a killed process left is in nobody's way.
    fs::create_dir_all(scratch.at(&format!("store/layers/.new-{}/fs/half", diff_id.hex()))).unwrap();
    fs::create_dir_all(scratch.at(&format!("store/layers/{}/fs/half", diff_id.hex()))).unwrap();
    let unpacked = store.unpack_layer(&diff_id, &layer[..], &options()).unwrap();
    assert!(unpacked.path.join("a").exists() && !unpacked.path.join("half").exists());
    assert!(matches!(store.try_ingest(&diff_id).unwrap(), IngestStart::Write(_)));
}

#[test]
fn images_are_found_by_what_people_call_them() {
    let scratch = Scratch::new("find");
    let store = scratch.store("store");
    let one = image(&store, Some("docker.io/library/busybox:latest"), &[tar(&[("a", Some("1"))])]);
    let opened = store.image(&one).unwrap();
    let hex = opened.id.hex();
    for text in [
        "busybox",
        "busybox:latest",
        "docker.io/library/busybox",
        &hex[..6],
        &hex,
        &opened.id.to_string(),
        &opened.digest.hex()[..12],
        &format!("busybox@{}", opened.digest),
    ] {
        assert_eq!(store.find(text).unwrap().digest().unwrap(), opened.digest, "{text}");
    }
    let error = store.find("busibox").unwrap_err();
    assert!(error.hint.contains("busybox"), "{error:?}");
    for text in ["", "a//b", "UPPER"] {
        let error = store.find(text).unwrap_err();
        assert_eq!((error.code, error.subject), (Code::InvalidArgument, format!("{text:?}")));
    }
    for text in ["zzz", "busybox:1", "ghcr.io/busybox", &format!("busybox@{}", Digest::of(b"no"))] {
        assert_eq!(store.find(text).unwrap_err().code, Code::ImageNotFound, "{text}");
    }
}

/// An archive with an OCI layout of one image, whose entry in the index has this annotation.
fn layout_archive(scratch: &Scratch, annotation: &str, name: &str) -> (IndexEntry, Vec<u8>) {
    let store = scratch.store("source");
    let one = image(&store, None, &[tar(&[("a", Some("1"))])]);
    let mut files = vec![("oci-layout".to_owned(), r#"{"imageLayoutVersion":"1.0.0"}"#.as_bytes().to_vec())];
    for digest in store.blobs_of(&one.digest().unwrap()).unwrap() {
        files.push((format!("blobs/sha256/{}", digest.hex()), fs::read(store.blob_path(&digest)).unwrap()));
    }
    let mut descriptor = serde_json::to_value(&one.descriptor).unwrap();
    descriptor["annotations"] = json!({ annotation: name });
    let index = json!({ "schemaVersion": 2, "manifests": [descriptor] });
    files.push(("index.json".to_owned(), index.to_string().into_bytes()));
    let mut writer = Writer::new(Vec::new());
    for (path, bytes) in &files {
        writer.entry(&entry(EntryKind::File, path, bytes.len())).unwrap();
        writer.data(bytes).unwrap();
    }
    (one, writer.finish().unwrap())
}

/// An archive of docker's older form with an image of one packed layer, which by the configuration has this diff id.
fn docker_archive(tags: &[String], layer: &[u8], diff_id: &Digest) -> Vec<u8> {
    let config = json!({ "architecture": "amd64", "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": [diff_id.to_string()] } })
    .to_string();
    let manifest = json!([{ "Config": "config.json", "RepoTags": tags, "Layers": ["layer.tar"] }]).to_string();
    let mut writer = Writer::new(Vec::new());
    let files = [("layer.tar", layer), ("config.json", config.as_bytes()), ("manifest.json", manifest.as_bytes())];
    for (path, bytes) in files {
        writer.entry(&entry(EntryKind::File, path, bytes.len())).unwrap();
        writer.data(bytes).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn a_load_that_fails_leaves_a_name_with_the_image_that_has_it() {
    let scratch = Scratch::new("name-last");
    let tags = ["r.example/x:1".to_owned()];
    let (right, wrong) = (tar(&[("a", Some("1"))]), tar(&[("a", Some("2"))]));
    let packed = |layer: &[u8]| zstd::encode_all(layer, 1).unwrap();
    let good = docker_archive(&tags, &packed(&right), &Digest::of(&right));
    let cut = packed(&wrong);
    for (name, bad) in [
        ("diff-id", docker_archive(&tags, &packed(&wrong), &Digest::of(&right))),
        ("truncated", docker_archive(&tags, &cut[..cut.len() - 8], &Digest::of(&wrong))),
        ("outside", {
            let layer = tar(&[("../../a", Some("1"))]);
            docker_archive(&tags, &packed(&layer), &Digest::of(&layer))
        }),
    ] {
        let store = scratch.store(name);
        load_and_prepare(&store, &good[..], None).unwrap();
        let before = store.images().unwrap();
        load_and_prepare(&store, &bad[..], None).unwrap_err();
        assert_eq!(store.images().unwrap(), before, "{name}");
        if name != "outside" {
            let unprepared =
                load::load(&store, &bad[..], None, Limits::default(), |image| store.verify_layers(image, &options()));
            unprepared.unwrap_err();
            assert_eq!(store.images().unwrap(), before, "{name}");
        }
        store.prune(PruneWait::Yes, true).unwrap();
        let kept = store.prepared_image("r.example/x:1", None).unwrap();
        let layer = scratch.at(name).join(&kept.facts.layers[0]);
        assert_eq!(fs::read_to_string(layer.join("a")).unwrap(), "1", "{name}");
    }
}

#[test]
fn an_archive_has_a_limited_number_of_names_which_are_written_at_once() {
    let scratch = Scratch::new("names-at-once");
    let store = scratch.store("store");
    let layer = tar(&[("a", Some("1"))]);
    let archive = |count: usize| {
        let tags: Vec<String> = (0..count).map(|number| format!("t:{number}")).collect();
        docker_archive(&tags, &layer, &Digest::of(&layer))
    };
    let error = load_and_prepare(&store, &archive(100_000)[..], None).unwrap_err();
    assert!(error.to_string().contains("more than 10000 images and names"), "{error}");
    let start = std::time::Instant::now();
    assert_eq!(load_and_prepare(&store, &archive(9_999)[..], None).unwrap().images.len(), 9_999);
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    assert_eq!(store.images().unwrap().len(), 9_999);
}

#[test]
fn a_name_with_a_digest_is_that_of_no_other_image() {
    let scratch = Scratch::new("false-digest");
    let other = Digest::of(b"other");
    let name = format!("r.example/foo@{other}");
    for annotation in ["io.containerd.image.name", "org.opencontainers.image.ref.name"] {
        let (one, archive) = layout_archive(&scratch, annotation, &name);
        let own = one.digest().unwrap();
        let store = scratch.store(annotation);
        let error = load_and_prepare(&store, &archive[..], None).unwrap_err().to_string();
        assert!(error.contains(&other.to_string()) && error.contains(&own.to_string()), "{error}");
        assert_eq!(store.images().unwrap(), []);
        // As the name that the caller gives.
        let error = load_and_prepare(&store, &archive[..], Some(&name)).unwrap_err().to_string();
        assert!(error.contains(&other.to_string()) && error.contains(&own.to_string()), "{error}");
        let right = format!("r.example/foo@{own}");
        load_and_prepare(&store, &archive[..], Some(&right)).unwrap();
        assert_eq!(store.find(&right).unwrap().digest().unwrap(), own);
        assert_eq!(store.tag(&name, &one.descriptor).unwrap_err().code, Code::ImageInvalid);
        // What somebody else wrote into the index.
        let index = scratch.at(annotation).join("index.json");
        let text = fs::read_to_string(&index).unwrap();
        fs::write(&index, text.replace(&right, &name)).unwrap();
        let error = store.find(&name).unwrap_err();
        assert_eq!((error.code, error.subject.as_str()), (Code::ImageInvalid, name.as_str()));
        assert!(error.to_string().contains(&own.to_string()), "{error}");
    }
}

#[test]
fn a_digest_is_never_taken_for_a_name() {
    let scratch = Scratch::new("digest-names");
    let store = scratch.store("store");
    let one = image(&store, Some("docker.io/library/box:1"), &[tar(&[("a", Some("1"))])]);
    let id = store.image(&one).unwrap().id;
    let two = image(&store, Some(&format!("docker.io/library/{id}")), &[tar(&[("a", Some("2"))])]);
    assert_eq!(store.find(&id.to_string()).unwrap().name, one.name);
    assert_eq!(store.find(&format!("library/{id}")).unwrap().digest().unwrap(), two.digest().unwrap());
    assert_eq!(Reference::parse(&format!("library/{id}")).unwrap().familiar(), format!("library/{id}"));
    // Another repository, whose name begins alike.
    let digest = two.digest().unwrap();
    store.tag("quay.io/x/box-evil:1", &two.descriptor).unwrap();
    assert_eq!(store.find(&format!("quay.io/x/box@{digest}")).unwrap_err().code, Code::ImageNotFound);
    assert_eq!(store.find(&format!("quay.io/x/box-evil@{digest}")).unwrap().digest().unwrap(), digest);
}

#[test]
fn an_image_that_was_pulled_by_the_digest_of_its_index_is_saved_under_its_own() {
    let scratch = Scratch::new("index-digest");
    let store = scratch.store("store");
    let mut one = image(&store, None, &[tar(&[("a", Some("1"))])]);
    let (own, index) = (one.digest().unwrap(), Digest::of(b"index"));
    let notes = [(crate::content::INDEX_DIGEST.to_owned(), index.to_string())];
    one.descriptor.set_annotations(Some(notes.into_iter().collect()));
    let name = format!("docker.io/library/box@{index}");
    store.tag(&name, &one.descriptor).unwrap();
    let named = store.find(&format!("box@{index}")).unwrap();
    assert_eq!(named.name.as_deref(), Some(name.as_str()));
    let to = scratch.store("to");
    load_and_prepare(&to, &saved(&store, &[named], save::Format::Oci)[..], None).unwrap();
    assert_eq!(to.find(&format!("box@{own}")).unwrap().digest().unwrap(), own);
    assert_eq!(to.find(&format!("box@{index}")).unwrap_err().code, Code::ImageNotFound);
}

#[test]
fn an_archive_that_unpacks_to_more_than_the_limit_is_refused() {
    let scratch = Scratch::new("bomb");
    let store = scratch.store("store");
    let zeroes = String::from_utf8(vec![0; 8 << 20]).unwrap();
    let packed = zstd::encode_all(&tar(&[("layer.tar", Some(&zeroes))])[..], 3).unwrap();
    let limits = Limits { floor: 1 << 20, ratio: 100, entries: 10 };
    let error = load::load(&store, &packed[..], None, limits, |_| Ok(())).unwrap_err();
    assert!(error.to_string().contains("100 times its size"), "{error}");
    assert_eq!(fs::read_dir(scratch.at("store/ingest")).unwrap().count(), 0);
}

#[test]
fn a_copy_of_the_tree_has_the_holes_of_its_files() {
    let scratch = Scratch::new("holes");
    let (from, to) = (scratch.at("from"), scratch.at("to"));
    fs::create_dir_all(&from).unwrap();
    fs::create_dir_all(&to).unwrap();
    let file = fs::File::create(from.join("sparse")).unwrap();
    // Byte by byte that would take longer than anybody waits, and more than any disk has.
    file.set_len(1 << 42).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"middle", 1 << 41).unwrap();
    fs::write(from.join("plain"), "text").unwrap();
    let mut copier = nsrs_base::tree::copy::Copier::new(&to, nsrs_base::tree::copy::How::Copy).unwrap();
    nsrs_base::tree::merge::walk(&[&from], true, &mut copier).unwrap();
    let meta = fs::metadata(to.join("sparse")).unwrap();
    assert!(meta.len() == 1 << 42 && meta.blocks() < 10_000, "{} blocks", meta.blocks());
    let mut middle = [0; 6];
    std::os::unix::fs::FileExt::read_exact_at(&fs::File::open(to.join("sparse")).unwrap(), &mut middle, 1 << 41)
        .unwrap();
    assert_eq!((&middle, fs::read_to_string(to.join("plain")).unwrap()), (b"middle", "text".to_owned()));
}
