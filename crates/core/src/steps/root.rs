//! The container's file tree: assembled, entered, the host's left behind (pivot_root(2)).

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, StatVfsMountFlags, open};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, UnmountFlags, unmount};
use rustix::process::{chdir, fchdir, pivot_root};

use super::Writes;
use super::etc::{self, Files};
use super::host_root;
use super::image_root;
use super::mount_api::{attach, clone_tree, make_read_only};
use super::root_dir::{Missing, RootDir};
use super::scratch::Scratch;
use super::search_permission::with_unsearchable;
use crate::plan::mount::MountSource;
use crate::plan::root::Root;
use crate::plan::sandbox::Sandbox;
use nsrs_base::error::{At, Code, Error, Result};
use nsrs_base::options::ROOTFS;
use nsrs_base::sys::mount::{AttributeChange, set_attributes};

/// Cuts this mount namespace off from the one it was copied from: nothing mounted from here on is seen outside.
///
/// # Errors
/// The kernel refuses.
pub fn make_private() -> Result<()> {
    let change = AttributeChange { propagation: libc::MS_PRIVATE, ..AttributeChange::default() };
    set_attributes(CWD, c"/", true, change).at("make all mounts private", "/").map_err(|error| match error.errno {
        // What the kernel says of a path that is not a mount point.
        Some(libc::EINVAL) => error
            .because("the root directory is not a mount point, as in a chroot")
            .hint("bind-mount the directory onto itself before chroot(1): mount --bind DIRECTORY DIRECTORY"),
        _ => error,
    })
}

/// Assembles the root and enters it. Afterwards nothing of the host's tree can be reached by any path. `disk` is the
/// directory of the writable layers, where they aren't in memory; `notes` takes what the caller should know.
///
/// # Errors
/// The root is missing, not a directory or empty, or a mount is refused.
pub fn enter(
    sandbox: &Sandbox,
    workdir: &str,
    files: &Files,
    scratch: Option<&mut Scratch>,
    disk: Option<&OwnedFd>,
    notes: &mut Vec<String>,
    writes: Writes,
) -> Result<RootDir> {
    let tree = match &sandbox.root {
        Root::Shared => return current(),
        Root::Directory { path, read_only } => {
            // Whatever else is done with one that may not be searched fails too, and says less.
            chdir(path.as_str())
                .at("open the root file system", path)
                .map_err(|error| unsearchable_root(error, path))?;
            let tree = match scratch.filter(|_| sandbox.changes.is_some()) {
                Some(scratch) => {
                    let tree = scratch.overlay("/", path, MountAttrFlags::empty())?;
                    scratch.hold(&tree)?;
                    tree
                }
                None => directory(path)?,
            };
            if writes == Writes::Not {
                let flags = rustix::fs::fstatvfs(&tree).at("look at the root file system", path)?.f_flag;
                if flags.contains(StatVfsMountFlags::RDONLY) && !read_only {
                    // To allow writes again would be to allow what the host forbids.
                    return Err(Error::os("prepare the root file system", path, Errno::ROFS));
                }
                make_read_only(&tree, false, path)?;
            }
            if *read_only {
                lock(sandbox, files, &tree)?;
            }
            tree
        }
        Root::Host(root) => {
            let scratch = scratch.ok_or_else(no_layer)?;
            let assembled = host_root::assemble(root, scratch)?;
            if root.read_only {
                lock(sandbox, files, &assembled.tree)?;
            }
            let tree = hold(&assembled.tree)?;
            assembled.cover(root, scratch, &RootDir::new(hold(&tree)?))?;
            tree
        }
        Root::Image(image) => {
            // To copy an image takes long: not before anybody has asked for it.
            let disk = disk.filter(|_| writes == Writes::MountPoints);
            let assembled = image_root::assemble(
                image,
                workdir,
                scratch.ok_or_else(no_layer)?,
                sandbox.changes.as_ref(),
                disk,
                notes,
            )?;
            if image.read_only {
                lock(sandbox, files, &assembled.tree)?;
            }
            let tree = hold(&assembled.tree)?;
            assembled.cover(&RootDir::new(hold(&tree)?))?;
            tree
        }
    };
    forbid_devices(&tree)?;
    fchdir(&tree).at("enter the root file system", "")?;
    // With both names "." the old root ends up stacked on the new one, and needs no directory to be put in.
    pivot_root(".", ".").map_err(|errno| {
        let error = Error::os("make it the root", "", errno);
        match errno {
            Errno::INVAL => {
                error.hint("the host's root is a ramfs (an initramfs): nsrs needs a real mount as the root")
            }
            _ => error,
        }
    })?;
    unmount(".", UnmountFlags::DETACH).at("leave the host's tree", "")?;
    chdir("/").at("enter the root file system", "/")?;
    current()
}

/// Takes from device nodes that the tree holds, wherever in it, the power to open a device: those of the container are in /dev,
/// which is mounted later, as are the caller's mounts, which say for themselves.
fn forbid_devices(tree: &OwnedFd) -> Result<()> {
    let change = AttributeChange { set: libc::MOUNT_ATTR_NODEV, ..AttributeChange::default() };
    set_attributes(tree, c"", true, change).at("forbid devices in the root file system", "")
}

/// Makes the root writable again, unless the caller asked for a read-only one.
///
/// # Errors
/// The kernel refuses.
pub fn allow_writes(sandbox: &Sandbox) -> Result<()> {
    match &sandbox.root {
        Root::Directory { read_only: false, path } => {
            let change = AttributeChange { clear: libc::MOUNT_ATTR_RDONLY, ..AttributeChange::default() };
            set_attributes(CWD, c"/", false, change).at("allow writes", path)
        }
        _ => Ok(()),
    }
}

/// The root directory of this process; paths are resolved beneath it.
///
/// # Errors
/// It can't be opened.
pub fn current() -> Result<RootDir> {
    Ok(RootDir::new(
        open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).at("open the root", "/")?,
    ))
}

fn no_layer() -> Error {
    Error::new(Code::SetupFailed, "overlay the root file system", "no writable layer was made")
}

/// A directory of the host as the root.
fn directory(path: &str) -> Result<OwnedFd> {
    let step = "open the root file system";
    let tree = clone_tree(CWD, path, true).at(step, path)?;
    let target = open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).at(step, path)?;
    attach(&tree, &target, path)?;
    Ok(tree)
}

/// A root that this process may not search is the caller's mistake.
fn unsearchable_root(error: Error, path: &str) -> Error {
    match error.errno {
        Some(errno @ libc::EACCES) => {
            with_unsearchable(Error { errno: Some(errno), ..Error::invalid(ROOTFS, path, "") }, Path::new(path))
        }
        _ => error,
    }
}

fn hold(tree: &OwnedFd) -> Result<OwnedFd> {
    tree.try_clone().at("hold the root", "/")
}

/// Makes a tree read-only, and before that every mount point in it: later none can be made.
fn lock(sandbox: &Sandbox, files: &Files, tree: &OwnedFd) -> Result<()> {
    prepare(sandbox, files, &RootDir::new(hold(tree)?))?;
    make_read_only(tree, true, "/")
}

/// Makes every mount point that the later steps will look for.
fn prepare(sandbox: &Sandbox, files: &Files, root: &RootDir) -> Result<()> {
    for path in ["/proc", "/sys", "/dev"] {
        root.own_directory(path)?;
    }
    etc::prepare(files, root)?;
    for mount in &sandbox.mounts {
        let nested = sandbox
            .mounts
            .iter()
            .any(|outer| mount.target.starts_with(&format!("{}/", outer.target.trim_end_matches('/'))));
        if nested {
            continue;
        }
        let missing = match &mount.source {
            MountSource::Bind { path, .. } if !std::path::Path::new(path).is_dir() => Missing::File,
            _ => Missing::Directory,
        };
        root.target(&mount.target, missing)?;
    }
    Ok(())
}
