//! What becomes of a pull for which the disk has no room.

use std::process::{Command, Stdio};

use crate::support::{Nsrs, Registry, Source, ready};

/// A shell in a mount namespace of its own, with `$STORE` on a disk of so many megabytes and `nsrs` to be called.
fn on_a_disk(nsrs: &Nsrs, megabytes: u32, script: &str) -> (bool, String) {
    std::fs::create_dir_all(nsrs.store()).unwrap();
    let command = nsrs.command(&[]);
    let script = format!(
        "exec 2>&1; set -e\nSTORE=$NSRS_IMAGE_DIR\nmount -t tmpfs -o size={megabytes}m,mode=700 tmpfs $STORE\n\
         nsrs() {{ {} {} \"$@\"; }}\n{script}",
        command.get_program().display(),
        nsrs_base::version::VERSION
    );
    let unshare: &[&str] = if rustix::process::geteuid().is_root() { &["-m"] } else { &["-Urm"] };
    let mut shell = Command::new("unshare");
    shell.args(unshare).args(["sh", "-c", &script]).stdin(Stdio::null());
    shell.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = shell.output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_full_disk_is_said_and_nothing_half_made_stays() {
    if !ready() {
        return;
    }
    let registry = Registry::start();
    // Busybox, packed and not, needs some three megabytes; what compresses fills the disk while it is unpacked.
    let source = Source::new(&[6_000_000, 6_000_000]);
    std::fs::write(source.dir.path("text"), "much of the same ".repeat(1_000_000)).unwrap();
    let archive = source.dir.path("text.tar");
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    crate::support::tool("tar", &["-C", &text(&source.dir.0), "-cf", &text(&archive), "text"]);
    let small = Source::new(&[]);
    small.add(&archive);
    for (name, source) in [("noise:1", &source), ("text:1", &small)] {
        source.copy_to(&registry, name, &[]);
        let nsrs = Nsrs::new();
        let script = format!(
            "if nsrs pull {0}; then exit 9; fi
             echo; echo left:; find $STORE/ingest $STORE/layers -mindepth 1 -maxdepth 1 -size +0 -name '.*' -o -path '*/ingest/*'
             cd $STORE/blobs/sha256; for blob in *; do test $blob = '*' || echo $blob $blob | sha256sum -c --quiet -; done
             test \"$(nsrs images --format json)\" = '[]'
             mount --options-mode=ignore -o remount,size=100m $STORE
             nsrs pull {0}; nsrs export {0} | wc -c",
            registry.image(name)
        );
        let (worked, said) = on_a_disk(&nsrs, 10, &script);
        assert!(worked, "{said}");
        assert!(said.contains("no space left on device (ENOSPC)"), "{said}");
        assert!(
            said.contains("hint: free disk space (nsrs image prune), or set NSRS_IMAGE_DIR to another disk"),
            "{said}"
        );
        let left = said.split("left:\n").nth(1).unwrap();
        assert!(!left.contains("/ingest/") && !left.contains("/."), "{said}");
    }
}
