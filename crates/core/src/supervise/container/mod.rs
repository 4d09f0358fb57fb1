//! One container, as its supervisor sees it: the sandbox with what it holds of the host, and the processes in it.

pub mod child;
pub mod connection;
pub mod launch;
pub mod member;
pub mod phase;
pub mod signals;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Instant;

use nsrs_base::sys::process::send_signal;
use nsrs_store::writable_layer::WritableLayer;

use self::member::{Member, RequestOrigin, SignalRole};
use self::phase::{Cause, Phase};
use super::engine::token::Key;
use super::images::Leases;
use super::protocol::Report;
use super::user_network::UserNetwork;
use crate::diff::changes_directory::ChangesDirectory;
use crate::diff::collect::{Collector, ContainerLayers};
use crate::net::kinds::Attachment;
use crate::plan::Plan;
use crate::plan::namespace::Kind;
use crate::steps::etc::Files;

/// What a container holds of the host beside its processes.
#[derive(Debug, Default)]
pub struct Holdings {
    /// The layers of its image.
    pub leases: Leases,
    /// Its writable layer, if it runs on an image.
    pub writable: Option<WritableLayer>,
    /// What it holds of the host's network.
    pub attachment: Attachment,
    /// What its files in /etc say.
    pub name_files: Files,
    /// The directory in which its changes are kept, locked by this.
    pub kept: Option<ChangesDirectory>,
    /// Its mount namespace, held so that its end is told before the kernel takes the mounts down.
    pub mounts: Option<OwnedFd>,
}

/// The progress of the list of changes.
#[derive(Debug)]
pub enum ListingState {
    /// The layers are not known yet, or nobody wants a list.
    Without,
    /// The layers to look through, as the first process has reported them.
    Known(ContainerLayers),
    /// A process looks through them.
    Running(Collector),
    /// The list is finished; `None` if nobody wanted it.
    Done(Option<OwnedFd>),
}

/// A container from its request to its end.
#[derive(Debug)]
pub struct Container {
    /// What was resolved; until a prewarmed container is asked for, its process half is that of another of its kind.
    pub plan: Rc<Plan>,
    /// Locks, layers and mounts of the host that it uses.
    pub holdings: Holdings,
    /// The program that connects it, where it is not the kernel.
    pub user_network: Option<UserNetwork>,
    /// What is reported to the caller when the command starts or ends.
    pub report: Report,
    /// The first process, with whose end the container ends.
    pub first: Member,
    /// Processes that entered, by the container's numbers for them.
    pub entered: BTreeMap<u32, Member>,
    /// The next of these numbers.
    next: u32,
    /// The list of its changes, which is made after the command has ended.
    pub listing: ListingState,
    /// [`Container::stop`] was called: no process may enter any more.
    is_stopping: bool,
}

impl Container {
    /// A container whose first process was just made.
    #[must_use]
    pub fn new(plan: Rc<Plan>, holdings: Holdings, report: Report, first: Member) -> Container {
        let (entered, listing) = (BTreeMap::new(), ListingState::Without);
        Container { plan, holdings, user_network: None, report, first, entered, next: 1, listing, is_stopping: false }
    }

    /// One of its processes; 0 is the first.
    #[must_use]
    pub fn member(&self, number: u32) -> Option<&Member> {
        if number == 0 { Some(&self.first) } else { self.entered.get(&number) }
    }

    /// [`Container::member`], mutable.
    pub fn member_mut(&mut self, number: u32) -> Option<&mut Member> {
        if number == 0 { Some(&mut self.first) } else { self.entered.get_mut(&number) }
    }

    /// A process may enter: it runs, and nobody has asked it to end.
    #[must_use]
    pub fn takes_processes(&self) -> bool {
        self.first.phase.is_running() && !self.is_stopping
    }

    /// Its first process is an init of ours without a command.
    #[must_use]
    pub fn only_waits(&self) -> bool {
        self.plan.process.args.is_empty()
    }

    /// Asks it to end: its command, by the signal meant for that. Where it only waits, the commands that entered are asked
    /// first, and the init when they are gone ([`Container::go_on_stopping`]): with its end the kernel kills the rest.
    pub fn stop(&mut self) {
        self.is_stopping = true;
        if !self.only_waits() {
            return self.first.signal(self.plan.sandbox.root.stop_signal());
        }
        for member in self.entered.values_mut() {
            match member.request {
                Some(_) => member.signal(libc::SIGTERM),
                None => member.end(Cause::Wanted),
            }
        }
        self.go_on_stopping();
    }

    /// One of its processes is gone: where all are, the init that only waits is asked.
    pub fn go_on_stopping(&mut self) {
        if self.is_stopping && self.only_waits() && self.entered.is_empty() {
            self.first.signal(libc::SIGTERM);
        }
    }

    /// All of its processes with their keys.
    pub fn members(&self, container: u32) -> impl Iterator<Item = (Key, &Member)> {
        let entered = self.entered.iter().map(move |(member, process)| (Key { container, member: *member }, process));
        std::iter::once((Key::first(container), &self.first)).chain(entered)
    }

    /// Takes in a process that enters, and returns its number.
    pub fn take_in(&mut self, member: Member) -> u32 {
        let number = self.next;
        self.next += 1;
        self.entered.insert(number, member);
        number
    }

    /// The requests whose commands may be at work: an init without a command of its own waits, and works for nobody.
    pub fn working(&self) -> impl Iterator<Item = &RequestOrigin> + Clone {
        let first = Some(&self.first).filter(|_| !self.only_waits());
        first.into_iter().chain(self.entered.values()).filter_map(|member| member.request.as_ref())
    }

    /// The earliest time limit of its processes.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        std::iter::once(&self.first).chain(self.entered.values()).filter_map(Member::deadline).min()
    }

    /// Must the channel of its first process be listened to while that runs? If not, what it said is read at its end.
    #[must_use]
    pub fn needs_channel_watch(&self) -> bool {
        let Plan { sandbox, process } = &*self.plan;
        let asks = sandbox.network.kind().needs_program() || process.tty.is_some() || sandbox.init;
        let announce = self.first.request.is_none_or(|request| request.announce);
        let is_staged = matches!(self.first.phase, Phase::Staging { .. }) || self.first.intermediate.is_some();
        announce || asks || is_staged || self.first.phase.is_awaited()
    }

    /// What signals mean to its first process.
    #[must_use]
    pub fn signals_of_first(plan: &Plan) -> SignalRole {
        let is_pid_one = plan.sandbox.namespaces.makes(Kind::Pid);
        match (plan.sandbox.init, is_pid_one) {
            (true, is_pid_one) => SignalRole::UnderInit { is_pid_one },
            (false, true) => SignalRole::PidOne,
            (false, false) => SignalRole::Plain,
        }
    }

    /// Nothing of it runs any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let listing = matches!(self.listing, ListingState::Running(_));
        self.first.is_over() && self.entered.is_empty() && self.user_network.is_none() && !listing
    }

    /// Ends it for good, all of its processes.
    pub fn end(&mut self, cause: Cause) {
        if let ListingState::Running(collector) = &self.listing {
            send_signal(&collector.pidfd, libc::SIGKILL);
        }
        self.first.end(cause);
        self.end_entered();
        if let (true, Some(network)) = (self.first.is_over(), &mut self.user_network) {
            network.end();
        }
    }

    /// Ends the processes that entered: the first one is gone, or going.
    pub fn end_entered(&mut self) {
        for member in self.entered.values_mut() {
            member.end(Cause::Wanted);
        }
    }
}

#[cfg(test)]
mod tests {
    use nsrs_base::host::Host;
    use nsrs_base::host::tree::HostTree;

    use super::phase::Then;
    use super::*;
    use crate::plan::resolve;
    use crate::spec::Spec;
    use crate::supervise::protocol::ProcessAddress;

    fn member() -> Member {
        let (address, since) = (ProcessAddress::of_container(1), Instant::now());
        let request = RequestOrigin { address, announce: false, since, timeout_ms: None };
        Member::new(Some(request), Phase::Requested { then: Then::Run }, SignalRole::Plain)
    }

    fn container(args: &[&str]) -> Container {
        let args = args.iter().map(|arg| (*arg).into()).collect();
        let spec = Spec { args, stays: true, ..Spec::default() };
        let plan = resolve(&spec, &Host::root(), &HostTree::default(), None).0;
        Container::new(Rc::new(plan), Holdings::default(), Report::default(), member())
    }

    #[test]
    fn a_first_process_with_a_command_works() {
        assert_eq!(container(&["true"]).working().count(), 1);
    }

    #[test]
    fn an_init_without_a_command_does_not_work() {
        assert_eq!(container(&[]).working().count(), 0);
    }

    #[test]
    fn a_process_that_entered_works_and_one_that_waits_for_a_request_does_not() {
        let mut container = container(&[]);
        container.take_in(member());
        container.take_in(Member::new(None, Phase::Requested { then: Then::Stand }, SignalRole::Plain));
        assert_eq!(container.working().count(), 1);
    }
}
