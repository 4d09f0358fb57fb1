//! The host's own tree as a root, copy-on-write.
//!
//! Everything is held by this mount namespace; where the overlays write to is [`Scratch`]'s.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, OFlags, StatVfsMountFlags, fstat, statvfs};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::existing_paths::ExistingPaths;
use super::host_split;
use super::mount_api::{attach, clone_tree, make_read_only, tmpfs};
use super::root_dir::{Missing, RootDir};
use super::scratch::Scratch;
use super::search_permission::with_unsearchable;
use crate::plan::root::HostRoot;
use nsrs_base::error::{At, Code, Error, Result};
use nsrs_base::host::tree::Overlay;

/// The host's tree, put together, with what is still to go over it.
pub struct AssembledHost {
    /// The mount that becomes `/`.
    pub tree: OwnedFd,
    reveal: Option<OwnedFd>,
}

/// Puts the tree together: every file system of the host under an overlay.
///
/// # Errors
/// A file system can't be used; the error names it.
pub fn assemble(plan: &HostRoot, scratch: &mut Scratch) -> Result<AssembledHost> {
    // Whatever lies in fresh or hidden places is taken before they are covered.
    let split = |path: &str| plan.split.iter().any(|parent| parent == path);
    let reveal = match &plan.reveal {
        Some(path) if !split(path) => Some(scratch.overlay(path, path, attributes_at(path)?)?),
        _ => None,
    };
    let first = plan.overlays.first().ok_or_else(|| {
        Error::new(Code::Unsupported, "read the mount table", "the host's root is not in /proc/self/mountinfo")
    })?;
    let (tree, is_new) = if split("/") {
        scratch.anew("/")?
    } else {
        (scratch.overlay(&first.path, &first.path, attributes(first))?, true)
    };
    scratch.hold(&tree)?;
    let root = RootDir::new(tree.as_fd().try_clone_to_owned().at("hold the root", "/")?);
    if split("/") {
        host_split::fill(plan, "/", &root, scratch, is_new)?;
    }
    let later = |path: &str| plan.is_revealed(path) || plan.reveal.as_deref() == Some(path);
    fill_mount_points(plan, |path| !later(path), &root, scratch, is_new)?;
    Ok(AssembledHost { tree, reveal })
}

/// Fills these mount points in the new root, parents first, `/` excepted.
fn fill_mount_points(
    plan: &HostRoot,
    of: impl Fn(&str) -> bool,
    root: &RootDir,
    scratch: &mut Scratch,
    is_new: bool,
) -> Result<()> {
    for overlay in plan.overlays.iter().skip(1).filter(|overlay| of(&overlay.path)) {
        if plan.split.contains(&overlay.path) {
            host_split::fill(plan, &overlay.path, root, scratch, is_new)?;
            continue;
        }
        let mount = match scratch.overlay(&overlay.path, &overlay.path, attributes(overlay)) {
            // A mount that we may not even enter, or that is gone by now, is as good as hidden: its mount point is empty.
            Err(error) if matches!(error.errno, Some(libc::EACCES | libc::ENOENT)) => continue,
            other => other?,
        };
        attach(&mount, &root.target(&overlay.path, Missing::Directory)?, &overlay.path)?;
    }
    for path in plan.files.iter().filter(|path| of(path)) {
        attach(mounted_file(path, scratch)?, &root.target(path, Missing::File)?, path)?;
    }
    Ok(())
}

/// What takes the place of a file that is a mount point on the host: its copy, read-only. A socket would lead to whoever
/// listens on the host, as a fifo or a device would: nothing can be reached by the empty file in its place.
fn mounted_file(path: &str, scratch: &Scratch) -> Result<OwnedFd> {
    let file = clone_tree(CWD, path, false).at("open the mounted file", path)?;
    // Of the copy: the name may mean something else by now.
    if !FileType::from_raw_mode(fstat(&file).at("look at the mounted file", path)?.st_mode).is_file() {
        return scratch.empty_file();
    }
    make_read_only(&file, false, path)?;
    Ok(file)
}

impl AssembledHost {
    /// Covers what a container has of its own or must not see. After the tree is read-only, where it is to be: what goes
    /// over it is in memory and thrown away in any case.
    ///
    /// # Errors
    /// A place that the caller wants hidden does not exist; the kernel refuses a mount.
    pub fn cover(self, plan: &HostRoot, scratch: &mut Scratch, root: &RootDir) -> Result<()> {
        for path in &plan.fresh {
            let mode = if path == "/tmp" { 0o1777 } else { 0o755 };
            let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
            match root.target(path, Missing::Refuse) {
                Ok(target) => attach(tmpfs(mode, None, attributes)?, target, path)?,
                Err(error) if error.errno == Some(libc::ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
        let revealed = |path: &str| plan.reveal.as_ref().is_some_and(|reveal| path.starts_with(&format!("{reveal}/")));
        let secrets = plan.hidden.iter().map(|path| (path, false));
        let places: Vec<_> = secrets.chain(plan.hidden_by_caller.iter().map(|path| (path, true))).collect();
        let mut existing = ExistingPaths::new(root);
        for (path, must) in places.iter().filter(|(path, _)| !revealed(path)) {
            if *must || existing.has(path) {
                hide(plan, path, *must, scratch, root)?;
            }
        }
        if let Some(path) = &plan.reveal {
            let target = root.target(path, Missing::Directory)?;
            let (mount, is_new) = match self.reveal {
                Some(mount) => {
                    attach(&mount, &target, path)?;
                    (mount, true)
                }
                None => {
                    let (mount, is_new) = scratch.anew(path)?;
                    attach(&mount, &target, path)?;
                    host_split::fill(plan, path, root, scratch, is_new)?;
                    (mount, is_new)
                }
            };
            fill_mount_points(plan, |path| plan.is_revealed(path), root, scratch, is_new)?;
            if plan.read_only {
                make_read_only(&mount, true, path)?;
            }
        }
        // The working directory brought its own secrets back into view.
        let mut existing = ExistingPaths::new(root);
        for (path, must) in places.iter().filter(|(path, _)| revealed(path)) {
            if *must || existing.has(path) {
                hide(plan, path, *must, scratch, root)?;
            }
        }
        Ok(())
    }
}

/// Covers one place with nothing.
fn hide(plan: &HostRoot, path: &str, must: bool, scratch: &Scratch, root: &RootDir) -> Result<()> {
    if plan.reveal.as_deref() == Some(path) {
        return Ok(());
    }
    let place = match root.open(path, OFlags::PATH) {
        Ok(place) => place,
        // What isn't there needs no hiding, and what can't be reached from here can't be from inside either.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::LOOP) if !must => return Ok(()),
        Err(errno) => return Err(Error::os("hide", path, errno).code(Code::InvalidArgument)),
    };
    let directory = FileType::from_raw_mode(fstat(&place).at("hide", path)?.st_mode).is_dir();
    let holds_cwd = plan.reveal.as_ref().is_some_and(|reveal| reveal.starts_with(&format!("{path}/")));
    let mount = match (directory, holds_cwd) {
        // The way to the working directory is made in it, so it can't be the shared, read-only one.
        (true, true) => tmpfs(0o755, None, MountAttrFlags::empty())?,
        (true, false) => scratch.empty_directory()?,
        (false, _) => scratch.empty_file()?,
    };
    attach(&mount, &place, path)
}

/// What the host forbids on a file system stays forbidden in its copy. A copy of a part of one asks the kernel, for the mount
/// that it lies on may have no place of its own in the tree.
pub fn attributes_at(path: &str) -> Result<MountAttrFlags> {
    let looked = statvfs(path).at("look at the file system of", path);
    let flags = looked.map_err(|error| with_unsearchable(error, Path::new(path)))?.f_flag;
    let bits = [
        (StatVfsMountFlags::NOSUID, MountAttrFlags::MOUNT_ATTR_NOSUID),
        (StatVfsMountFlags::NODEV, MountAttrFlags::MOUNT_ATTR_NODEV),
        (StatVfsMountFlags::NOEXEC, MountAttrFlags::MOUNT_ATTR_NOEXEC),
    ];
    Ok(bits.iter().filter(|(flag, _)| flags.contains(*flag)).fold(MountAttrFlags::empty(), |all, (_, bit)| all | *bit))
}

fn attributes(overlay: &Overlay) -> MountAttrFlags {
    let bits = [
        (overlay.attributes.read_only, MountAttrFlags::MOUNT_ATTR_RDONLY),
        (overlay.attributes.nosuid, MountAttrFlags::MOUNT_ATTR_NOSUID),
        (overlay.attributes.nodev, MountAttrFlags::MOUNT_ATTR_NODEV),
        (overlay.attributes.noexec, MountAttrFlags::MOUNT_ATTR_NOEXEC),
    ];
    bits.iter().filter(|(set, _)| *set).fold(MountAttrFlags::empty(), |all, (_, bit)| all | *bit)
}
