//! Memory that several processes write to (memfd_create(2)), for a reader that none of them can hold up.
//!
//! Whoever writes to a pipe holds its lock while the kernel fetches what is written, and that can take as long as the writer
//! likes (userfaultfd(2), a file of a FUSE file system); to read from the pipe or to close it takes the same lock. A read of
//! shared memory waits for no writer.

use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Nobody can change its size: a write never fails for want of room, nor a read for want of bytes.
const SEALS: SealFlag = SealFlag::F_SEAL_SEAL.union(SealFlag::F_SEAL_SHRINK).union(SealFlag::F_SEAL_GROW);

/// Memory of a fixed size, full of zeroes.
///
/// # Errors
/// Fails as memfd_create(2) does. `EFBIG`, after a `SIGXFSZ`: it is more than this process's limit (`RLIMIT_FSIZE`).
pub fn create(name: &str, size: NonZeroUsize) -> Result<OwnedFd, Errno> {
    let memory = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&memory, size.get() as u64)?;
    fcntl(&memory, FcntlArg::F_ADD_SEALS(SEALS)).map_err(|errno| Errno::from_raw_os_error(errno as i32))?;
    Ok(memory)
}

/// Writes bytes at an offset of memory of this size that [`create`] made. Not by write(2): no limit of this process
/// (`RLIMIT_FSIZE`) forbids it.
///
/// # Errors
/// `ERANGE`: they don't fit. Otherwise fails as mmap(2) does.
pub fn write(memory: impl AsFd, size: NonZeroUsize, offset: usize, bytes: &[u8]) -> Result<(), Errno> {
    if offset.checked_add(bytes.len()).is_none_or(|end| end > size.get()) {
        return Err(Errno::RANGE);
    }
    let size = size.get();
    // SAFETY: a mapping at a place of the kernel's choice touches nothing that is there.
    let start =
        unsafe { mmap(std::ptr::null_mut(), size, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, memory, 0)? };
    // SAFETY: the range lies in the mapping, by the test above, and no reference leads there. The memory has all of its
    // pages: its size is sealed.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), start.cast::<u8>().wrapping_add(offset), bytes.len()) };
    // SAFETY: the mapping made above, to which nothing leads any more.
    unsafe { munmap(start, size) }
}

#[cfg(test)]
mod tests {
    use rustix::io::pread;

    use super::*;

    const SIZE: NonZeroUsize = NonZeroUsize::new(8192).unwrap();

    #[test]
    fn what_is_written_is_read_and_nothing_beyond_the_size_is_written() {
        let memory = create("test", SIZE).unwrap();
        write(&memory, SIZE, 4094, b"abcd").unwrap();
        write(&memory, SIZE, 8190, b"yz").unwrap();
        assert_eq!(write(&memory, SIZE, 8191, b"yz"), Err(Errno::RANGE));
        assert_eq!(write(&memory, SIZE, usize::MAX, b"yz"), Err(Errno::RANGE));
        let mut bytes = [1; 6];
        assert_eq!(pread(&memory, &mut bytes, 4093), Ok(6));
        assert_eq!(&bytes, b"\0abcd\0");
        assert_eq!(pread(&memory, &mut bytes, 8190), Ok(2));
        assert_eq!(&bytes[..2], b"yz");
    }

    #[test]
    fn its_size_stays() {
        let memory = create("test", SIZE).unwrap();
        for size in [0, 4096, 8193] {
            assert_eq!(ftruncate(&memory, size), Err(Errno::PERM));
        }
    }
}
