//! What the processes of a container tell on their way, and how they end.

use std::os::fd::OwnedFd;

use nsrs_base::error::{Act, Code, During, Error, Result};
use nsrs_base::sys::poll::is_readable;
use nsrs_base::sys::wait::{Status, Usage, hidden_status, is_child, reap};
use rustix::event::epoll::EventFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::Engine;
use super::prewarm::Unserved;
use super::token::{EventSource, Key, Token};
use crate::diff::collect::{Collected, Collector, ContainerLayers};
use crate::state::journal::EntryId;
use crate::steps::channel::{Channel, FromChild, Received, ToChild};
use crate::steps::enter::container_has_ended;
use crate::supervise::container::child::Child;
use crate::supervise::container::launch;
use crate::supervise::container::member::Member;
use crate::supervise::container::phase::{Cause, Next, Outcome, Phase};
use crate::supervise::container::{Container, ListingState};
use crate::supervise::protocol::Event;

/// More than a mailbox holds: what is left of one would not wake us again.
const MOST_MESSAGES: usize = 4096;

impl Engine {
    /// Reads what a process has said. Of one that never stops talking, the rest is heard when the others had their turn.
    pub(super) fn drain(&mut self, key: Key) {
        let is_readable = |member: &Member| member.phase.channel().is_some_and(Channel::is_readable);
        for _ in 0..MOST_MESSAGES {
            if !self.member(key).is_some_and(is_readable) || !self.read_message(key) {
                return;
            }
        }
    }

    pub(super) fn member(&self, key: Key) -> Option<&Member> {
        self.containers.get(&key.container)?.member(key.member)
    }

    pub(super) fn member_mut(&mut self, key: Key) -> Option<&mut Member> {
        self.containers.get_mut(&key.container)?.member_mut(key.member)
    }

    /// Reads one message of a process, or the end of its channel. `false`: there was none.
    fn read_message(&mut self, key: Key) -> bool {
        let Some(channel) = self.member(key).and_then(|member| member.phase.channel()) else { return false };
        match channel.next::<FromChild>() {
            Ok(Received::Message((message, fds))) => {
                if let Err(error) = self.handle_message(key, message, fds) {
                    self.reject_message(key, error);
                }
            }
            Ok(Received::Nothing) => return false,
            Ok(Received::End) => self.channel_closed(key),
            Err(error) => {
                self.stop_listening(key);
                self.give_up(key, error);
            }
        }
        true
    }

    /// Handles a message that doesn't fit the state of its sender. Once the command runs, the command may have sent it, if it
    /// may trace its init: then the message is ignored. Before that the set-up went wrong, and the process is ended.
    fn reject_message(&mut self, key: Key, error: Error) {
        let error = error.during(Act::Supervisor);
        let Some(container) = self.containers.get_mut(&key.container) else { return };
        // Its other messages don't count any more. To read them first would only come here again for each.
        match container.entered.get_mut(&key.member) {
            Some(member) if !member.phase.is_running() => member.end(Cause::Failed(error)),
            None if !container.first.phase.is_running() => container.end(Cause::Failed(error)),
            _ => {}
        }
    }

    /// The channel of an intermediate process may be succeeded by that of the process that it makes. If there is an init, its
    /// channel closes when the init ends; otherwise it closes when the command is executed, or after a failure.
    fn channel_closed(&mut self, key: Key) {
        if let Some(old) = self.member_mut(key).and_then(|member| member.phase.succeed_channel()) {
            self.events.stop_listening(&old);
            let Some(new) = self.member(key).and_then(|member| member.phase.channel()) else { return };
            if let Err(error) = self.events.listen(new, Token::Container(key, EventSource::Channel)) {
                self.give_up(key, error);
            }
            return;
        }
        let Some(member) = self.member(key) else { return };
        if let Some(channel) = member.phase.channel() {
            self.events.stop_listening(channel);
        }
        if member.phase.runs_at_end_of_channel() && !member.has_init() {
            self.executed(key, false);
        } else if let Some(member) = self.member_mut(key) {
            member.phase.close_channel();
        }
    }

    /// Nothing more that comes over the channel of a process counts.
    fn stop_listening(&mut self, key: Key) {
        let Some(container) = self.containers.get_mut(&key.container) else { return };
        let Some(member) = container.member_mut(key.member) else { return };
        if let Some(channel) = member.phase.channel() {
            self.events.stop_listening(channel);
        }
        member.phase.close_channel();
    }

    /// Handles one message of a process, as far as its state allows it.
    fn handle_message(&mut self, key: Key, message: FromChild, mut fds: Vec<OwnedFd>) -> Result<()> {
        let out_of_place =
            |what: &str| Error::new(Code::SetupFailed, "follow the container", format!("{what} came out of place"));
        let Some(container) = self.containers.get_mut(&key.container) else { return Ok(()) };
        let (is_first, plan) = (key.member == 0, container.plan.clone());
        let Container { first, entered, report, listing, holdings, .. } = container;
        let member = if is_first { Some(first) } else { entered.get_mut(&key.member) };
        let Some(member) = member else { return Ok(()) };
        let is_late = matches!(member.phase, Phase::Ending { .. });
        if is_late && !matches!(message, FromChild::Ended(_) | FromChild::ProcessMade(_) | FromChild::Failed(_)) {
            // It was on its way when the process was ended.
            return Ok(());
        }
        // As soon as a process that enters is made, the container may have got at its end of the channel.
        let is_before = match member.phase {
            Phase::Running { .. } => false,
            Phase::Preparing { .. } | Phase::Standing { .. } => is_first,
            _ => true,
        };
        match message {
            FromChild::Ended(status) if member.has_init() => member.phase.command_ended(Status::from_raw(status))?,
            FromChild::Executed if member.has_init() => self.executed(key, true),
            FromChild::InCharge if member.has_leading_init() => {
                member.phase.in_charge()?;
                if let Some(channel) = member.phase.channel() {
                    // If it is gone already, its end tells.
                    let _ = channel.send(&ToChild::Start, &[]);
                }
            }
            FromChild::Channel if is_before => {
                let new = Channel::of_supervisor(fds)?;
                self.events.listen(&new, Token::Container(key, EventSource::Channel))?;
                let old = member.phase.renew_channel(new)?;
                self.events.stop_listening(&old);
            }
            FromChild::Failed(error) if !member.phase.is_running() => member.phase.end(Cause::Failed(error)),
            FromChild::Note(note) if is_first && is_before => report.fallbacks.push(note),
            FromChild::Terminal if is_before && !fds.is_empty() => {
                if let Some(request) = member.request {
                    self.emit(Event::Terminal { address: request.address }, fds.pop());
                }
            }
            FromChild::Ready => {
                let (mounts, successor) =
                    if is_first { (fds.pop(), None) } else { (None, Some(Channel::of_supervisor(fds)?)) };
                let next = member.phase.ready(successor)?;
                if is_first {
                    holdings.mounts = mounts;
                }
                match next {
                    Next::Stands => self.stands(key),
                    Next::Command(command) => self.hand_over_if_sound(key, command),
                    Next::Wait | Next::SetUp | Next::End => {}
                }
            }
            FromChild::Layers if is_first && is_before => {
                let mut fds = fds.into_iter();
                if let (Some(directory), Some(record)) = (fds.next(), fds.next()) {
                    *listing = ListingState::Known(ContainerLayers { directory, record, user_namespace: fds.next() });
                }
                if let Some(kept) = &holdings.kept {
                    kept.commit_draft().during(Act::Changes)?;
                }
            }
            FromChild::NeedNetwork if is_first && is_before => {
                self.start_user_network(key.container).during(Act::Network)?
            }
            FromChild::NeedMaps => match &member.phase {
                Phase::Staging { child, channel, .. } if is_first => {
                    launch::map_ids(&plan.sandbox, child.pid, channel.current()).during(Act::IdMaps)?;
                }
                // It is being ended.
                _ => {}
            },
            FromChild::ProcessMade(pid) if member.phase.expects_process() => {
                // Whoever may trace the sender can send messages in its name.
                let made = Pid::from_raw(pid).filter(|pid| is_child(*pid) && !self.has_child(*pid));
                match made.map(|pid| (pid, pidfd_open(pid, PidfdFlags::empty()))) {
                    Some((pid, Ok(pidfd))) => self.process_made(key, pid, pidfd),
                    _ => return Err(out_of_place("a new process")),
                }
            }
            FromChild::Ended(_) | FromChild::Executed | FromChild::InCharge => {
                return Err(out_of_place("a message of an init"));
            }
            FromChild::Failed(_)
            | FromChild::ProcessMade(_)
            | FromChild::Channel
            | FromChild::Note(_)
            | FromChild::Terminal
            | FromChild::Layers
            | FromChild::NeedNetwork => return Err(out_of_place("a message of the set-up")),
        }
        Ok(())
    }

    /// The command runs; `keep` where its init goes on to report.
    fn executed(&mut self, key: Key, keep: bool) {
        let Some(container) = self.containers.get_mut(&key.container) else { return };
        let mut report = container.report.clone();
        let Some(member) = container.member_mut(key.member) else { return };
        if let Err(error) = member.phase.executed(keep) {
            return self.reject_message(key, error);
        }
        let Some(pid) = member.phase.child().map(|child| child.pid.as_raw_nonzero().get()) else { return };
        let request = member.request;
        report.pid = pid;
        if key.member == 0 {
            container.report.pid = pid;
        }
        if let Some(request) = request.filter(|request| request.announce) {
            self.emit(Event::Started { address: request.address, report }, None);
        }
    }

    /// An intermediate process that has made its process has ended.
    pub(super) fn reap_intermediate(&mut self, key: Key) {
        // What it said last counts before its end.
        self.drain(key);
        let Some(member) = self.member_mut(key) else { return };
        match member.intermediate.take() {
            Some(intermediate) => match reap(intermediate.pid) {
                Ok(None) if !is_readable(&intermediate.pidfd) => member.intermediate = Some(intermediate),
                _ => self.forget_child(&intermediate.pidfd, intermediate.slot),
            },
            // It has made none: its end is the end of what it was for.
            None => self.reap(key),
        }
    }

    /// The process of a member has ended.
    pub(super) fn reap(&mut self, key: Key) {
        self.drain(key);
        let Some(member) = self.member(key) else { return };
        let Some(pid) = member.phase.child().map(|child| child.pid) else { return };
        let (status, usage) = match reap(pid) {
            Ok(Some(end)) => end,
            // Somebody else traces it. What it used can't be known, and it is reaped as a stray when that one lets go of it.
            Ok(None) if self.has_ended(key) => {
                (hidden_status(pid).unwrap_or(Status::Signaled(libc::SIGKILL)), Usage::default())
            }
            Ok(None) => return,
            Err(_) => (Status::Signaled(libc::SIGKILL), Usage::default()),
        };
        if let Some(channel) = self.member(key).and_then(|member| member.phase.channel()) {
            self.events.stop_listening(channel);
        }
        let Some(ended) = self.member_mut(key).and_then(|member| member.reaped(status, usage)) else { return };
        self.forget_child(&ended.pidfd, ended.slot);
        if key.member == 0 {
            self.first_process_ended(key.container);
        } else if status == Status::Signaled(libc::SIGKILL) {
            self.end_stray_of(pid);
        }
    }

    /// The process of a member has ended, whether it can be reaped or not.
    fn has_ended(&self, key: Key) -> bool {
        self.member(key).and_then(|member| member.phase.child()).is_some_and(|child| is_readable(&child.pidfd))
    }

    /// Stops watching a child that has ended, and removes its entry from the journal.
    fn forget_child(&mut self, pidfd: &OwnedFd, slot: Option<EntryId>) {
        self.events.unwatch(pidfd);
        if let Some(run) = &mut self.run {
            run.strike(slot);
        }
    }

    /// With its first process a container's network ends, and the others that are in it.
    fn first_process_ended(&mut self, number: u32) {
        let Some(container) = self.containers.get_mut(&number) else { return };
        if let Some(network) = &mut container.user_network {
            network.end();
        }
        if let Err(error) =
            container.plan.sandbox.network.kind().down(&mut self.network, &container.holdings.attachment)
        {
            container.report.notes.push(error.to_string());
        }
        container.end_entered();
        self.finish_unmade(number);
    }

    /// Processes that nobody has made yet have no end to wait for.
    pub(super) fn finish_unmade(&mut self, number: u32) {
        let Some(container) = self.containers.get(&number) else { return };
        let keys: Vec<Key> = container.members(number).map(|(key, _)| key).filter(|key| key.member != 0).collect();
        for key in keys {
            self.finish_member(key);
        }
    }

    /// Begins to look at what the command changed, if that is wanted and it has run.
    fn list_changes(&mut self, number: u32) {
        let Some(container) = self.containers.get_mut(&number) else { return };
        let Some(changes) = &container.plan.sandbox.changes else { return };
        if !matches!(container.first.phase, Phase::Ended(Outcome::Exited(_))) {
            return;
        }
        let listing = std::mem::replace(&mut container.listing, ListingState::Done(None));
        let ListingState::Known(layers) = listing else {
            // Done already, or it was ended before there was a command.
            container.listing = listing;
            return;
        };
        let token = Token::Container(Key::first(number), EventSource::Listed);
        let started =
            Collector::start(layers, &container.plan.sandbox.user_namespace, changes.list).and_then(|collector| {
                self.events.watch(&collector.pidfd, token, EventFlags::IN)?;
                Ok(collector)
            });
        match started.during(Act::Changes) {
            Ok(collector) => container.listing = ListingState::Running(collector),
            Err(error) => container.first.phase = Phase::Ended(Outcome::Failed(error)),
        }
    }

    /// The process that lists the changes has ended: takes its result.
    pub(super) fn listed(&mut self, number: u32) {
        let Some(container) = self.containers.get_mut(&number) else { return };
        let collector = match std::mem::replace(&mut container.listing, ListingState::Done(None)) {
            ListingState::Running(collector) => collector,
            other => {
                container.listing = other;
                return;
            }
        };
        let status = match reap(collector.pid) {
            Ok(None) => {
                container.listing = ListingState::Running(collector);
                return;
            }
            ended => ended.ok().flatten().map(|(status, _)| status),
        };
        self.events.unwatch(&collector.pidfd);
        let kept = &container.holdings.kept;
        let collected = collector.finish(status).and_then(|Collected { list, baseline }| {
            kept.as_ref().map_or(Ok(()), |kept| kept.add_baseline(baseline)).map(|()| list)
        });
        match collected.during(Act::Changes) {
            Ok(list) => container.listing = ListingState::Done(list),
            Err(error) => container.first.phase = Phase::Ended(Outcome::Failed(error)),
        }
    }

    /// Tells the end of a process that entered, when nothing of it is left.
    pub(super) fn finish_member(&mut self, key: Key) {
        if key.member == 0 {
            return;
        }
        let Some(container) = self.containers.get_mut(&key.container) else { return };
        if !container.entered.get(&key.member).is_some_and(Member::is_over) {
            return;
        }
        let Some(member) = container.entered.remove(&key.member) else { return };
        container.go_on_stopping();
        let has_ended_meanwhile = |container: &Container| {
            !container.takes_processes() || container.first.phase.child().is_none_or(Child::is_exiting)
        };
        let report = container.report.clone();
        let Member { request, phase, .. } = member;
        let Phase::Ended(outcome) = phase else { return };
        match (request, outcome) {
            (Some(request), Outcome::Exited(exit)) => {
                let report = (!request.announce).then_some(report);
                self.emit(Event::Exited { address: request.address, exit, report }, None);
            }
            // Whatever step met it first.
            (Some(request), Outcome::Failed(_) | Outcome::Unfit(..)) if has_ended_meanwhile(container) => {
                self.fail(request.address, container_has_ended());
            }
            (Some(request), Outcome::Failed(error)) => self.fail(request.address, error),
            (Some(request), Outcome::Unfit(_, Some(error))) => self.fail(request.address, error),
            (Some(request), Outcome::Unfit(_, None) | Outcome::Unasked) => {
                let why = "the process that was to enter ended before its command ran";
                self.fail(request.address, Error::new(Code::SetupFailed, "enter the container", why));
            }
            (None, outcome) => self.replace_waiting_member(key.container, &outcome),
        }
    }

    /// Tells the end of a container of which nothing is left.
    pub(super) fn finish_if_over(&mut self, number: u32) {
        if self.containers.get(&number).is_some_and(Container::is_over) {
            self.list_changes(number);
        }
        if !self.containers.get(&number).is_some_and(Container::is_over) {
            return;
        }
        let Some(mut container) = self.containers.remove(&number) else { return };
        self.janitor.take_over(&mut container);
        // Whoever hears of the end can use the directory.
        drop(container.holdings.kept.take());
        let Container { first, holdings, report, listing, .. } = container;
        let Member { request, phase, .. } = first;
        let Phase::Ended(outcome) = phase else { return };
        let Some(request) = request else {
            let failed = matches!(outcome, Outcome::Failed(_));
            if let Some(pool) = &mut self.pool {
                pool.forget(number, failed);
            }
            return;
        };
        if let Outcome::Unfit(command, _) = outcome {
            return self.launch_anew(Unserved { request, command: *command, leases: holdings.leases });
        }
        if let Some(pool) = &mut self.pool {
            pool.note_end();
        }
        match outcome {
            Outcome::Failed(error) => self.fail(request.address, error),
            Outcome::Exited(exit) => {
                let report = (!request.announce).then_some(report);
                let list = match listing {
                    ListingState::Done(list) => list,
                    _ => None,
                };
                self.emit(Event::Exited { address: request.address, exit, report }, list);
            }
            Outcome::Unasked | Outcome::Unfit(..) => {}
        }
    }
}
