//! The few moves of the mount API that the steps are made of: make a detached mount, restrict it, attach it by
//! descriptor (fsopen(2), open_tree(2), mount_setattr(2), move_mount(2); Linux 5.12).

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use crate::plan::mount::Propagation;
use nsrs_base::error::{At, Error, Result};
use nsrs_base::host::tree::Attributes;
use nsrs_base::sys::mount::{AttributeChange, set_attributes};

/// `nosuid`, `nodev`, `noexec`: for what holds neither programs nor devices.
pub const RESTRICTED: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV).union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// A file system being configured: the file system context of fsopen(2).
pub struct FsContext {
    fd: OwnedFd,
    kind: &'static str,
}

impl FsContext {
    /// Starts a file system of this kind.
    ///
    /// # Errors
    /// `ENODEV`: the kernel has none; `EPERM`: no right to it.
    pub fn new(kind: &'static str) -> Result<FsContext> {
        let fd = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|errno| {
            let error = Error::os("make a file system of type", kind, errno);
            match errno {
                Errno::NODEV => {
                    error.hint(format!("the kernel has no {kind}: load its module (modprobe {kind}) or rebuild it in"))
                }
                Errno::NOSYS => error.hint("nsrs needs Linux 5.12 or newer"),
                _ => error,
            }
        })?;
        // What mount(8) shows in the first column.
        FsContext { fd, kind }.set("source", kind)
    }

    /// Sets an option of the file system to a value.
    ///
    /// # Errors
    /// The file system knows no such option or value.
    pub fn set(self, key: &str, value: &str) -> Result<FsContext> {
        fsconfig_set_string(&self.fd, key, value).map_err(|errno| self.failed(&format!("{key}={value}"), errno))?;
        Ok(self)
    }

    /// Sets an option without a value.
    ///
    /// # Errors
    /// The file system knows no such option.
    pub fn flag(self, key: &str) -> Result<FsContext> {
        fsconfig_set_flag(&self.fd, key).map_err(|errno| self.failed(key, errno))?;
        Ok(self)
    }

    /// Makes the file system and a detached mount of it.
    ///
    /// # Errors
    /// The kernel refuses; its log text is in the error.
    pub fn mount(self, attributes: MountAttrFlags) -> Result<OwnedFd> {
        fsconfig_create(&self.fd).map_err(|errno| self.failed("", errno))?;
        fsmount(&self.fd, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(|errno| self.failed("", errno))
    }

    /// An error with what the kernel wrote into the log of the context: the only place where it says why.
    fn failed(&self, option: &str, errno: Errno) -> Error {
        let mut text = [0; 512];
        let log = rustix::io::read(&self.fd, &mut text).unwrap_or(0);
        let log = String::from_utf8_lossy(&text[..log]);
        let reason = log.trim().split_once(' ').map_or("", |(_, reason)| reason);
        let subject = if option.is_empty() { self.kind.to_owned() } else { format!("{} with {option}", self.kind) };
        Error::os("mount a file system of type", subject, errno).because(reason)
    }
}

/// Makes a detached tmpfs with this mode and size in bytes; without a size the kernel takes half of the memory.
///
/// # Errors
/// Fails as [`FsContext`] does.
pub fn tmpfs(mode: u32, size: Option<u64>, attributes: MountAttrFlags) -> Result<OwnedFd> {
    let mut context = FsContext::new("tmpfs")?.set("mode", &format!("{mode:o}"))?;
    if let Some(size) = size {
        context = context.set("size", &size.to_string())?;
    }
    context.mount(attributes)
}

/// A detached copy of the mount at a path, with those below it.
///
/// # Errors
/// Fails as open_tree(2) does.
pub fn clone_tree(directory: impl AsFd, path: &str, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(directory, path, if recursive { flags | OpenTreeFlags::AT_RECURSIVE } else { flags })
}

/// Puts a detached mount onto what a descriptor is open on; nothing is looked up by name.
///
/// # Errors
/// Fails as move_mount(2) does.
pub fn attach(mount: impl AsFd, target: impl AsFd, subject: &str) -> Result<()> {
    move_mount(mount, "", target, "", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH)
        .at("mount onto", subject)
}

/// Puts a detached mount onto a name beneath a mount of ours, which holds no links of others.
///
/// # Errors
/// Fails as move_mount(2) does; `ENOENT`: there is no such name.
pub fn attach_at(mount: impl AsFd, directory: impl AsFd, name: &str) -> rustix::io::Result<()> {
    move_mount(mount, "", directory, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// Restricts a detached tree of mounts, all of it or nothing.
///
/// # Errors
/// `EPERM`: a restriction that another user namespace has locked would be lifted.
pub fn restrict(mount: impl AsFd, attributes: Attributes, propagation: Propagation, subject: &str) -> Result<()> {
    let bits = [
        (attributes.read_only, libc::MOUNT_ATTR_RDONLY),
        (attributes.nosuid, libc::MOUNT_ATTR_NOSUID),
        (attributes.nodev, libc::MOUNT_ATTR_NODEV),
        (attributes.noexec, libc::MOUNT_ATTR_NOEXEC),
        (attributes.nosymfollow, libc::MOUNT_ATTR_NOSYMFOLLOW),
    ];
    let set = bits.iter().filter(|(wanted, _)| *wanted).fold(0, |set, (_, bit)| set | bit);
    let propagation = match propagation {
        Propagation::Private => libc::MS_PRIVATE,
        Propagation::Slave => libc::MS_SLAVE,
        Propagation::Shared => libc::MS_SHARED,
        Propagation::Unbindable => libc::MS_UNBINDABLE,
    };
    set_attributes(mount, c"", true, AttributeChange { set, clear: 0, propagation }).at("restrict the mount", subject)
}

/// Makes a tree of mounts read-only.
///
/// # Errors
/// Fails as mount_setattr(2) does.
pub fn make_read_only(mount: impl AsFd, recursive: bool, subject: &str) -> Result<()> {
    let change = AttributeChange { set: libc::MOUNT_ATTR_RDONLY, ..AttributeChange::default() };
    set_attributes(mount, c"", recursive, change).at("make read-only", subject)
}
