//! Questions to namespace files (ioctl_ns(2)).

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

/// `NS_GET_NSTYPE`: `_IO(0xb7, 0x3)`.
const NS_GET_NSTYPE: libc::c_ulong = 0xb703;

/// The `CLONE_NEW*` flag of the namespace behind a descriptor.
///
/// # Errors
/// `ENOTTY`: the file is not a namespace.
pub fn kind(fd: impl AsFd) -> Result<u64, Errno> {
    // SAFETY: this request takes no argument and touches no memory.
    let result = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), NS_GET_NSTYPE) };
    Errno::result(result).map(|flag| flag as u64)
}
