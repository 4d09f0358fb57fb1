//! Signal actions and masks (sigaction(2), sigprocmask(2)).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::process::Pid;

/// Gives a signal its default action.
///
/// # Errors
/// `EINVAL` for signals whose action can't change.
pub fn set_default(signal: Signal) -> Result<(), Errno> {
    let action = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs no code of ours.
    unsafe { sigaction(signal, &action) }.map(drop)
}

/// Ignores a signal, in this process and what it executes.
///
/// # Errors
/// `EINVAL` for signals whose action can't change.
pub fn ignore(signal: Signal) -> Result<(), Errno> {
    let action = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: an ignored signal runs no code of ours.
    unsafe { sigaction(signal, &action) }.map(drop)
}

/// Ignores the signals of a mask, the lowest bit for signal 1; but not `SIGCHLD`, without which no program can be waited
/// for, nor `SIGPIPE`, of which we make an error.
pub fn ignore_those_of(mask: u64) {
    let ours = [Signal::SIGCHLD, Signal::SIGPIPE];
    for signal in Signal::iterator().filter(|signal| mask & 1 << (*signal as i32 - 1) != 0 && !ours.contains(signal)) {
        // Those whose action can't change never were ignored.
        let _ = ignore(signal);
    }
}

/// What ends or stops a process from a terminal.
const ENDS: [Signal; 5] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGTSTP];

/// Signals that end or stop this process wait until this goes, and do then what they always do; it is readable when one
/// waits. Only for a process of one thread: another would take them.
pub struct Held {
    before: SigSet,
    waiting: SignalFd,
}

impl Held {
    /// Blocks the signals until the value is dropped.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn back() -> Result<Held, Errno> {
        let set: SigSet = ENDS.into_iter().collect();
        let waiting = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC)?;
        let before = set.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        Ok(Held { before, waiting })
    }
}

impl AsFd for Held {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.waiting.as_fd()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.before.thread_set_mask();
    }
}

/// Is a signal ignored by this process?
#[must_use]
pub fn is_ignored(signal: Signal) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: the action lives across the call, which only writes it.
    let asked = unsafe { libc::sigaction(signal as i32, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: all zeroes are a value, and the kernel may have written over it.
    asked == 0 && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

/// The value that comes with a signal for a whole process group (sigqueue(3)).
const FOR_GROUP: usize = 1;

/// The kernel's siginfo for a queued signal, on 64-bit machines.
#[repr(C)]
struct Queued {
    number: i32,
    errno: i32,
    code: i32,
    padding: i32,
    pid: i32,
    uid: u32,
    value: usize,
    rest: [u64; 12],
}

/// Sends an init a signal that it is to hand on to the command's process group.
pub fn send_for_group(pidfd: impl AsFd, signal: i32) {
    let info = Queued {
        number: signal,
        errno: 0,
        code: libc::SI_QUEUE,
        padding: 0,
        pid: std::process::id() as i32,
        uid: rustix::process::getuid().as_raw(),
        value: FOR_GROUP,
        rest: [0; 12],
    };
    let fd = pidfd.as_fd().as_raw_fd();
    // SAFETY: the kernel reads 128 bytes, the size of this value.
    unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, &raw const info, 0) };
}

/// Waits for one of these signals, and tells whether it is for a process group.
///
/// # Errors
/// `EINTR`: another signal came.
pub fn wait(set: &SigSet) -> Result<(Signal, bool), Errno> {
    let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: both pointers live across the call.
    let number = Errno::result(unsafe { libc::sigwaitinfo(set.as_ref(), info.as_mut_ptr()) })?;
    // SAFETY: all zeroes are a value, and the kernel has written over it.
    let info = unsafe { info.assume_init() };
    // SAFETY: a queued signal comes with a value.
    let value = || unsafe { info.si_value() }.sival_ptr as usize;
    Ok((Signal::try_from(number)?, info.si_code == libc::SI_QUEUE && value() == FOR_GROUP))
}

/// Sends a signal to every process of a group. The number must be ours: that of a process which was not waited for.
pub fn send_to_group(leader: Pid, signal: i32) {
    // SAFETY: touches no memory.
    unsafe { libc::kill(-leader.as_raw_nonzero().get(), signal) };
}
