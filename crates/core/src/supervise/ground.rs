//! What a container made ahead stands on: what the paths of its plan lead to, and the mounts these lie on or have below
//! them.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::Pid;

use crate::plan::mount::Source;
use crate::plan::pseudo::Sys;
use crate::plan::root::Root;
use crate::plan::sandbox::Sandbox;
use crate::steps::etc::Files;
use nsrs_base::host::tree::unescape;

/// The files of a plan and their mounts, as the supervisor sees them.
#[derive(Debug)]
pub(super) struct Ground {
    /// Device and inode behind each path.
    pub files: Vec<Option<(u64, u64)>>,
    /// See [`mounts`].
    pub mounts: Option<Vec<String>>,
}

impl Ground {
    /// The ground of a sandbox, now.
    pub fn of(sandbox: &Sandbox) -> Ground {
        Ground { files: files(sandbox), mounts: mount_table("self").map(|table| mounts(sandbox, &table)) }
    }
}

/// The paths outside of its root that a plan leads to.
fn paths(sandbox: &Sandbox) -> impl Iterator<Item = &String> {
    let root = match &sandbox.root {
        Root::Directory { path, .. } => Some(path),
        Root::Image(image) => Some(&image.store),
        Root::Shared | Root::Host(_) => None,
    };
    let sources = sandbox.mounts.iter().filter_map(|mount| match &mount.source {
        Source::Bind { path, .. } | Source::Overlay { lower: path } => Some(path),
        Source::Tmpfs { .. } => None,
    });
    root.into_iter().chain(sources)
}

/// Which files the paths of a plan lead to.
pub(super) fn files(sandbox: &Sandbox) -> Vec<Option<(u64, u64)>> {
    paths(sandbox).map(|path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))).collect()
}

/// The lines of the supervisor's mount table that a container of this plan depends on: the mounts that its paths lie on,
/// whose flags it takes over, and those below, which it shows.
pub(super) fn mounts(sandbox: &Sandbox, table: &str) -> Vec<String> {
    let real: Vec<PathBuf> = paths(sandbox).filter_map(|path| fs::canonicalize(path).ok()).collect();
    let concerns = |line: &&str| {
        let Some(point) = line.split(' ').nth(4).map(unescape) else { return true };
        let point = Path::new(&point);
        real.iter().any(|path| path.starts_with(point) || point.starts_with(path))
    };
    table.lines().filter(concerns).map(ToOwned::to_owned).collect()
}

/// Where in its root a container must have mounts: later nothing else may be found by these names.
pub(super) fn places(sandbox: &Sandbox, files: &Files) -> Vec<String> {
    let pseudo = sandbox.pseudo.as_ref();
    let sys = pseudo.is_some_and(|pseudo| pseudo.sys == Sys::Fresh);
    let own = [("/proc", pseudo.is_some()), ("/dev", pseudo.is_some()), ("/sys", sys)];
    let etc =
        [("/etc/hosts", &files.hosts), ("/etc/hostname", &files.hostname), ("/etc/resolv.conf", &files.resolv_conf)];
    let own = own.into_iter().filter(|(_, is_there)| *is_there).map(|(path, _)| path);
    let etc = etc.into_iter().filter(|(_, text)| text.is_some()).map(|(path, _)| path);
    own.chain(etc).map(ToOwned::to_owned).chain(sandbox.mounts.iter().map(|mount| mount.target.clone())).collect()
}

/// The mounts of a process, by their paths from its root. A directory below a mount that is renamed or removed, by whom
/// ever and in whatever mount namespace, shows here.
pub(super) fn mount_table_of(pid: Pid) -> Option<String> {
    mount_table(&pid.as_raw_nonzero().to_string())
}

/// The mount table of a process by its name in /proc: a number, or `self`.
pub(super) fn mount_table(process: &str) -> Option<String> {
    // Room for all of it: the kernel puts the text together anew with each read.
    let mut table = String::with_capacity(8192);
    let mut file = File::open(format!("/proc/{process}/mountinfo")).ok()?;
    file.read_to_string(&mut table).ok()?;
    Some(table)
}
