//! Containers that lie in wait for whoever enters.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use nsrs_core::spec::TerminalSize;

use super::entered::Door;
use super::target::{Target, Users, possible, process};
use super::{SECRET, Test};

pub const TESTS: &[Test] = &[("a hostile container gets nothing of whoever enters", lies_in_wait)];

/// How many enter each of them.
const ENTRIES: usize = 150;

/// A directory for one test's files of the host.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Compiles the hostile program.
fn compile(directory: &Path) -> PathBuf {
    let program = directory.join("lurker");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/enter/lurker.c");
    let status = Command::new("cc")
        .args(["-static", "-O1", "-Wall", "-Wno-format-truncation", "-o"])
        .arg(&program)
        .arg(source)
        .status();
    assert!(status.unwrap().success(), "cc can't compile {source}");
    program
}

/// How many processes the hostile one met, those of them before they had executed the command, and those it couldn't trace.
fn met(target: &Target) -> [usize; 3] {
    let text = fs::read_to_string(target.path("/tmp/met")).unwrap();
    let numbers: Vec<usize> = text.split_whitespace().map(|number| number.parse().unwrap()).collect();
    numbers.try_into().unwrap()
}

fn lies_in_wait() {
    let scratch = Scratch(std::env::temp_dir().join(format!("nsrs-enter-hostile-{}", std::process::id())));
    fs::create_dir(&scratch.0).unwrap();
    let program = compile(&scratch.0);
    let host_file = scratch.0.join("secret");
    fs::write(&host_file, SECRET).unwrap();
    // What the supervisor has: the secret in its memory, its environment, and behind its descriptors.
    let _file = File::open(&host_file).unwrap();
    let _directory = File::open("/").unwrap();
    let _copy = SECRET.to_owned();

    for users in possible() {
        let lurker = ["lurker", SECRET, host_file.to_str().unwrap()];
        let target = Target::with_program(*users, &program, &lurker);
        let door = Door::open();
        for entry in 0..ENTRIES {
            let mut process = process(&["true"]);
            process.tty = (entry % 3 == 0).then_some(TerminalSize { cols: 80, rows: 24 });
            let outcome = door.run(&target, &process);
            // That one meddles with a process is the container's own affair.
            assert!(outcome.error.is_none() || outcome.code.is_some(), "{users:?} {outcome:?}");
        }
        let findings = fs::read_to_string(target.path("/tmp/findings")).unwrap();
        assert_eq!(findings, "", "{users:?}");
        let [all, early, refused] = met(&target);
        // Else this test would have shown nothing.
        let enough = if *users == Users::Host { early } else { refused };
        assert!(enough > ENTRIES / 4, "{users:?}: {all} met, {early} early, {refused} not to be traced");
    }
}
