//! The host's own tree as a root, copy-on-write.
//!
//! Everything is held by this mount namespace: overlays write to a tmpfs that nothing outside can name, so that the
//! kernel throws it away with the container's last process.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, fstat, mkdirat, open};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use rustix::process::fchdir;

use super::host_split::{self, split_mode};
use super::mount_api::{Draft, attach, clone_tree, make_read_only, tmpfs};
use super::root_dir::{Missing, RootDir};
use crate::error::{At, Code, Error, Result};
use crate::plan::Plan;
use crate::plan::mount::Source;
use crate::plan::root::{HostRoot, Overlay, Root};

/// Writable layers of the overlays, in memory.
pub struct Scratch {
    tree: OwnedFd,
    layers: u32,
    in_user_namespace: bool,
}

impl Scratch {
    /// The writable layers of this plan, if it has an overlay.
    ///
    /// # Errors
    /// Those of [`Scratch::new`].
    pub fn for_plan(plan: &Plan) -> Result<Option<Scratch>> {
        let mounts_one = plan.mounts.iter().any(|mount| matches!(mount.source, Source::Overlay { .. }));
        if !mounts_one && !matches!(plan.root, Root::Host(_)) {
            return Ok(None);
        }
        Scratch::new(plan.user_namespace.is_private()).map(Some)
    }

    /// Makes the tmpfs and attaches it where it covers nothing that is still needed (overlayfs takes no detached layers);
    /// it goes with the host's tree when that is left. Not on `/`: a mount on top of the old root would be detached in
    /// its place.
    ///
    /// # Errors
    /// The kernel refuses a tmpfs.
    pub fn new(in_user_namespace: bool) -> Result<Scratch> {
        let tree = tmpfs(0o755, None, MountAttrFlags::empty())?;
        let place =
            open("/proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).at("open", "/proc")?;
        attach(&tree, &place, "/proc")?;
        Ok(Scratch { tree, layers: 0, in_user_namespace })
    }

    fn make(&self, name: &str) -> Result<()> {
        mkdirat(&self.tree, name, Mode::from(0o755)).at("make a writable layer", name)
    }

    /// An overlay over a directory of the host, detached.
    ///
    /// # Errors
    /// The file system can't be the lower layer of an overlay; the error says what to do.
    pub fn overlay(&mut self, lower: &str, attributes: MountAttrFlags) -> Result<OwnedFd> {
        let layer = self.layers;
        self.layers += 1;
        let (upper, work) = (format!("{layer}/upper"), format!("{layer}/work"));
        for name in [&layer.to_string(), &upper, &work] {
            self.make(name)?;
        }
        // The root of the upper layer is what the merged directory's mode and owner are taken from.
        copy_owner(&self.tree, &upper, lower)?;
        // The layers are named from the working directory, for the tmpfs has no path.
        fchdir(&self.tree).at("enter the writable layers", "")?;
        let draft =
            Draft::new("overlay")?.set("lowerdir", &escape(lower))?.set("upperdir", &upper)?.set("workdir", &work)?;
        let draft = if self.in_user_namespace { draft.flag("userxattr")? } else { draft };
        draft.mount(attributes).map_err(|error| {
            error
                .on(format!("overlay over {lower}"))
                .hint(format!("hide this file system from the container: --hide {lower}"))
        })
    }

    /// Attaches what becomes the root within the scratch file system: pivot_root(2) wants a mount point.
    fn hold(&self, tree: &OwnedFd) -> Result<()> {
        self.make("root")?;
        let place = rustix::fs::openat(&self.tree, "root", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .at("hold the root", "/")?;
        attach(tree, &place, "/")
    }

    /// An empty directory, detached and read-only.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn empty_directory(&self) -> Result<OwnedFd> {
        self.empty("nothing", |tree, name| mkdirat(tree, name, Mode::from(0o555)))
    }

    /// An empty file, detached and read-only.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn empty_file(&self) -> Result<OwnedFd> {
        self.empty("nothing.file", |tree, name| {
            rustix::fs::openat(tree, name, OFlags::CREATE | OFlags::CLOEXEC | OFlags::RDONLY, Mode::from(0o444))
                .map(drop)
        })
    }

    fn empty(&self, name: &str, make: impl Fn(BorrowedFd<'_>, &str) -> rustix::io::Result<()>) -> Result<OwnedFd> {
        match make(self.tree.as_fd(), name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(Error::os("make an empty place", name, errno)),
        }
        let mount = clone_tree(&self.tree, name, false).at("make an empty place", name)?;
        make_read_only(&mount, false, name)?;
        Ok(mount)
    }
}

/// Gives a layer's directory the mode and owner of the directory it stands for. An owner that isn't mapped can't be given:
/// then nobody gets more than others have on the host.
fn copy_owner(tree: &OwnedFd, name: &str, lower: &str) -> Result<()> {
    let step = "make a writable layer";
    let stat = rustix::fs::stat(lower).map_err(|errno| Error::os("look at", lower, errno))?;
    let (uid, gid) = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
    let mode = match rustix::fs::chownat(tree, name, Some(uid), Some(gid), rustix::fs::AtFlags::empty()) {
        Ok(()) => stat.st_mode & 0o7777,
        Err(Errno::INVAL | Errno::PERM) => split_mode(lower)?,
        Err(errno) => return Err(Error::os(step, lower, errno)),
    };
    rustix::fs::chmodat(tree, name, Mode::from_raw_mode(mode), rustix::fs::AtFlags::empty()).at(step, lower)
}

/// In a list of lower directories a colon separates and a backslash escapes (overlayfs documentation, "Mount options").
fn escape(path: &str) -> String {
    path.replace('\\', "\\\\").replace(':', "\\:")
}

/// The host's tree, put together, with what is still to go over it.
pub struct Assembled {
    /// The mount that becomes `/`.
    pub tree: OwnedFd,
    reveal: Option<OwnedFd>,
}

/// Puts the tree together: every file system of the host under an overlay.
///
/// # Errors
/// A file system can't be used; the error names it.
pub fn assemble(plan: &HostRoot, scratch: &mut Scratch) -> Result<Assembled> {
    // Whatever lies in fresh or hidden places is taken before they are covered.
    let split = |path: &str| plan.split.iter().any(|parent| parent == path);
    let reveal = match &plan.reveal {
        Some(path) if !split(path) => Some(scratch.overlay(path, MountAttrFlags::empty())?),
        _ => None,
    };
    let files =
        plan.files.iter().map(|path| Ok((path, clone_tree(CWD, path, false).at("open the mounted file", path)?)));
    let files = files.collect::<Result<Vec<_>>>()?;
    let (first, rest) = plan.overlays.split_first().ok_or_else(|| {
        Error::new(Code::Unsupported, "read the mount table", "the host's root is not in /proc/self/mountinfo")
    })?;
    let tree = if split("/") {
        tmpfs(split_mode("/")?, None, MountAttrFlags::empty())?
    } else {
        scratch.overlay(&first.path, attributes(first))?
    };
    scratch.hold(&tree)?;
    let root = RootDir::new(tree.as_fd().try_clone_to_owned().at("hold the root", "/")?);
    if split("/") {
        host_split::fill(plan, "/", &root, scratch)?;
    }
    for overlay in rest {
        if split(&overlay.path) {
            host_split::fill(plan, &overlay.path, &root, scratch)?;
            continue;
        }
        let mount = match scratch.overlay(&overlay.path, attributes(overlay)) {
            // A mount that we may not even enter, or that is gone by now, is as good as hidden: its mount point is empty.
            Err(error) if matches!(error.errno, Some(libc::EACCES | libc::ENOENT)) => continue,
            other => other?,
        };
        attach(&mount, &root.target(&overlay.path, Missing::Directory)?, &overlay.path)?;
    }
    for (path, file) in files {
        make_read_only(&file, false, path)?;
        attach(&file, &root.target(path, Missing::File)?, path)?;
    }
    Ok(Assembled { tree, reveal })
}

impl Assembled {
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
        for (path, must) in places.iter().filter(|(path, _)| !revealed(path)) {
            hide(plan, path, *must, scratch, root)?;
        }
        if let Some(path) = &plan.reveal {
            let target = root.target(path, Missing::Directory)?;
            match &self.reveal {
                Some(mount) => {
                    if plan.read_only {
                        make_read_only(mount, false, path)?;
                    }
                    attach(mount, &target, path)?;
                }
                None => {
                    let mount = tmpfs(split_mode(path)?, None, MountAttrFlags::empty())?;
                    attach(&mount, &target, path)?;
                    host_split::fill(plan, path, root, scratch)?;
                    if plan.read_only {
                        make_read_only(&mount, true, path)?;
                    }
                }
            }
        }
        // The working directory brought its own secrets back into view.
        for (path, must) in places.iter().filter(|(path, _)| revealed(path)) {
            hide(plan, path, *must, scratch, root)?;
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
    let directory = rustix::fs::FileType::from_raw_mode(fstat(&place).at("hide", path)?.st_mode).is_dir();
    let holds_cwd = plan.reveal.as_ref().is_some_and(|reveal| reveal.starts_with(&format!("{path}/")));
    let mount = match (directory, holds_cwd) {
        // The way to the working directory is made in it, so it can't be the shared, read-only one.
        (true, true) => tmpfs(0o755, None, MountAttrFlags::empty())?,
        (true, false) => scratch.empty_directory()?,
        (false, _) => scratch.empty_file()?,
    };
    attach(&mount, &place, path)
}

fn attributes(overlay: &Overlay) -> MountAttrFlags {
    // What the host forbids on a file system stays forbidden in its copy.
    let bits = [
        (overlay.attributes.read_only, MountAttrFlags::MOUNT_ATTR_RDONLY),
        (overlay.attributes.nosuid, MountAttrFlags::MOUNT_ATTR_NOSUID),
        (overlay.attributes.nodev, MountAttrFlags::MOUNT_ATTR_NODEV),
        (overlay.attributes.noexec, MountAttrFlags::MOUNT_ATTR_NOEXEC),
    ];
    bits.iter().filter(|(set, _)| *set).fold(MountAttrFlags::empty(), |all, (_, bit)| all | *bit)
}
