//! One container, as its supervisor sees it.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, getpgid};

use super::protocol::{Exit, Report};
use super::signals::{Delivery, delivery};
use super::spare::Waiting;
use super::user_network::UserNetwork;
use crate::diff::changes_directory::ChangesDirectory;
use crate::diff::collect::{Collector, ContainerLayers};
use crate::net::kinds::Attachment;
use crate::plan::Plan;
use crate::plan::namespace::Kind;
use crate::state::journal::EntryId;
use crate::steps::channel::Channel;
use crate::steps::etc::Files;
use nsrs_base::error::Error;
use nsrs_base::sys::process::send_signal;
use nsrs_base::sys::signal::{send_for_group, send_to_group};
use nsrs_base::sys::wait::{Status, reap};
use nsrs_store::writable::Changes;

/// Layers of an image that are held, by all containers on it together.
pub type Leases = Rc<Vec<File>>;

/// A process of ours and its pidfd.
#[derive(Debug)]
pub struct Process {
    /// Its number, ours until it is reaped.
    pub pid: Pid,
    /// Readable when it has ended.
    pub pidfd: OwnedFd,
    /// Its entry in the journal.
    pub slot: Option<EntryId>,
}

impl Process {
    /// Ends a process that nobody watches, and waits for that.
    pub fn end_now(&self) {
        send_signal(&self.pidfd, libc::SIGKILL);
        let _ = poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], None);
        let _ = reap(self.pid);
    }
}

/// A container from its request to its end.
#[derive(Debug)]
pub struct Container {
    /// The caller's number; none for a spare, which nobody has asked for yet.
    pub id: Option<u64>,
    /// What is being done; its command and its time limit may be those of another of its kind.
    pub plan: Rc<Plan>,
    /// It is killed after this many milliseconds.
    pub timeout_ms: Option<u64>,
    /// The stage before it, until it is reaped.
    pub stage: Option<Process>,
    /// The container's first process; none while only the stage exists.
    pub first: Option<Process>,
    /// The layers of its image, held.
    pub leases: Leases,
    /// Where it writes, on an image.
    pub changes: Option<Changes>,
    /// What it holds of the host's network.
    pub attachment: Attachment,
    /// What its files in /etc say.
    pub name_files: Files,
    /// The program that connects it, where it is not the kernel.
    pub user_network: Option<UserNetwork>,
    /// Open until the command is executed, or to the end where an init reports through it.
    pub channel: Option<Channel>,
    /// The caller wants to know when the command runs.
    pub announce: bool,
    /// In a shared PID namespace: its init ends what comes of the command.
    pub init_in_charge: bool,
    /// Made ahead, and prepared up to its command.
    pub stands: bool,
    /// What was ordered of a container made ahead before it stood. If it comes to nothing, another is made, unless somebody
    /// ended it.
    pub waiting: Option<Waiting>,
    /// Its mount namespace, held so that its end is told before the kernel takes the mounts down.
    pub mounts: Option<OwnedFd>,
    /// Its writable layers, where its changes are wanted.
    pub layers: Option<ContainerLayers>,
    /// Where the changes are kept; the lock on it.
    pub kept: Option<ChangesDirectory>,
    /// Its layers have been looked through after its end, or are being.
    pub looked_through: bool,
    /// What lists its changes, after its end.
    pub collector: Option<Collector>,
    /// The list.
    pub listing: Option<OwnedFd>,
    /// The command runs.
    pub running: bool,
    /// Why it never will.
    pub failure: Option<Error>,
    /// How the command ended, as its init saw it.
    pub ended: Option<Status>,
    /// The signal in whose place `SIGKILL` was sent.
    pub killed_for: Option<i32>,
    /// It is being ended: a process that its stage has made meanwhile too.
    pub is_going: bool,
    /// The time limit killed it.
    pub timed_out: bool,
    /// When the request came.
    pub since: Instant,
    /// What the caller is told of it.
    pub report: Report,
    /// How it ended, to be told when nothing of it is left.
    pub exit: Option<Exit>,
}

impl Container {
    /// When the time limit is reached.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let limit = self.timeout_ms.filter(|_| !self.timed_out)?;
        self.since.checked_add(Duration::from_millis(limit))
    }

    /// Must its channel be listened to while it runs? If not, what it said is read at its end.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        let asks = self.plan.sandbox.network.kind().needs_program()
            || self.plan.process.tty.is_some()
            || self.plan.sandbox.init;
        self.announce || asks || self.stage.is_some() || self.id.is_none() || self.waiting.is_some()
    }

    /// Nothing of it runs any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.stage.is_none() && self.first.is_none() && self.user_network.is_none() && self.collector.is_none()
    }

    /// Ends it for good.
    pub fn end(&mut self) {
        self.waiting = None;
        self.take_down();
    }

    /// Kills what there is of it; the kernel takes the rest of its PID namespace along.
    pub fn take_down(&mut self) {
        self.is_going = true;
        if let Some(collector) = &self.collector {
            send_signal(&collector.pidfd, libc::SIGKILL);
        }
        if !self.ask_init_to_end() {
            for process in self.first.iter().chain(&self.stage) {
                send_signal(&process.pidfd, libc::SIGKILL);
            }
        }
        if let (None, None, Some(network)) = (&self.first, &self.stage, &mut self.user_network) {
            network.end();
        }
    }

    /// In a PID namespace that others share the kernel ends nobody with the init: it ends its descendants itself when our
    /// end of the channel closes, and then dies.
    fn ask_init_to_end(&self) -> bool {
        let (true, Some(channel), Some(first)) = (self.init_in_charge, &self.channel, &self.first) else {
            return false;
        };
        if rustix::net::shutdown(channel, rustix::net::Shutdown::Write).is_err() {
            return false;
        }
        for signal in [libc::SIGHUP, libc::SIGCONT] {
            send_signal(&first.pidfd, signal);
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
        let waits = self.plan.sandbox.init && self.running;
        let pid_one = self.plan.sandbox.namespaces.makes(Kind::Pid) && !waits;
        let Some(first) = self.first.as_ref().filter(|_| pid_one) else { return false };
        // Until the command is there nobody else is, and the terminal may not be anybody's yet.
        let in_front = !self.running || getpgid(Some(first.pid)).is_ok_and(|group| Some(group) == foreground);
        if !in_front || self.delivery_to(first.pid, signal) == Delivery::AsIs {
            return false;
        }
        self.deliver(signal, signal == libc::SIGTSTP);
        true
    }

    fn delivery_to(&self, pid: Pid, signal: i32) -> Delivery {
        let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap_or_default();
        // What an init blocks it takes up, from before it is one.
        delivery(signal, &status, self.running || self.plan.sandbox.init)
    }

    fn deliver(&mut self, signal: i32, group: bool) {
        if signal == 0 {
            // Asks whether it lives; it does.
            return;
        }
        let Some(first) = &self.first else { return self.end() };
        if group && self.plan.sandbox.init && self.running {
            return send_for_group(&first.pidfd, signal);
        }
        // An init too, until it waits for signals: the kernel throws away what it has not blocked yet.
        let waits = self.plan.sandbox.init && self.running;
        let pid_one = self.plan.sandbox.namespaces.makes(Kind::Pid) && !waits;
        let instead_of_kernel = (pid_one && signal != libc::SIGKILL) || (group && signal == libc::SIGTSTP);
        let delivery = if instead_of_kernel { self.delivery_to(first.pid, signal) } else { Delivery::AsIs };
        if group {
            // The kernel lets no stop by a key of the terminal act on a group without a shell, as the container's is.
            send_to_group(first.pid, if delivery == Delivery::Stop { libc::SIGSTOP } else { signal });
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
        send_signal(&first.pidfd, sent);
        if sent == libc::SIGKILL {
            self.waiting = None;
        }
    }
}
