//! A process of a container, the first one or one that entered, as its supervisor sees it.

use std::time::{Duration, Instant};

use nsrs_base::sys::process::send_signal;
use nsrs_base::sys::signal::{send_for_group, send_to_group};
use nsrs_base::sys::wait::{Status, Usage};
use rustix::process::{Pid, getpgid};

use super::child::Child;
use super::phase::{Cause, InitRole, Phase};
use super::signals::{Delivery, delivery};
use crate::supervise::protocol::{Exit, ProcessAddress};

/// Who requested a process, and what is reported to them.
#[derive(Clone, Copy, Debug)]
pub struct RequestOrigin {
    /// The caller's numbers for the container and the process.
    pub address: ProcessAddress,
    /// Report when the command starts; otherwise its report comes with its end.
    pub announce: bool,
    /// The time of the request, from which the time limit and the duration count.
    pub since: Instant,
    /// The process is killed after this many milliseconds.
    pub timeout_ms: Option<u64>,
}

/// How a process relates to its PID namespace: what the kernel does with its signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalRole {
    /// The command itself is PID 1.
    PidOne,
    /// An init is, or leads, and the command is its child.
    UnderInit {
        /// The init is PID 1.
        is_pid_one: bool,
    },
    /// A process that entered a PID namespace of the container's own.
    Plain,
}

/// A process of a container, from its request to its end.
#[derive(Debug)]
pub struct Member {
    /// Who asked for it; nobody yet, of one that was prewarmed.
    pub request: Option<RequestOrigin>,
    /// Its state, from the request to the end.
    pub phase: Phase,
    /// The intermediate process that made it, until it is reaped.
    pub intermediate: Option<Child>,
    /// What signals mean to it.
    pub signals: SignalRole,
    /// The signal in whose place `SIGKILL` was sent.
    killed_for: Option<i32>,
}

impl Member {
    /// A process in its first phase.
    #[must_use]
    pub fn new(request: Option<RequestOrigin>, phase: Phase, signals: SignalRole) -> Member {
        Member { request, phase, intermediate: None, signals, killed_for: None }
    }

    /// When its time limit is reached.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let RequestOrigin { since, timeout_ms, .. } = self.request?;
        match &self.phase {
            // Nothing more can be done about one that is being killed for another cause.
            Phase::Ending { cause: Cause::TimeLimit | Cause::Failed(_), .. } | Phase::Ended(_) => None,
            _ => since.checked_add(Duration::from_millis(timeout_ms?)),
        }
    }

    /// Whether it and its intermediate process are reaped.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.phase.has_ended() && self.intermediate.is_none()
    }

    /// Marks it as ending for this cause, and kills it.
    pub fn end(&mut self, cause: Cause) {
        self.phase.end(cause);
        self.kill();
    }

    /// Kills what there is of it; the kernel takes the rest of its PID namespace along, if it is the first of one.
    pub fn kill(&mut self) {
        if self.ask_init_to_end() {
            return;
        }
        // One that entered leads a process group. What it has started there would go on without it.
        if let (SignalRole::Plain, Some(child)) = (self.signals, self.phase.child()) {
            send_to_group(child.pid, libc::SIGKILL);
        }
        for child in self.phase.child().into_iter().chain(&self.intermediate) {
            child.kill();
        }
    }

    /// In a PID namespace that others share the kernel ends nobody with the init: it ends its descendants itself when our
    /// end of the channel closes, and then dies.
    fn ask_init_to_end(&self) -> bool {
        let (InitRole::InCharge, Some(channel), Some(child)) =
            (self.phase.init(), self.phase.channel(), self.phase.child())
        else {
            return false;
        };
        if channel.shut_down().is_err() {
            return false;
        }
        for signal in [libc::SIGHUP, libc::SIGCONT] {
            send_signal(&child.pidfd, signal);
        }
        true
    }

    /// Sends a signal to its command; see [`super::signals`] for what the kernel would not do to a PID 1.
    pub fn signal(&mut self, signal: i32) {
        if signal == libc::SIGKILL && self.ask_init_to_end() {
            return;
        }
        self.deliver(signal, false);
    }

    /// Sends a signal to its command and all others of that one's process group, as a terminal does.
    pub fn signal_group(&mut self, signal: i32) {
        self.deliver(signal, true);
    }

    /// Sends the signal of a key to its command where the kernel does not, and returns whether that was so.
    pub fn signal_by_key(&mut self, signal: i32, foreground: Option<Pid>) -> bool {
        let Some(pid) = self.phase.own_child().map(|child| child.pid).filter(|_| self.is_unarmed_pid_one()) else {
            return false;
        };
        // Until the command is there nobody else is, and the terminal may not be anybody's yet.
        let in_front = !self.phase.is_running() || getpgid(Some(pid)).is_ok_and(|group| Some(group) == foreground);
        if !in_front || self.delivery_to(pid, signal) == Delivery::AsIs {
            return false;
        }
        self.deliver(signal, signal == libc::SIGTSTP);
        true
    }

    /// Its command is the child of an init, which reports on it.
    #[must_use]
    pub fn has_init(&self) -> bool {
        matches!(self.signals, SignalRole::UnderInit { .. })
    }

    /// Its init leads it in a PID namespace of others, where it ends what comes of the command itself.
    #[must_use]
    pub fn has_leading_init(&self) -> bool {
        self.signals == SignalRole::UnderInit { is_pid_one: false }
    }

    /// It is a PID 1 to which the kernel delivers only what it has a handler for. An init too, until it waits for signals:
    /// the kernel throws away what it has not blocked yet.
    fn is_unarmed_pid_one(&self) -> bool {
        match self.signals {
            SignalRole::PidOne => true,
            SignalRole::UnderInit { is_pid_one } => is_pid_one && !self.phase.is_running(),
            SignalRole::Plain => false,
        }
    }

    fn delivery_to(&self, pid: Pid, signal: i32) -> Delivery {
        let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap_or_default();
        // What an init blocks it takes up, from before it is one.
        delivery(signal, &status, self.phase.is_running() || self.has_init())
    }

    fn deliver(&mut self, signal: i32, group: bool) {
        if signal == 0 {
            // Asks whether it lives; it does.
            return;
        }
        let Some(child) = self.phase.own_child() else { return self.end(Cause::Wanted) };
        if group && self.has_init() && self.phase.is_running() {
            return send_for_group(&child.pidfd, signal);
        }
        let instead_of_kernel =
            (self.is_unarmed_pid_one() && signal != libc::SIGKILL) || (group && signal == libc::SIGTSTP);
        let delivery = if instead_of_kernel { self.delivery_to(child.pid, signal) } else { Delivery::AsIs };
        if signal == libc::SIGKILL && self.signals == SignalRole::Plain {
            // What it has started would go on without it.
            send_to_group(child.pid, signal);
        }
        if group {
            // The kernel lets no stop by a key of the terminal act on a group without a shell, as the container's is.
            send_to_group(child.pid, if delivery == Delivery::Stop { libc::SIGSTOP } else { signal });
        }
        let sent = match delivery {
            Delivery::AsIs if group => return,
            Delivery::AsIs => signal,
            Delivery::Stop => libc::SIGSTOP,
            Delivery::Kill => {
                self.killed_for = self.killed_for.or(Some(signal));
                libc::SIGKILL
            }
        };
        send_signal(&child.pidfd, sent);
        if sent == libc::SIGKILL && self.phase.is_awaited() {
            // The command that waits is over as well, as if it had run.
            self.phase.end(Cause::Wanted);
        }
    }

    /// Records its end; [`Member::phase`] then holds the outcome. Returns the process that was reaped.
    pub fn reaped(&mut self, status: Status, usage: Usage) -> Option<Child> {
        let by_us = self.killed_for.filter(|_| status == Status::Signaled(libc::SIGKILL));
        let duration_us = self.request.map_or(0, |request| request.since.elapsed().as_micros() as u64);
        let exit = |status, timed_out| Exit { status, usage, timed_out, duration_us };
        self.phase.reaped(by_us.map_or(status, Status::Signaled), exit)
    }
}
