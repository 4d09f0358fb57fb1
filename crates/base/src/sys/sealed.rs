//! Our own executable as sealed memory (memfd_create(2)).
//!
//! A program that runs in a container can reach the file of another process of it through /proc/PID/exe, and write to it
//! once it is idle (CVE-2019-5736). So the executable runs from memory that the kernel lets nobody change, not even root.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create, open, sendfile};

const SEALS: SealFlag =
    SealFlag::F_SEAL_SEAL.union(SealFlag::F_SEAL_SHRINK).union(SealFlag::F_SEAL_GROW).union(SealFlag::F_SEAL_WRITE);

/// The executable bits can't be taken away either (`F_SEAL_EXEC`): every init of a supervisor shares this file. Since
/// Linux 6.3.
const SEAL_EXEC: SealFlag = SealFlag::from_bits_retain(0x20);

/// The running executable, if it is sealed already.
///
/// # Errors
/// /proc is not mounted.
pub fn running() -> Result<Option<OwnedFd>, Errno> {
    let exe = open("/proc/self/exe", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| Errno::from_raw(errno.raw_os_error()))?;
    let seals = fcntl(&exe, FcntlArg::F_GET_SEALS).unwrap_or(0);
    Ok((seals & SEALS.bits() == SEALS.bits()).then_some(exe))
}

/// A sealed copy of the running executable.
///
/// # Errors
/// Fails as [`copy_of`] does.
pub fn copy() -> Result<OwnedFd, Errno> {
    copy_of(Path::new("/proc/self/exe"))
}

/// A sealed copy of an executable.
///
/// # Errors
/// It can't be read; `EACCES` where `vm.memfd_noexec` forbids executable memory; no memory is left.
pub fn copy_of(executable: &Path) -> Result<OwnedFd, Errno> {
    let errno = |errno: rustix::io::Errno| Errno::from_raw(errno.raw_os_error());
    let exe = File::open(executable).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
    let size = exe.metadata().map_err(|_| Errno::EIO)?.len();
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Before Linux 6.3 the kernel knows no EXEC, and memory is executable as it is.
    let memory = match memfd_create("nsrs-runtime", flags | MemfdFlags::EXEC) {
        Err(rustix::io::Errno::INVAL) => memfd_create("nsrs-runtime", flags),
        other => other,
    }
    .map_err(errno)?;
    let mut left = size as usize;
    while left > 0 {
        match sendfile(&memory, &exe, None, left).map_err(errno)? {
            0 => return Err(Errno::EIO),
            count => left -= count,
        }
    }
    match seal(&memory, SEALS | SEAL_EXEC) {
        Err(Errno::EINVAL) => seal(&memory, SEALS)?,
        other => other?,
    }
    Ok(memory)
}

/// The kernel refuses while anybody refers to the memory's pages, as its own reclaim does for moments on a busy machine;
/// it has waited for 150 ms each time.
fn seal(memory: &OwnedFd, seals: SealFlag) -> Result<(), Errno> {
    let once = || fcntl(memory, FcntlArg::F_ADD_SEALS(seals)).map(drop);
    (0..10).map(|_| once()).find(|result| *result != Err(Errno::EBUSY)).unwrap_or(Err(Errno::EBUSY))
}
