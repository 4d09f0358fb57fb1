//! Signal actions.

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Gives a signal its default action.
///
/// # Errors
/// `EINVAL` for signals whose action can't change.
pub fn set_default(signal: Signal) -> Result<(), Errno> {
    let action = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs no code of ours.
    unsafe { sigaction(signal, &action) }.map(drop)
}

/// Has a signal ignored.
///
/// # Errors
/// `EINVAL` for signals whose action can't change.
pub fn ignore(signal: Signal) -> Result<(), Errno> {
    let action = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: an ignored signal runs no code of ours.
    unsafe { sigaction(signal, &action) }.map(drop)
}
