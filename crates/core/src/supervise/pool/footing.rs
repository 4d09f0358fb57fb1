//! What a prewarmed container stands on: what the paths of its plan lead to, and the mounts these lie on or have below
//! them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::Pid;

use crate::plan::Plan;
use crate::plan::mount::MountSource;
use crate::plan::pseudo::Sys;
use crate::plan::root::Root;
use crate::steps::etc::Files;
use nsrs_base::host::mountinfo::{self, MountEntry};

/// The files of a plan and their mounts, as the supervisor sees them.
#[derive(Debug)]
pub struct Footing {
    /// Device and inode behind each path.
    pub files: Vec<Option<(u64, u64)>>,
    /// The mounts that the paths lie on or have below them ([`mounts`]); `None` if /proc can't be read.
    pub mounts: Option<Vec<Vec<u8>>>,
}

impl Footing {
    /// Looks at the paths of a plan, and takes down what they lead to now.
    pub fn of(plan: &Plan) -> Footing {
        Footing { files: files(plan), mounts: mountinfo::read("self").ok().map(|table| mounts(plan, &table)) }
    }
}

/// The paths outside of its root that a plan leads to.
fn paths(plan: &Plan) -> impl Iterator<Item = &String> {
    let root = match &plan.sandbox.root {
        Root::Directory { path, .. } => Some(path),
        Root::Image(image) => Some(&image.store),
        Root::Shared | Root::Host(_) => None,
    };
    let sources = plan.sandbox.mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::Bind { path, .. } | MountSource::Overlay { lower: path } => Some(path),
        MountSource::Tmpfs { .. } => None,
    });
    root.into_iter().chain(sources)
}

/// Which files the paths of a plan lead to.
pub fn files(plan: &Plan) -> Vec<Option<(u64, u64)>> {
    paths(plan).map(|path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))).collect()
}

/// The lines of the supervisor's mount table that a container of this plan depends on: the mounts that its paths lie on,
/// whose flags it takes over, and those below, which it shows.
pub fn mounts(plan: &Plan, table: &[u8]) -> Vec<Vec<u8>> {
    let real: Vec<PathBuf> = paths(plan).filter_map(|path| fs::canonicalize(path).ok()).collect();
    let concerns = |line: &&[u8]| {
        let Some(MountEntry { point, .. }) = MountEntry::parse(line) else { return true };
        real.iter().any(|path| path.starts_with(&point) || point.starts_with(path))
    };
    mountinfo::lines(table).filter(concerns).map(<[u8]>::to_vec).collect()
}

/// Where in its root a container must have mounts: later nothing else may be found by these names.
pub fn places(plan: &Plan, files: &Files) -> Vec<String> {
    let pseudo = plan.sandbox.pseudo.as_ref();
    let sys = pseudo.is_some_and(|pseudo| pseudo.sys == Sys::Fresh);
    let own = [("/proc", pseudo.is_some()), ("/dev", pseudo.is_some()), ("/sys", sys)];
    let etc =
        [("/etc/hosts", &files.hosts), ("/etc/hostname", &files.hostname), ("/etc/resolv.conf", &files.resolv_conf)];
    let own = own.into_iter().filter(|(_, is_there)| *is_there).map(|(path, _)| path);
    let etc = etc.into_iter().filter(|(_, text)| text.is_some()).map(|(path, _)| path);
    own.chain(etc).map(ToOwned::to_owned).chain(plan.sandbox.mounts.iter().map(|mount| mount.target.clone())).collect()
}

/// Whether there is a mount at each of these [`places`].
pub fn are_mounted(places: &[String], table: &[u8]) -> bool {
    let Ok(mounts) = mountinfo::parse(table) else { return false };
    places.iter().all(|place| mounts.iter().any(|mount| mount.point == Path::new(place)))
}

/// The mounts of a process, by their paths from its root. A directory below a mount that is renamed or removed, by whom
/// ever and in whatever mount namespace, shows here.
pub fn mount_table_of(pid: Pid) -> Option<Vec<u8>> {
    mountinfo::read(&pid.as_raw_nonzero().to_string()).ok()
}
