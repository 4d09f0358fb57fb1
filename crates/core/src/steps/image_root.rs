//! An image as a root, copy-on-write: its layers under an overlay whose changes go into a directory of the store that is
//! the container's alone, or into memory.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, chmodat, chownat, mkdirat, open, stat};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use rustix::process::fchdir;

use super::mount_api::{Draft, attach, clone_tree, tmpfs};
use super::root_dir::{Missing, RootDir};
use crate::error::{At, Code, Error, Result};
use crate::plan::image::{ImageRoot, Upper};

/// The image's tree, put together, with what is still to go over it.
pub struct Assembled {
    /// The mount that becomes `/`.
    pub tree: OwnedFd,
    /// The volumes, which stay writable where the rest is not.
    volumes: Vec<(String, OwnedFd)>,
}

/// Puts the tree together. `changes` is the container's directory in the store.
///
/// # Errors
/// The kernel refuses the overlay; a directory of the image can't be made.
pub fn assemble(image: &ImageRoot, workdir: &str, changes: Option<&Path>) -> Result<Assembled> {
    let place = match (image.upper, changes) {
        (Upper::Disk, Some(path)) => open_directory(path)?,
        (Upper::Disk, None) => {
            return Err(Error::new(Code::SetupFailed, "overlay the image", "no directory for changes was made"));
        }
        (Upper::Memory, _) => in_memory()?,
    };
    let tree = overlay(image, &place)?;
    // pivot_root(2) wants a mount point.
    attach(&tree, &place, "/")?;
    let root = RootDir::new(tree.try_clone().at("hold the root", "/")?);
    make_directory(&root, workdir)?;
    let mut volumes = Vec::new();
    for path in &image.volumes {
        let target = root.target(path, Missing::Directory)?;
        if image.read_only {
            volumes.push((path.clone(), clone_tree(target, "", false).at("keep the volume writable", path)?));
        }
    }
    Ok(Assembled { tree, volumes })
}

impl Assembled {
    /// Puts the volumes over the tree, once it is read-only.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn cover(self, root: &RootDir) -> Result<()> {
        for (path, volume) in &self.volumes {
            attach(volume, root.target(path, Missing::Refuse)?, path)?;
        }
        Ok(())
    }
}

/// Makes the working directory, as docker does, unless it is there.
///
/// # Errors
/// It can't be made.
pub fn make_directory(root: &RootDir, path: &str) -> Result<()> {
    root.target(path, Missing::Directory).map(drop)
}

fn open_directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open(path, flags, Mode::empty()).at("open the directory for changes", path.display())
}

/// A tmpfs where it covers nothing that is still needed: overlayfs takes no detached layers. See [`super::host_root`].
fn in_memory() -> Result<OwnedFd> {
    let tree = tmpfs(0o700, None, MountAttrFlags::empty())?;
    attach(&tree, open_directory(Path::new("/proc"))?, "/proc")?;
    for name in ["upper", "work"] {
        mkdirat(&tree, name, Mode::from(0o755)).at("make a writable layer", name)?;
    }
    Ok(tree)
}

/// The overlay, detached. Layers are named from the directory they lie in: an option's value is short (fsconfig(2)).
fn overlay(image: &ImageRoot, place: &OwnedFd) -> Result<OwnedFd> {
    let store = open_directory(Path::new(&image.store))?;
    let (top, lowest) = match image.layers.split_last() {
        Some(split) => split,
        None => return Err(Error::new(Code::ImageInvalid, "overlay the image", "it has no layer").on(&image.name)),
    };
    fchdir(&store).at("enter the store of images", &image.store)?;
    copy_owner(place, top)?;
    let mut draft = Draft::new("overlay")?;
    for layer in std::iter::once(top).chain(lowest.iter().rev()) {
        draft = draft.set("lowerdir+", layer)?;
    }
    fchdir(place).at("enter the directory for changes", "")?;
    draft = draft.set("upperdir", "upper")?.set("workdir", "work")?;
    if image.upper == Upper::Disk {
        // What is thrown away needs not reach the disk.
        draft = draft.flag("volatile")?;
    }
    if image.user_xattrs {
        draft = draft.flag("userxattr")?;
    }
    draft.mount(MountAttrFlags::empty()).map_err(|error| error.on(format!("overlay of {}", image.name)))
}

/// The root directory of the upper layer is what mode and owner of `/` are taken from.
fn copy_owner(place: &OwnedFd, top: &str) -> Result<()> {
    let step = "make a writable layer";
    let top = stat(top).at(step, top)?;
    match chownat(place, "upper", Some(Uid::from_raw(top.st_uid)), Some(Gid::from_raw(top.st_gid)), AtFlags::empty()) {
        // An owner that isn't mapped here.
        Ok(()) | Err(Errno::INVAL | Errno::PERM) => {}
        Err(errno) => return Err(Error::os(step, "upper", errno)),
    }
    chmodat(place, "upper", Mode::from_raw_mode(top.st_mode & 0o7777), AtFlags::empty()).at(step, "upper")
}
