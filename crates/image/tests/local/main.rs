//! The verbs that need no registry, as the executable has them, by root and by an ordinary user.
//!
//! Debian's packages for it: busybox-static, skopeo, uidmap, util-linux (setpriv). The ordinary user is `tester`, with
//! subordinate ids; without root, the one who runs the tests is that user.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nsrs_testing::{leave_out, skip};
use serde_json::Value;

/// Who runs the executable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Who {
    Root,
    Tester,
}

/// The users there are.
fn users() -> Vec<Who> {
    if !rustix::process::geteuid().is_root() {
        return vec![Who::Tester];
    }
    match Command::new("id").arg("tester").output() {
        Ok(output) if output.status.success() => vec![Who::Root, Who::Tester],
        _ => {
            leave_out("there is no user tester");
            vec![Who::Root]
        }
    }
}

/// A directory of its own with a store in it.
struct Scratch {
    path: PathBuf,
    who: Who,
}

impl Scratch {
    fn new(name: &str, who: Who) -> Scratch {
        let path = std::env::temp_dir().join(format!("nsrs-local-{name}-{who:?}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        // Root's target directory may be closed to others.
        fs::copy(env!("CARGO_BIN_EXE_nsrs-image"), path.join("nsrs-image")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        Scratch { path, who }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn text(&self, name: &str) -> String {
        self.at(name).to_str().unwrap().to_owned()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = if self.who == Who::Tester && rustix::process::geteuid().is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", "tester", "--regid", "tester", "--init-groups", "--reset-env"]);
            command.arg("env").arg(format!("NSRS_IMAGE_DIR={}", self.text("store"))).arg(self.at("nsrs-image"));
            command
        } else {
            let mut command = Command::new(self.at("nsrs-image"));
            command.env("NSRS_IMAGE_DIR", self.at("store"));
            command
        };
        command.arg(env!("CARGO_PKG_VERSION")).args(args).current_dir(&self.path);
        command
    }

    fn try_run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn run(&self, args: &[&str]) -> String {
        let output = self.try_run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.run(&[args, &["--format", "json"]].concat())).unwrap()
    }

    fn fails(&self, args: &[&str]) -> String {
        let output = self.try_run(args);
        assert_eq!(output.status.code(), Some(125), "{args:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !rustix::process::geteuid().is_root() {
            // Files of subordinate ids are removed by who has them.
            let _ = self.try_run(&["prune", "--all"]);
        }
        // Layers may just be on their way to the disk, which is noted here.
        for _ in 0..50 {
            match fs::remove_dir_all(&self.path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
                _ => return,
            }
        }
    }
}

/// A root file system as an archive, with files of another user's.
fn root_archive(scratch: &Scratch) -> String {
    let root = scratch.at("root");
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::write(root.join("etc/hostname"), "box").unwrap();
    fs::write(root.join("etc/shadow"), "secret").unwrap();
    let tar = Command::new("tar")
        .args(["-C", root.to_str().unwrap(), "--owner=0", "--group=42", "-cf", &scratch.text("root.tar"), "."])
        .status()
        .unwrap();
    assert!(tar.success());
    fs::set_permissions(scratch.at("root.tar"), fs::Permissions::from_mode(0o644)).unwrap();
    scratch.text("root.tar")
}

fn layers(scratch: &Scratch) -> Vec<PathBuf> {
    fs::read_dir(scratch.at("store/layers")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn an_imported_root_is_listed_saved_removed_and_loaded_again() {
    for who in users() {
        let scratch = Scratch::new("round", who);
        let archive = root_archive(&scratch);
        let said = scratch.run(&["import", "--change", "CMD [\"/bin/sh\"]", "--message", "hello", &archive, "box:1"]);
        assert_eq!(said, "imported: docker.io/library/box:1\n");
        let listed = scratch.json(&["images"]);
        assert_eq!(listed[0]["name"], "docker.io/library/box:1");
        assert!(scratch.run(&["images"]).contains("box"));
        let id = listed[0]["id"].as_str().unwrap().to_owned();
        scratch.run(&["tag", "box:1", "quay.io/me/box:two", "third"]);
        assert_eq!(scratch.json(&["images"]).as_array().unwrap().len(), 3);
        let inspected = scratch.json(&["inspect", &id[7..19]]);
        assert_eq!(inspected[0]["Config"]["Cmd"][0], "/bin/sh");
        assert_eq!(inspected[0]["RepoTags"].as_array().unwrap().len(), 3);
        assert_eq!(inspected[0]["Unpacked"], true);
        assert_eq!(scratch.json(&["history", "third"])[0]["comment"], "hello");
        scratch.run(&["save", "--output", "saved.tar", "box:1", "third"]);
        let archive = format!("docker-archive:{}", scratch.text("saved.tar"));
        match Command::new("skopeo").args(["list-tags", &archive]).output() {
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stdout);
                assert!(text.contains("box:1") && text.contains("third:latest"), "{text}");
            }
            Err(_) => leave_out("needs skopeo"),
        }
        assert!(scratch.fails(&["rmi", &id[7..19]]).contains("3 names"));
        scratch.run(&["rmi", "box:1", "third", "quay.io/me/box:two"]);
        assert!(layers(&scratch).is_empty());
        assert_eq!(scratch.json(&["images"]), serde_json::json!([]));
        let loaded = scratch.json(&["load", "--input", "saved.tar"]);
        assert_eq!(loaded[0]["id"], id.as_str());
        assert_eq!(scratch.json(&["images"]).as_array().unwrap().len(), 2);
        // By the standard input and output too.
        let saved = scratch.try_run(&["save", "box:1"]);
        assert!(saved.status.success() && saved.stdout.len() > 1000);
        scratch.run(&["prune", "--all"]);
        assert!(layers(&scratch).is_empty());
        fs::write(scratch.at("one.tar"), &saved.stdout).unwrap();
        let input = fs::File::open(scratch.at("one.tar")).unwrap();
        let output = scratch.command(&["load"]).stdin(input).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "loaded: docker.io/library/box:1\n");
    }
}

#[test]
fn files_have_their_owners_in_the_store_and_in_what_is_exported() {
    for who in users() {
        let scratch = Scratch::new("owners", who);
        let archive = root_archive(&scratch);
        scratch.run(&["import", &archive, "box"]);
        let shadow = layers(&scratch)[0].join("fs/etc/shadow");
        if let Ok(meta) = fs::metadata(&shadow) {
            // Group 42 of a container is the 42nd of the user's subordinate ids.
            let range = fs::read_to_string("/etc/subgid").unwrap_or_default();
            let first =
                range.lines().find_map(|line| line.strip_prefix("tester:")?.split(':').next()?.parse::<u32>().ok());
            match (who, first) {
                (Who::Root, _) => assert_eq!(meta.gid(), 42),
                (Who::Tester, Some(first)) => assert_eq!(meta.gid(), first + 41),
                (Who::Tester, None) => leave_out("tester has no subordinate ids"),
            }
        }
        scratch.run(&["export", "--output", "flat.tar", "box"]);
        let listed = Command::new("tar").args(["--numeric-owner", "-tvf", &scratch.text("flat.tar")]).output().unwrap();
        let text = String::from_utf8(listed.stdout).unwrap();
        assert!(text.contains(" 0/42 ") && text.contains("etc/shadow"), "{text}");
        assert_eq!(Path::new(&scratch.text("flat.tar")).metadata().unwrap().mode() & 0o111, 0);
    }
}

#[test]
fn a_user_without_subordinate_ids_is_told_and_can_go_on() {
    let scratch = Scratch::new("squash", *users().last().unwrap());
    if scratch.who == Who::Root {
        skip!("there is no user tester");
    }
    let archive = root_archive(&scratch);
    let mut command = scratch.command(&["import", &archive, "box"]);
    // Where newuidmap isn't found there are no ranges.
    let args: Vec<String> = command.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let program = command.get_program().to_owned();
    let mut without =
        Command::new(if program == "setpriv" { Path::new("setpriv").to_owned() } else { PathBuf::from(&program) });
    if program == "setpriv" {
        let env = args.iter().position(|arg| arg == "env").unwrap();
        without.args(&args[..=env]).arg("PATH=/nowhere").args(&args[env + 1..]);
    } else {
        without.args(&args).env("NSRS_IMAGE_DIR", scratch.at("store")).env("PATH", "/nowhere");
    }
    let output = without.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("will belong to you"), "{said}");
    assert!(said.contains("files belong to you"), "{said}");
    let record = fs::read_to_string(layers(&scratch)[0].join("layer.json")).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    assert!(record["squashed"].as_u64().unwrap() >= 3, "{record}");
    drop(command.output());
}

#[test]
fn an_import_for_which_the_disk_has_no_room_says_so_and_leaves_nothing() {
    let scratch = Scratch::new("full", users()[0]);
    let (tree, store) = (scratch.at("tree"), scratch.at("store"));
    fs::create_dir_all(&tree).unwrap();
    fs::create_dir(&store).unwrap();
    fs::write(tree.join("large"), vec![1; 3 << 20]).unwrap();
    let command = scratch.command(&["import", tree.to_str().unwrap(), "box"]);
    let words: Vec<&str> = command.get_args().map(|arg| arg.to_str().unwrap()).collect();
    // Too small for the archive; for the tree of it; for nothing.
    for (megabytes, fits) in [(2, false), (5, false), (12, true)] {
        let script = format!(
            "mount -t tmpfs -o size={megabytes}m,mode=700 tmpfs store && {} {}; echo $? && find store -type f -size +20k",
            command.get_program().display(),
            words.join(" ")
        );
        let unshare: &[&str] = if rustix::process::geteuid().is_root() { &["-m"] } else { &["-Urm"] };
        let mut shell = Command::new("unshare");
        shell.args(unshare).args(["sh", "-c", &script]).current_dir(&scratch.path).env("NSRS_IMAGE_DIR", &store);
        let output = shell.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        if fits {
            assert_eq!(said, "");
            continue;
        }
        assert!(said.contains("no space left on device (ENOSPC)") && !said.contains("EIO"), "{said}");
        assert!(said.contains("hint: free disk space (nsrs image prune)"), "{said}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "125\n");
    }
}

#[test]
fn a_store_that_can_only_be_read_is_read() {
    let scratch = Scratch::new("readonly", users()[0]);
    let archive = root_archive(&scratch);
    scratch.run(&["import", &archive, "box"]);
    // As a disk has it that somebody else filled.
    fs::remove_file(scratch.at("store/lock")).unwrap();
    for (verb, rest) in [("save", "box"), ("export", "box"), ("inspect", "box"), ("images", ""), ("history", "box")] {
        let command = scratch.command(&[verb, rest]);
        let words: Vec<&str> = command.get_args().map(|arg| arg.to_str().unwrap()).collect();
        let script = format!(
            "mount --bind store store && mount -o remount,ro,bind store && ! touch store/x 2>&- && {} {} | wc -c",
            command.get_program().display(),
            words.join(" ")
        );
        let unshare: &[&str] = if rustix::process::geteuid().is_root() { &["-m"] } else { &["-Urm"] };
        let mut shell = Command::new("unshare");
        shell.args(unshare).args(["sh", "-c", &script]).current_dir(&scratch.path);
        let output = shell.env("NSRS_IMAGE_DIR", scratch.at("store")).output().unwrap();
        let (read, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(said.is_empty() && read.trim().parse::<u32>().unwrap() > 50, "{verb}: {read} {said}");
    }
}

#[test]
fn a_store_is_made_by_who_brings_something_and_not_among_the_files_of_others() {
    for who in users() {
        let scratch = Scratch::new("made", who);
        let archive = root_archive(&scratch);
        let looks: [&[&str]; 7] = [
            &["inspect", "box"],
            &["history", "box"],
            &["tag", "box", "other"],
            &["rmi", "box"],
            &["save", "--output", "x", "box"],
            &["export", "--output", "x", "box"],
            &["push", "127.0.0.1:1/box"],
        ];
        for there in [false, true] {
            if there {
                fs::create_dir(scratch.at("store")).unwrap();
                fs::set_permissions(scratch.at("store"), fs::Permissions::from_mode(0o755)).unwrap();
                if who == Who::Tester && rustix::process::geteuid().is_root() {
                    let owner = Command::new("chown").args(["tester", &scratch.text("store")]).status();
                    assert!(owner.unwrap().success());
                }
            }
            assert_eq!(scratch.json(&["images"]), serde_json::json!([]));
            for args in looks {
                let said = scratch.fails(args);
                assert!(said.contains("not in the store") && !scratch.at("x").exists(), "{args:?}: {said}");
            }
            assert_eq!(scratch.run(&["prune"]), "removed 0 blobs and 0 unpacked layers: 0 B\n");
            assert_eq!(scratch.at("store").exists(), there);
            assert!(!there || fs::read_dir(scratch.at("store")).unwrap().next().is_none());
        }
        // What a killed process left of a store is taken for one, and completed.
        let half = scratch.command(&["import", &archive, "box"]).status().unwrap();
        assert!(half.success());
        fs::remove_file(scratch.at("store/oci-layout")).unwrap();
        assert_eq!(scratch.json(&["images"]).as_array().unwrap().len(), 1);
        scratch.run(&["import", &archive, "box"]);
        assert!(scratch.at("store/oci-layout").exists());
        // Somebody's files.
        fs::remove_file(scratch.at("store/oci-layout")).unwrap();
        fs::write(scratch.at("store/thesis.tex"), "").unwrap();
        for args in [&["import", &archive, "box"][..], &["images"], &["prune"]] {
            let said = scratch.fails(args);
            assert!(said.contains("thesis.tex") && said.contains("hint: set NSRS_IMAGE_DIR"), "{said}");
        }
        assert!(!scratch.at("store/oci-layout").exists());
        fs::remove_file(scratch.at("store/thesis.tex")).unwrap();
    }
}

#[test]
fn owners_of_a_tree_that_are_not_known_to_an_ordinary_user_are_told() {
    for who in users() {
        let scratch = Scratch::new("foreign", who);
        let tree = scratch.at("tree");
        fs::create_dir(&tree).unwrap();
        for name in ["a", "b"] {
            fs::write(tree.join(name), name).unwrap();
        }
        let output = scratch.try_run(&["import", tree.to_str().unwrap(), "box"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        // Root of the host is nobody in the user's namespace.
        match who == Who::Tester && rustix::process::geteuid().is_root() {
            true => assert!(said.contains("3 files belong to nobody (65534) in the image"), "{said}"),
            false => assert_eq!(said, ""),
        }
    }
}

#[test]
fn where_nobody_hears_it_it_ends_as_it_would() {
    let scratch = Scratch::new("unheard", users()[0]);
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    for args in
        [&["inspect", "nope"][..], &["inspect", "nope", "--progress", "live"], &["login", "127.0.0.1:1"], &["x"]]
    {
        let mut command = scratch.command(args);
        assert_eq!(command.stderr(full()).output().unwrap().status.code(), Some(125), "{args:?}");
        // A pipe that nobody reads.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        assert_eq!(scratch.command(args).stderr(writer).output().unwrap().status.code(), Some(125), "{args:?}");
    }
    let status = scratch.command(&["logout", "127.0.0.1:1"]).env("HOME", &scratch.path).stderr(full()).status();
    assert!(status.unwrap().success());
    let mut version = Command::new(env!("CARGO_BIN_EXE_nsrs-image"));
    assert_eq!(version.arg("--version").stdout(full()).output().unwrap().status.code(), Some(125));
}

#[test]
fn what_went_wrong_is_said_with_what_to_do() {
    let scratch = Scratch::new("wrong", users()[0]);
    let archive = root_archive(&scratch);
    scratch.run(&["import", &archive, "busybox"]);
    let said = scratch.fails(&["inspect", "busibox"]);
    assert!(said.contains("not in the store") && said.contains("did you mean busybox?"), "{said}");
    assert!(scratch.fails(&["load", "--input", &archive]).contains("nsrs import"));
    assert!(scratch.fails(&["load", "--input", "missing.tar"]).contains("ENOENT"));
    assert!(scratch.fails(&["save", "--what", "busybox"]).contains("unknown option"));
    assert!(scratch.fails(&["save", "--type", "zip", "busybox"]).contains("docker or oci"));
    assert!(scratch.fails(&["import", "--change", "RUN x", &archive]).contains("--change"));
    assert!(scratch.fails(&["tag", "busybox", "a@b"]).contains("reference"));
    assert!(scratch.fails(&["nonsense"]).contains("unknown verb"));
    // For programs the same as records.
    let output = scratch.try_run(&["inspect", "gone", "--progress", "json"]);
    let record: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!((record["event"].as_str(), record["code"].as_str()), (Some("error"), Some("ERR_NSRS_IMAGE_NOT_FOUND")));
    // A file that couldn't be written whole isn't there.
    let blob = fs::read_dir(scratch.at("store/blobs/sha256"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .max_by_key(|path| path.metadata().unwrap().len())
        .unwrap();
    let mut bytes = fs::read(&blob).unwrap();
    bytes[600] ^= 1;
    fs::write(&blob, bytes).unwrap();
    assert!(scratch.fails(&["save", "--output", "out.tar", "busybox"]).contains("has the digest"));
    assert!(!scratch.at("out.tar").exists());
}

#[test]
fn one_that_is_killed_at_any_moment_leaves_a_store_that_goes_on() {
    for who in users() {
        let scratch = Scratch::new("killed", who);
        // Large enough that the moments fall into the middle of something.
        let root = scratch.at("root");
        fs::create_dir(&root).unwrap();
        for number in 0..500 {
            fs::write(root.join(number.to_string()), format!("{number}").repeat(200)).unwrap();
        }
        fs::write(root.join("large"), (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>()).unwrap();
        let archive = root_archive(&scratch);
        scratch.run(&["import", &archive, "box"]);
        scratch.run(&["save", "--output", "saved.tar", "box"]);
        scratch.run(&["prune", "--all"]);
        let start = std::time::Instant::now();
        scratch.run(&["load", "--input", "saved.tar"]);
        let whole = start.elapsed();
        for round in 0..12_u32 {
            scratch.run(&["prune", "--all"]);
            let mut child = scratch.command(&["load", "--input", "saved.tar"]);
            let mut child =
                child.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
            std::thread::sleep(whole * round / 11);
            child.kill().unwrap();
            child.wait().unwrap();
            // What is listed is whole; what isn't can be had.
            for image in scratch.json(&["images"]).as_array().unwrap() {
                assert_eq!(image["error"], Value::Null, "{image}");
            }
            scratch.run(&["load", "--input", "saved.tar"]);
            let layers = layers(&scratch);
            let there =
                layers.iter().filter(|layer| !layer.file_name().unwrap().to_string_lossy().starts_with('.')).count();
            assert_eq!(there, 1, "{layers:?}");
            scratch.run(&["export", "--output", "flat.tar", "box"]);
        }
        scratch.run(&["prune", "--all"]);
        assert!(layers(&scratch).is_empty());
        assert_eq!(fs::read_dir(scratch.at("store/ingest")).unwrap().count(), 0);
    }
}
