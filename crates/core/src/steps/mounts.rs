//! The caller's mounts, made inside the container's root.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Stat, fstat};
use rustix::mount::MountAttrFlags;

use super::mount_api::{FsContext, attach, restrict, tmpfs};
use super::root_dir::{Missing, RootDir, refuse_kernels};
use super::sources::Sources;
use crate::plan::mount::{Mount, MountSource};
use crate::plan::sandbox::Sandbox;
use nsrs_base::error::{At, Code, Error, Result};

/// Makes each mount in its order, targets resolved inside the root.
///
/// # Errors
/// A target leads outside, can't be made, or the kernel refuses the mount; the error names the option.
pub fn make(sandbox: &Sandbox, sources: &mut Sources, root: &RootDir) -> Result<()> {
    for (mount, source) in sandbox.mounts.iter().zip(&mut sources.mounts) {
        make_one(mount, source.take(), root).map_err(|error| match error.reason.is_empty() {
            true => error.because(format!("wanted by {}", mount.option)).about(mount.option.name),
            false => Error { reason: format!("{} (wanted by {})", error.reason, mount.option), ..error }
                .about(mount.option.name),
        })?;
    }
    Ok(())
}

fn make_one(mount: &Mount, source: Option<OwnedFd>, root: &RootDir) -> Result<()> {
    let (tree, missing) = match &mount.source {
        MountSource::Bind { .. } => {
            let tree = source
                .ok_or_else(|| Error::new(Code::SetupFailed, "mount", "the source was not opened").on(&mount.target))?;
            let directory =
                FileType::from_raw_mode(fstat(&tree).at("look at the mount source", &mount.target)?.st_mode).is_dir();
            (tree, if directory { Missing::Directory } else { Missing::File })
        }
        MountSource::Tmpfs { size, mode, uid, gid } => {
            let tree = match (uid, gid) {
                (0, 0) => tmpfs(*mode, *size, MountAttrFlags::empty())?,
                _ => {
                    let mut context = FsContext::new("tmpfs")?
                        .set("mode", &format!("{mode:o}"))?
                        .set("uid", &uid.to_string())?
                        .set("gid", &gid.to_string())?;
                    if let Some(size) = size {
                        context = context.set("size", &size.to_string())?;
                    }
                    context.mount(MountAttrFlags::empty())?
                }
            };
            (tree, Missing::Directory)
        }
        MountSource::Overlay { .. } => {
            let tree = source
                .ok_or_else(|| Error::new(Code::SetupFailed, "mount", "the overlay was not made").on(&mount.target))?;
            (tree, Missing::Directory)
        }
    };
    let target = root.target(&mount.target, missing)?;
    refuse_kernels(&target, &mount.target)?;
    restrict(&tree, mount.attributes, mount.propagation, &mount.target)?;
    same_kind(&tree, &target, &mount.target)?;
    attach(&tree, &target, &mount.target)
}

/// A directory is mounted onto a directory, anything else onto what is none; the kernel's word for that tells nothing.
fn same_kind(source: impl AsFd, target: impl AsFd, path: &str) -> Result<()> {
    let is_directory = |stat: Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let source = is_directory(fstat(source).at("look at the mount's source", path)?);
    let target = is_directory(fstat(target).at("look at the mount target", path)?);
    let why = match (source, target) {
        (true, false) => "the source is a directory, and the target is none",
        (false, true) => "the target is a directory, and the source is none",
        _ => return Ok(()),
    };
    Err(Error::new(Code::InvalidArgument, "mount onto", why).on(path).hint("name a target of the source's kind"))
}
