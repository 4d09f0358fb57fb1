//! A directory of the host with mounts below it, put together anew for a user namespace.
//!
//! The kernel locks mounts that a user namespace got from its parent and overlays no directory above one: the overlay
//! would show what they cover. So the directory is made anew and each of its entries overlaid alone. What is lost is
//! little: entries of such a directory can't be removed or renamed, and a plain file right in it is read-only.

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat, readlinkat, symlinkat};
use rustix::io::Errno;

use super::host_root::attributes_at;
use super::mount_api::{attach, clone_tree, make_read_only};
use super::root_dir::{Missing, RootDir};
use super::scratch::Scratch;
use crate::plan::root::HostRoot;
use nsrs_base::error::{At, Result};

/// The mode of a directory that is made anew, whose owner is whoever makes it: where that is not the owner of the host's,
/// nobody gets more than others have there.
///
/// # Errors
/// The directory is gone.
pub fn split_mode(path: &str) -> Result<u32> {
    let stat = rustix::fs::stat(path).at("look at", path)?;
    let mode = stat.st_mode;
    let others = mode & 0o7;
    let owner = if stat.st_uid == rustix::process::geteuid().as_raw() { mode >> 6 & 0o7 } else { others };
    Ok(owner << 6 | others << 3 | others | mode & 0o1000)
}

/// Fills a directory of the new root with what the host's holds.
///
/// Where it isn't new, an earlier container has had it: what that removed is not brought back.
///
/// # Errors
/// An entry can't be overlaid.
pub fn fill(plan: &HostRoot, path: &str, root: &RootDir, scratch: &mut Scratch, is_new: bool) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(path) else {
        // A directory that this user can't read stays empty; it can't be read outside either.
        return Ok(());
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let Ok(kind) = entry.file_type() else { continue };
        let whole = if path == "/" { format!("/{name}") } else { format!("{path}/{name}") };
        let parent = root.open(path, OFlags::PATH | OFlags::DIRECTORY).at("open the new", path)?;
        let step = "copy the entry";
        if kind.is_symlink() && is_new {
            let target = readlinkat(CWD, whole.as_str(), Vec::new()).at(step, &whole)?;
            symlinkat(target, &parent, name).at(step, &whole)?;
        } else if kind.is_dir() {
            let make = |mode| match mkdirat(&parent, name, Mode::from_raw_mode(mode)) {
                Err(Errno::EXIST) if !is_new => Ok(()),
                other => other.at(step, &whole),
            };
            split_directory(plan, &whole, root, scratch, is_new, make)?;
        } else if kind.is_file() && !plan.files.contains(&whole) {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::RDONLY;
            match openat(&parent, name, flags, Mode::from(0o600)) {
                Err(Errno::EXIST) if !is_new => {}
                other => drop(other.at(step, &whole)?),
            }
            let file = clone_tree(CWD, whole.as_str(), false).at(step, &whole)?;
            make_read_only(&file, false, &whole)?;
            attach(&file, root.target(&whole, Missing::Refuse)?, &whole)?;
        }
    }
    Ok(())
}

fn split_directory(
    plan: &HostRoot,
    path: &str,
    root: &RootDir,
    scratch: &mut Scratch,
    is_new: bool,
    make: impl Fn(u32) -> Result<()>,
) -> Result<()> {
    let is = |paths: &[String]| paths.iter().any(|other| other == path);
    let own_file_system = plan.overlays.iter().any(|overlay| overlay.path == path);
    make(split_mode(path)?)?;
    if own_file_system || is(&plan.fresh) || is(&plan.mount_points) {
        // Filled when its own turn comes, or left empty where it is a window into the kernel.
        return Ok(());
    }
    if is(&plan.split) {
        return fill(plan, path, root, scratch, is_new);
    }
    let overlay = scratch.overlay(path, path, attributes_at(path)?)?;
    attach(&overlay, root.target(path, Missing::Refuse)?, path)
}
