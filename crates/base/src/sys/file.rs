//! Files on their way to the disk.

use std::os::fd::{AsFd, AsRawFd};

/// Tells the kernel to begin writing this part of a file to the disk, without waiting for it (sync_file_range(2)). A hint:
/// a kernel that refuses does no harm.
pub fn begin_writeback(fd: impl AsFd, offset: u64, length: u64) {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the call takes numbers only and touches no memory of this process.
    unsafe { libc::sync_file_range(fd, offset as libc::off64_t, length as libc::off64_t, libc::SYNC_FILE_RANGE_WRITE) };
}
