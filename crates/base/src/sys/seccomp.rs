//! A small system call filter (seccomp(2)) for what no namespace holds back.
//!
//! - Sockets of `AF_VSOCK` reach the hypervisor and its other guests from every network namespace (before Linux 7.0), and
//!   `AF_ALG` has been a way into the kernel (CVE-2026-31431): neither can be made.
//! - Keyrings (keyrings(7)) go with a process and its user, not with a namespace: the caller's session keyring, and without a
//!   user namespace all keys of its user, would be the container's.
//! - io_uring(7) makes sockets without socket(2), past any filter, and has been a way into the kernel often.
//! - `TIOCSTI` and `TIOCLINUX` type into a terminal in its owner's place (CVE-2017-5226).
//!
//! A 32-bit program on x86 can still make sockets by socketcall(2), whose arguments a filter can't see.

use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;

/// How many filters of ours this process has.
static INSTALLED: AtomicU32 = AtomicU32::new(0);

/// The families that can't be had.
const FAMILIES: [i32; 2] = [libc::AF_ALG, libc::AF_VSOCK];
/// The terminal requests that can't be made.
const REQUESTS: [u32; 2] = [libc::TIOCSTI as u32, 0x541c];

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const fn argument(index: u32) -> u32 {
    // Little-endian: the low half, which is all the kernel looks at of a family or a terminal request.
    16 + 8 * index
}

/// An architecture of this machine: its audit number and the numbers of system calls.
struct Arch {
    audit: u32,
    socket: u32,
    ioctl: u32,
    /// Of add_key(2), request_key(2), keyctl(2) and io_uring_setup(2).
    refused: [u32; 4],
}

#[cfg(target_arch = "x86_64")]
const ARCHES: [Arch; 2] = [
    Arch { audit: 0xc000_003e, socket: 41, ioctl: 16, refused: [248, 249, 250, 425] },
    Arch { audit: 0x4000_0003, socket: 359, ioctl: 54, refused: [286, 287, 288, 425] },
];
#[cfg(target_arch = "aarch64")]
const ARCHES: [Arch; 2] = [
    Arch { audit: 0xc000_00b7, socket: 198, ioctl: 29, refused: [217, 218, 219, 425] },
    Arch { audit: 0x4000_0028, socket: 281, ioctl: 54, refused: [309, 310, 311, 425] },
];

/// x32 calls carry this bit in their number; it is a third ABI that nobody uses and filters forget.
#[cfg(target_arch = "x86_64")]
const X32: Option<u32> = Some(0x4000_0000);
#[cfg(not(target_arch = "x86_64"))]
const X32: Option<u32> = None;

fn load(offset: u32) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, jt: 0, jf: 0, k: offset }
}

fn jump(test: u32, value: u32, yes: u8, no: u8) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_JMP | test | libc::BPF_K) as u16, jt: yes, jf: no, k: value }
}

fn end(action: u32) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: action }
}

/// The filter: per architecture a block that ends in allow or deny; an architecture that isn't known gets nothing.
fn program() -> Vec<libc::sock_filter> {
    let (allow, deny) = (libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
    let mut program = vec![];
    for arch in ARCHES {
        let mut block = vec![load(NUMBER)];
        if let Some(bit) = X32 {
            block.extend([jump(libc::BPF_JSET, bit, 0, 1), end(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32)]);
        }
        for (call, index, values) in [(arch.socket, 0, FAMILIES.map(|family| family as u32)), (arch.ioctl, 1, REQUESTS)]
        {
            // Not this call: over its load, its two tests and its two ends.
            block.extend([jump(libc::BPF_JEQ, call, 0, 5), load(argument(index))]);
            block.extend([
                jump(libc::BPF_JEQ, values[0], 1, 0),
                jump(libc::BPF_JEQ, values[1], 0, 1),
                end(deny),
                end(allow),
            ]);
        }
        for call in arch.refused {
            block.extend([jump(libc::BPF_JEQ, call, 0, 1), end(deny)]);
        }
        block.push(end(allow));
        let over = block.len() as u8;
        program.extend([load(ARCH), jump(libc::BPF_JEQ, arch.audit, 0, over)]);
        program.extend(block);
    }
    program.push(end(libc::SECCOMP_RET_KILL_PROCESS));
    program
}

/// Installs the filter for this process and everything it will execute. Needs `no_new_privs` or `CAP_SYS_ADMIN` in the
/// user namespace.
///
/// # Errors
/// `EACCES`: neither is there; `EINVAL`: the kernel has no filters.
pub fn install() -> Result<(), Errno> {
    let mut filter = program();
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program and its instructions live across the call, and the kernel copies them.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    Errno::result(result)?;
    INSTALLED.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Is this process under a filter that is none of its own making, or of its maker's in this program? By its
/// /proc/self/status (proc_pid_status(5)), which counts filters from Linux 5.9 on.
pub fn is_under_another() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    count(&status) > INSTALLED.load(Ordering::Relaxed)
}

fn count(status: &str) -> u32 {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    field("Seccomp_filters:").unwrap_or_else(|| u32::from(field("Seccomp:") == Some(2)))
}

#[cfg(test)]
mod tests {
    use nsrs_testing::alone;

    use super::*;
    use crate::sys::child::spawn;
    use crate::sys::wait::Status;

    #[test]
    fn a_filter_of_its_own_is_no_other() {
        alone!();
        let before = is_under_another();
        let checks: [fn() -> bool; 1] = [|| !is_under_another()];
        if !before {
            assert_eq!(under_filter(&checks), Status::Exited(0));
        }
        assert_eq!(is_under_another(), before);
        assert_eq!([count("Seccomp:\t0\n"), count("Seccomp:\t2\n")], [0, 1]);
        assert_eq!(count("Seccomp:\t2\nSeccomp_filters:\t3\n"), 3);
    }

    /// Runs checks under the filter in a child; the index of the first that fails is its exit code.
    fn under_filter(checks: &[fn() -> bool]) -> Status {
        let child = spawn(0, || {
            let ready = nix::sys::prctl::set_no_new_privs().is_ok() && install().is_ok();
            let failed = checks.iter().position(|check| !check());
            if ready { failed.map_or(0, |index| index as i32 + 1) } else { 99 }
        });
        child.unwrap().wait(None).unwrap()
    }

    fn socket(family: i32) -> Result<(), Errno> {
        // SAFETY: makes a descriptor in a child that ends right after.
        Errno::result(unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) }).map(drop)
    }

    fn terminal(request: u64) -> Result<(), Errno> {
        let byte = b'x';
        // SAFETY: the byte lives across the call.
        Errno::result(unsafe { libc::syscall(libc::SYS_ioctl, 0, request, &raw const byte) }).map(drop)
    }

    /// keyctl(KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING).
    fn session_keyring() -> Result<(), Errno> {
        // SAFETY: takes numbers only.
        Errno::result(unsafe { libc::syscall(libc::SYS_keyctl, 0, -3, 0) }).map(drop)
    }

    #[test]
    fn what_no_namespace_holds_back_is_refused() {
        alone!();
        let checks: [fn() -> bool; 8] = [
            || socket(libc::AF_VSOCK) == Err(Errno::EPERM),
            || socket(libc::AF_ALG) == Err(Errno::EPERM),
            || terminal(u64::from(REQUESTS[0])) == Err(Errno::EPERM),
            // Upper bits that the kernel ignores must not slip through.
            || terminal(u64::from(REQUESTS[0]) | 1 << 40) == Err(Errno::EPERM),
            || session_keyring() == Err(Errno::EPERM),
            // SAFETY: it would fail for the missing parameters.
            || Errno::result(unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, 0) }) == Err(Errno::EPERM),
            || socket(libc::AF_INET).is_ok() && socket(libc::AF_UNIX).is_ok(),
            || terminal(0x5413) != Err(Errno::EPERM),
        ];
        assert_eq!(under_filter(&checks), Status::Exited(0));
    }
}
