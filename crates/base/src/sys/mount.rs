//! Attributes of mounts: mount_setattr(2).

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

/// Which attributes to set and clear, and the propagation to give (`MS_PRIVATE`, …; 0 leaves it).
#[derive(Clone, Copy, Debug, Default)]
pub struct AttributeChange {
    /// `MOUNT_ATTR_*` to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub clear: u64,
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`, `MS_UNBINDABLE` or 0.
    pub propagation: u64,
}

/// Changes a mount, or with `recursive` its whole tree at once, all or nothing (Linux 5.12).
///
/// # Errors
/// Fails as mount_setattr(2) does.
pub fn set_attributes(fd: impl AsFd, path: &CStr, recursive: bool, change: AttributeChange) -> Result<(), Errno> {
    let attr = libc::mount_attr {
        attr_set: change.set,
        attr_clr: change.clear,
        propagation: change.propagation,
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: path and attr live across the call, and the size is that of attr.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_fd().as_raw_fd(),
            path.as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(result).map(drop)
}
