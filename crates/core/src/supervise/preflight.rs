//! A plan held against the host's files, before anything is touched: what is missing is told with all other problems.

use std::fs;
use std::io::ErrorKind;

use crate::plan::mount::{MountSource, Written};
use crate::plan::namespace::Join;
use crate::plan::root::Root;
use crate::plan::sandbox::Sandbox;
use nsrs_base::error::{Code, Error};
use nsrs_base::host::mountinfo;
use nsrs_base::options::{DIFF, ROOTFS, UPPER};

/// Every path of the plan that can't be used as it is.
#[must_use]
pub fn check(sandbox: &Sandbox) -> Vec<Error> {
    let root = match &sandbox.root {
        Root::Directory { path, .. } => path.starts_with('/').then(|| check_root(path)).flatten(),
        // Whether its layers are there was looked up when it was found.
        Root::Shared | Root::Host(_) | Root::Image(_) => None,
    };
    let copied = match &sandbox.root {
        Root::Directory { path, .. } if sandbox.changes.is_some() => check_copied(path),
        _ => None,
    };
    // What stayed relative is relative to a directory that is gone, and was told.
    let sources = sandbox.mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::Bind { path, .. } if path.starts_with('/') => check_source(path, &mount.option, false),
        MountSource::Overlay { lower } if lower.starts_with('/') => check_source(lower, &mount.option, true),
        _ => None,
    });
    let joined = sandbox.namespaces.joined.iter().filter_map(check_namespace);
    root.into_iter().chain(copied).chain(sources).chain(joined).collect()
}

fn check_namespace(join: &Join) -> Option<Error> {
    let missing = fs::metadata(&join.path).is_err_and(|error| error.kind() == ErrorKind::NotFound);
    let (why, hint) = match &join.path {
        path if path.starts_with("/proc/") => ("no such process", ""),
        path if path.starts_with("/run/netns/") => {
            ("no such namespace", "ip netns list shows the namespaces that exist")
        }
        _ => ("no such file", ""),
    };
    missing.then(|| Error::invalid(join.kind.option(), &join.path, why).hint(hint))
}

fn check_root(path: &str) -> Option<Error> {
    let bad = |why: &str| Error::invalid(ROOTFS, path, why);
    match fs::read_dir(path) {
        // Only a directory in which a program can be is a root; an empty one is a mistyped path or a failed unpacking.
        Ok(mut entries) => entries.next().is_none().then(|| {
            bad("the directory is empty")
                .hint("unpack a root file system there, for example with mmdebstrap or busybox --install")
        }),
        Err(error) => match error.kind() {
            ErrorKind::NotFound => Some(bad("no such directory")),
            ErrorKind::NotADirectory => Some(bad("not a directory")),
            // One that can be entered and not listed may still be a root.
            _ => None,
        },
    }
}

/// An overlay shows nothing of what is mounted in the directory that it is over.
fn check_copied(path: &str) -> Option<Error> {
    let path = fs::canonicalize(path).ok()?;
    let mounts = match mountinfo::read("self").and_then(|table| mountinfo::parse(&table)) {
        Ok(mounts) => mounts,
        Err(error) => return Some(error),
    };
    let below = mounts.iter().map(|mount| &mount.point).find(|point| **point != path && point.starts_with(&path))?;
    Some(
        Error::new(Code::Unsupported, "copy the root on write", format!("{} is mounted in it", below.display()))
            .on(path.display().to_string())
            .hint(format!("unmount it, or run without {DIFF} and {UPPER}")),
    )
}

fn check_source(path: &str, option: &Written, directory: bool) -> Option<Error> {
    let bad = |why: String| option.invalid(why);
    match fs::metadata(path) {
        Ok(meta) if directory && !meta.is_dir() => Some(bad(format!("{path} is not a directory"))),
        Ok(_) => None,
        Err(error) => match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => {
                Some(bad(format!("{path} does not exist")).hint("make it first: nsrs makes no directories on the host"))
            }
            _ => None,
        },
    }
}
