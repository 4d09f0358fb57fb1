//! Signals for a PID 1.
//!
//! The kernel throws away what the first process of a PID namespace has no handler for (pid_namespaces(7)): `sleep` as
//! PID 1 can't be ended by Ctrl-C. Outside of a container the default action would end or stop it, so that is what we do
//! in the kernel's place.

use nix::sys::signal::Signal;

/// What a signal does to a process without a handler (signal(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DefaultAction {
    End,
    Stop,
    Nothing,
}

fn default_action(signal: Signal) -> DefaultAction {
    match signal {
        Signal::SIGCHLD | Signal::SIGURG | Signal::SIGWINCH | Signal::SIGCONT => DefaultAction::Nothing,
        Signal::SIGSTOP | Signal::SIGTSTP | Signal::SIGTTIN | Signal::SIGTTOU => DefaultAction::Stop,
        _ => DefaultAction::End,
    }
}

/// What to send so that a signal has its effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Send the signal itself.
    AsIs,
    /// Send `SIGKILL` instead: the default action of the signal ends a process.
    Kill,
    /// Send `SIGSTOP` instead: the default action of the signal stops a process.
    Stop,
}

/// Decides by the signal masks in the text of /proc/PID/status (proc_pid_status(5)). What a process blocks that is still
/// being set up, before it `runs` the command, it will not take up later: the block is ours and ends with the set-up.
#[must_use]
pub fn delivery(signal: i32, status: &str, runs: bool) -> Delivery {
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
    };
    let bit = 1_u64 << (signal - 1).clamp(0, 63);
    // Handled, ignored on purpose, or blocked to be taken up later: the kernel does all that for a PID 1 too.
    let blocked = if runs { mask("SigBlk:") } else { 0 };
    if (mask("SigCgt:") | mask("SigIgn:") | blocked) & bit != 0 {
        return Delivery::AsIs;
    }
    match Signal::try_from(signal).map(default_action) {
        Ok(DefaultAction::Stop) => Delivery::Stop,
        Ok(DefaultAction::Nothing) => Delivery::AsIs,
        // Real-time signals end a process too.
        Ok(DefaultAction::End) | Err(_) => Delivery::Kill,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tsh\nSigBlk:\t0000000000010000\nSigIgn:\t0000000000001000\nSigCgt:\t0000000000000002\n";

    #[test]
    fn handled_ignored_and_blocked_signals_are_delivered() {
        for signal in [Signal::SIGINT, Signal::SIGPIPE, Signal::SIGCHLD] {
            assert_eq!(delivery(signal as i32, STATUS, true), Delivery::AsIs, "{signal}");
        }
    }

    #[test]
    fn the_default_action_is_taken_where_the_kernel_would_not() {
        assert_eq!(delivery(Signal::SIGTERM as i32, STATUS, true), Delivery::Kill);
        assert_eq!(delivery(Signal::SIGTSTP as i32, STATUS, true), Delivery::Stop);
        assert_eq!(delivery(Signal::SIGWINCH as i32, STATUS, true), Delivery::AsIs);
        assert_eq!(delivery(40, STATUS, true), Delivery::Kill);
    }

    #[test]
    fn what_is_blocked_during_the_set_up_is_not_put_off() {
        assert_eq!(delivery(Signal::SIGCHLD as i32, STATUS, false), Delivery::AsIs);
        assert_eq!(delivery(Signal::SIGINT as i32, "SigBlk:\t0000000000000002\n", true), Delivery::AsIs);
        assert_eq!(delivery(Signal::SIGINT as i32, "SigBlk:\t0000000000000002\n", false), Delivery::Kill);
    }
}
