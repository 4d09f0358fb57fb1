//! /proc, /sys and /dev of the container, and what of them is masked or read-only.
//!
//! All of it is fresh from the kernel and reached by descriptor: nothing the root file system holds can stand in for it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, makedev, mkdirat, mknodat, openat, statat, symlinkat, unlinkat};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::mount_api::{
    FsContext, RESTRICTED, attach, attach_at, clone_tree, make_read_only, restrict as restrict_mount, tmpfs,
};
use super::root_dir::RootDir;
use super::sources::{NODES, Sources};
use crate::plan::mount::Propagation;
use crate::plan::pseudo::{Nodes, Pseudo};
use nsrs_base::error::{At, Code, Error, Result};
use nsrs_base::host::tree::Attributes;

/// Bytes of /dev, as in docker.
const DEV_SIZE: u64 = 64 << 20;

/// Descriptors of the mounts that later steps work through.
pub struct Mounted {
    /// The root of the container's /proc.
    pub proc: OwnedFd,
    /// The root of the container's /sys, where it has one.
    pub sys: Option<OwnedFd>,
    /// The root of the container's /dev.
    pub dev: OwnedFd,
    /// The root of the container's /dev/pts.
    pub pts: OwnedFd,
    /// The directory in /dev that the terminals cover: what is in it has a name, and nobody sees it.
    pub covered: OwnedFd,
    /// The node of /dev/null itself: by its name there may be a mount of the caller's on it later.
    null: OwnedFd,
}

/// Mounts /proc, /sys and /dev, then masks.
///
/// # Errors
/// The kernel refuses a mount; a mount point is a link.
pub fn mount(plan: &Pseudo, sources: &mut Sources, root: &RootDir) -> Result<Mounted> {
    let missing = |path: &str| Error::new(Code::SetupFailed, "mount", "it was not made").on(path);
    let proc = sources.proc.take().ok_or_else(|| missing("/proc"))?;
    attach(&proc, root.own_directory("/proc")?, "/proc")?;
    // Where there is no sysfs, whatever the root file system holds at /sys is no view of this kernel.
    let place = root.own_directory("/sys")?;
    let sys = sources.sys.take();
    if let Some(sys) = &sys {
        attach(sys, place, "/sys")?;
    }
    let Dev { dev, pts, covered } = dev(plan, sources, root)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let null = openat(&dev, "null", flags, Mode::empty()).at("open", "/dev/null")?;
    Ok(Mounted { proc, sys, dev, pts, covered, null })
}

/// The parts of [`Mounted`] that belong to /dev.
struct Dev {
    dev: OwnedFd,
    pts: OwnedFd,
    covered: OwnedFd,
}

/// /dev with its nodes, terminals, shared memory and message queues.
fn dev(plan: &Pseudo, sources: &Sources, root: &RootDir) -> Result<Dev> {
    let place = root.own_directory("/dev")?;
    let dev = tmpfs(0o755, Some(DEV_SIZE), MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC)?;
    attach(&dev, place, "/dev")?;
    for (index, (name, major, minor)) in NODES.into_iter().enumerate() {
        let step = "make the device";
        match plan.nodes {
            Nodes::Made => {
                mknodat(&dev, name, FileType::CharacterDevice, Mode::from(0o666), makedev(major, minor))
                    .at(step, name)?;
            }
            Nodes::Bound => {
                let file = openat(
                    &dev,
                    name,
                    OFlags::CREATE | OFlags::EXCL | OFlags::RDONLY | OFlags::CLOEXEC,
                    Mode::from(0o600),
                )
                .at(step, name)?;
                let node = sources
                    .nodes
                    .get(index)
                    .ok_or_else(|| Error::new(Code::SetupFailed, step, "no copy of the host's").on(name))?;
                attach(node, file, name)?;
            }
        }
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        symlinkat(target, &dev, name).at("link the device", name)?;
    }
    let mut terminals = FsContext::new("devpts")?.set("ptmxmode", "0666")?.set("mode", "0620")?;
    if let Some(group) = plan.tty_group {
        terminals = terminals.set("gid", &group.to_string())?;
    }
    let pts = terminals.mount(MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC)?;
    mkdirat(&dev, "pts", Mode::from(0o755)).at("make the mount point", "pts")?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let covered = openat(&dev, "pts", flags, Mode::empty()).at("open", "/dev/pts")?;
    attach(&pts, &covered, "/dev/pts")?;
    shared_memory(plan, &dev)?;
    if plan.mqueue {
        put(&dev, "mqueue", FsContext::new("mqueue")?.mount(RESTRICTED)?)?;
    }
    Ok(Dev { dev, pts, covered })
}

/// Mounts onto a new directory in /dev.
fn put(dev: &OwnedFd, name: &str, mount: impl AsFd) -> Result<()> {
    mkdirat(dev, name, Mode::from(0o755)).at("make the mount point", name)?;
    attach_at(mount, dev, name).at("mount onto", format!("/dev/{name}"))
}

/// /dev/shm: a directory of the same file system, as a mount of its own for its restrictions, unless another size is
/// wanted than that of /dev. A file system more would cost as much as a whole namespace.
fn shared_memory(plan: &Pseudo, dev: &OwnedFd) -> Result<()> {
    let name = "shm";
    if plan.shm_size != DEV_SIZE {
        return put(dev, name, tmpfs(0o1777, Some(plan.shm_size), RESTRICTED)?);
    }
    mkdirat(dev, name, Mode::from(0o1777)).at("make the mount point", name)?;
    let mount = clone_tree(dev, name, false).at("mount onto", "/dev/shm")?;
    let attributes = Attributes { nosuid: true, nodev: true, noexec: true, ..Attributes::default() };
    restrict_mount(&mount, attributes, Propagation::Private, "/dev/shm")?;
    attach_at(&mount, dev, name).at("mount onto", "/dev/shm")
}

/// Masks and makes read-only, after the last write of our own to /proc. A mask that fails fails the container: it would
/// tell of the host in silence.
///
/// The names are ours and lie in fresh mounts of ours, which hold no link that could be on the way: they are used as they
/// are, from the descriptor of their mount.
///
/// # Errors
/// The kernel refuses a mask.
pub fn restrict(plan: &Pseudo, mounted: &Mounted) -> Result<()> {
    let dev = &mounted.dev;
    // Directories are masked by one that is deleted below: empty, and nothing can ever be made in it.
    let empty = ".masked";
    mkdirat(dev, empty, Mode::from(0o555)).at("make the mask", empty)?;
    for path in &plan.masked {
        let Some((mount, rest)) = inside(path, mounted) else { continue };
        let mask = match statat(mount, rest, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => clone_tree(dev, empty, false),
            Ok(_) => clone_tree(&mounted.null, "", false),
            // This kernel has none of that name.
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(Error::os("find what is to be masked", path, errno)),
        };
        attach_at(mask.at("mask", path)?, mount, rest).at("mask", path)?;
    }
    unlinkat(dev, empty, AtFlags::REMOVEDIR).at("remove the mask's directory", empty)?;
    for path in &plan.read_only {
        let Some((mount, rest)) = inside(path, mounted) else { continue };
        let copy = match clone_tree(mount, rest, true) {
            Ok(copy) => copy,
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(Error::os("make read-only", path, errno)),
        };
        make_read_only(&copy, true, path)?;
        attach_at(&copy, mount, rest).at("make read-only", path)?;
    }
    Ok(())
}

/// The mount a path lies in, and the path from there.
fn inside<'a>(path: &'a str, mounted: &'a Mounted) -> Option<(BorrowedFd<'a>, &'a str)> {
    let (first, rest) = path.strip_prefix('/')?.split_once('/')?;
    match first {
        "proc" => Some((mounted.proc.as_fd(), rest)),
        "sys" => mounted.sys.as_ref().map(|sys| (sys.as_fd(), rest)),
        _ => None,
    }
}
