//! An image as a root, copy-on-write: its layers under an overlay.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, mkdirat, openat};
use rustix::mount::{MountAttrFlags, UnmountFlags, unmount};
use rustix::system::uname;

use super::mount_api::{attach, clone_tree};
use super::root_dir::{Missing, RootDir};
use super::scratch::{Over, Scratch};
use crate::plan::changes::Changes;
use crate::plan::image::{ImageRoot, Upper};
use nsrs_base::error::{At, Code, Error, Result};
use nsrs_base::options::{DIFF, ROOTFS_TMPFS, UPPER};
use nsrs_base::tree::copy::{Copier, How};
use nsrs_base::tree::merge::walk;

/// Where a copy lies among the writable layers.
const COPY: &str = "copy";

/// The image's tree, put together, with what is still to go over it.
pub struct AssembledImage {
    /// The mount that becomes `/`.
    pub tree: OwnedFd,
    /// The volumes, which stay writable where the rest is not.
    volumes: Vec<(String, OwnedFd)>,
}

/// Puts the tree together. Where the kernel refuses the overlay and there is a directory on disk for it, the image is
/// copied there; but not where `changes` are wanted, for nobody could tell them from the copy.
///
/// # Errors
/// The kernel refuses; the disk is full; a directory of the image can't be made.
pub fn assemble(
    image: &ImageRoot,
    workdir: &str,
    scratch: &mut Scratch,
    changes: Option<&Changes>,
    disk: Option<&OwnedFd>,
    notes: &mut Vec<String>,
) -> Result<AssembledImage> {
    notes.extend(image.ignored.iter().cloned());
    let paths: Vec<String> = image.layers.iter().rev().map(|layer| format!("{}/{layer}", image.store)).collect();
    let lowers: Vec<&str> = paths.iter().map(String::as_str).collect();
    let over = Over {
        path: "/",
        lowers: &lowers,
        attributes: MountAttrFlags::empty(),
        user_xattrs: image.user_xattrs,
        is_image: true,
        volatile: image.upper == Upper::Disk && changes.is_none_or(|changes| changes.upper.is_none()),
    };
    let stacked = match image.xattr_whiteouts && !knows_xattr_whiteouts(uname().release().to_bytes()) {
        true => Err(unknown_whiteouts(image)),
        false => scratch.stack(&over),
    };
    let tree = match (stacked, disk) {
        (Ok(tree), _) => {
            scratch.hold(&tree)?;
            tree
        }
        (Err(error), Some(disk)) if is_refusal(&error) => {
            let copied = copy(image, &paths, disk)?;
            notes.push(format!("the image was copied, for the kernel can't overlay it where the store is: {error}"));
            copied
        }
        (Err(error), _) => return Err(with_advice(error, image, changes)),
    };
    let root = RootDir::new(tree.try_clone().at("hold the root", "/")?);
    make_directory(&root, workdir)?;
    let mut volumes = Vec::new();
    for path in &image.volumes {
        let target = root.target(path, Missing::Directory)?;
        if image.read_only {
            volumes.push((path.clone(), clone_tree(target, "", false).at("keep the volume writable", path)?));
        }
    }
    Ok(AssembledImage { tree, volumes })
}

impl AssembledImage {
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

/// Is it the overlay as such that the kernel won't have? On an overlay, as an outer container's root is one, or on a
/// network's file system nothing can be overlaid; an old kernel has no overlays for ordinary users.
fn is_refusal(error: &Error) -> bool {
    matches!(error.errno, Some(libc::EINVAL | libc::EPERM | libc::EOPNOTSUPP | libc::ENODEV))
}

/// Who wants changes gets no copy, but there are places where the kernel takes them.
fn with_advice(error: Error, image: &ImageRoot, changes: Option<&Changes>) -> Error {
    let Some(changes) = changes.filter(|_| is_refusal(&error) && error.hint.is_empty()) else { return error };
    match (&changes.upper, image.upper) {
        (Some(_), _) => error.hint("keep the changes in a directory of another file system: an overlay takes none"),
        (None, Upper::Disk) => error
            .hint(format!("{ROOTFS_TMPFS} keeps the changes in memory, which works where the store doesn't take them")),
        (None, Upper::Memory) => error,
    }
}

/// Does a kernel of this release know whiteouts that are files with an attribute? Linux 6.7 and later; others would show them
/// as empty files.
fn knows_xattr_whiteouts(release: &[u8]) -> bool {
    let text = String::from_utf8_lossy(release);
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 7)
}

fn unknown_whiteouts(image: &ImageRoot) -> Error {
    let why = "its whiteouts are files with an attribute, which Linux knows since 6.7";
    Error { errno: Some(libc::EOPNOTSUPP), ..Error::new(Code::SetupFailed, "overlay the image", why) }
        .on(&image.name)
        .hint(format!("leave out what needs an overlay ({ROOTFS_TMPFS}, {DIFF}, {UPPER}), or use a newer kernel"))
}

/// A copy of the image's tree on disk, as a mount in its own place.
fn copy(image: &ImageRoot, paths: &[String], disk: &OwnedFd) -> Result<OwnedFd> {
    let step = "copy the image";
    // Descriptors are named by /proc, which the writable layers cover and are not needed for.
    unmount("/proc", UnmountFlags::DETACH).at(step, &image.name)?;
    mkdirat(disk, COPY, Mode::from(0o755)).at(step, &image.name)?;
    let into = format!("/proc/self/fd/{}/{COPY}", disk.as_raw_fd());
    let layers: Vec<&Path> = paths.iter().rev().map(Path::new).collect();
    walk(&layers, false, &mut Copier::new(Path::new(&into), How::Copy)?)?;
    let tree = clone_tree(disk, COPY, false).at(step, &image.name)?;
    attach(&tree, openat(disk, COPY, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).at(step, &image.name)?, COPY)?;
    Ok(tree)
}

/// Makes a directory of the image, as docker does with the working directory, unless it is there.
///
/// # Errors
/// It can't be made.
pub fn make_directory(root: &RootDir, path: &str) -> Result<()> {
    root.target(path, Missing::Directory).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whiteouts_in_attributes_are_known_since_linux_6_7() {
        for release in ["6.7.0", "6.12.3-amd64", "10.0", "6.7-rc1"] {
            assert!(knows_xattr_whiteouts(release.as_bytes()), "{release}");
        }
        for release in ["6.6.99", "5.15.0-1-generic", "4.19", ""] {
            assert!(!knows_xattr_whiteouts(release.as_bytes()), "{release}");
        }
    }
}
