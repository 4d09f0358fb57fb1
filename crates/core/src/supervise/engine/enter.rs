//! Processes that enter a container: asked of the entrance, one ahead of each request, and given their command.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

use nsrs_base::error::{Error, Result};
use rustix::event::epoll::EventFlags;

use super::Engine;
use super::token::{EventSource, Key, Token};
use crate::plan::namespace::Kind;
use crate::plan::{Plan, enter};
use crate::spec::EnterSpec;
use crate::state::journal::{JournalEntry, Termination};
use crate::steps::channel::{Channel, ToChild};
use crate::steps::enter::{Destination, container_has_ended};
use crate::supervise::container::Container;
use crate::supervise::container::child::Child;
use crate::supervise::container::member::{Member, RequestOrigin, SignalRole};
use crate::supervise::container::phase::{Cause, Command, Next, Outcome, Phase, Then};
use crate::supervise::entrance::{Entrance, EntranceAnswer, entrance_lost};
use crate::supervise::protocol::{Event, ProcessAddress};

/// A process that is to enter a container.
pub struct EnterRequest<'a> {
    /// The caller's numbers for the container, and for the process.
    pub address: ProcessAddress,
    /// The caller's options for the process.
    pub spec: &'a EnterSpec,
    /// Standard input, output and error.
    pub stdio: [OwnedFd; 3],
    /// Descriptors for the plan's `preserve_fds`.
    pub fds: Vec<OwnedFd>,
    /// Report when the command starts ([`Event::Started`]), and not only when it ends.
    pub announce: bool,
}

impl Engine {
    /// Starts a process in a running container. Success and failure are reported as events.
    pub fn enter(&mut self, request: EnterRequest<'_>) {
        let address = request.address;
        if let Err(errors) = self.try_enter(request) {
            self.emit(Event::Failed { address, errors }, None);
        }
    }

    fn try_enter(&mut self, request: EnterRequest<'_>) -> Result<(), Vec<Error>> {
        let since = Instant::now();
        let EnterRequest { address, spec, stdio, fds, announce } = request;
        let Some(Key { container: number, .. }) = self.find(ProcessAddress::of_container(address.container)) else {
            return Err(container_has_ended().into());
        };
        self.drain(Key::first(number));
        let Some(container) = self.containers.get(&number).filter(|container| container.takes_processes()) else {
            return Err(container_has_ended().into());
        };
        let plan = enter::resolve(&container.plan, spec)?;
        let timeout_ms = plan.process.timeout_ms;
        let command = Box::new(Command { plan: Rc::new(plan), stdio, fds });
        let key = match self.waiting_member(number) {
            Some(key) => key,
            None => self.request_member(number)?,
        };
        let Some(member) = self.member_mut(key) else { return Err(container_has_ended().into()) };
        member.request = Some(RequestOrigin { address, announce, since, timeout_ms });
        match member.phase.take_command(command) {
            Ok(Next::Command(command)) => self.hand_over(key, *command),
            Ok(_) => {}
            Err(_) => return Err(container_has_ended().into()),
        }
        self.keep_member_waiting(number);
        Ok(())
    }

    /// The oldest prewarmed process that waits for a command in this container.
    fn waiting_member(&self, number: u32) -> Option<Key> {
        let waiting = |member: &Member| {
            member.request.is_none()
                && matches!(
                    member.phase,
                    Phase::Standing { .. }
                        | Phase::Requested { then: Then::Stand }
                        | Phase::Staging { then: Then::Stand, .. }
                )
        };
        let container = self.containers.get(&number)?;
        let mut waiting = container.members(number).filter(|(key, member)| key.member != 0 && waiting(member));
        // The oldest is the first to be prepared.
        waiting.next().map(|(key, _)| key)
    }

    /// Makes sure that one process waits ahead of the next request.
    pub(super) fn keep_member_waiting(&mut self, number: u32) {
        let takes_more = self.containers.get(&number).is_some_and(Container::takes_processes);
        if takes_more && self.waiting_member(number).is_none() {
            // If this fails, the next request fails with the reason.
            let _ = self.request_member(number);
        }
    }

    /// Asks the entrance for a process that enters this container, and starts the entrance if there is none.
    fn request_member(&mut self, number: u32) -> Result<Key> {
        if self.entrance.is_none() {
            self.watch_for_strays()?;
            let entrance = Entrance::start(&self.program)?;
            self.events.listen(entrance.channel(), Token::Entrance)?;
            self.events.watch(entrance.pidfd(), Token::EntranceEnd, EventFlags::IN)?;
            self.entrance = Some(entrance);
        }
        let (Some(entrance), Some(container)) = (&mut self.entrance, self.containers.get_mut(&number)) else {
            return Err(entrance_lost());
        };
        let signals = signals(&container.plan);
        let member = container.take_in(Member::new(None, Phase::Requested { then: Then::Stand }, signals));
        let key = Key { container: number, member };
        if let Err(error) = entrance.ask(key) {
            container.entered.remove(&member);
            return Err(error);
        }
        Ok(key)
    }

    /// Handles one answer of the entrance.
    pub(super) fn read_entrance(&mut self) {
        let Some(entrance) = &mut self.entrance else { return };
        match entrance.answer() {
            EntranceAnswer::Made(key, child, channel) => self.send_destination(key, child, channel),
            EntranceAnswer::Failed(key, error) => self.member_failed(key, error),
            EntranceAnswer::Late => {}
            EntranceAnswer::Gone => self.entrance_ended(),
        }
    }

    /// The entrance has ended: the members that wait for its answer fail, and the next request starts another entrance.
    pub(super) fn entrance_ended(&mut self) {
        let Some(entrance) = self.entrance.take() else { return };
        self.events.stop_listening(entrance.channel());
        self.events.unwatch(entrance.pidfd());
        for key in entrance.end() {
            self.member_failed(key, entrance_lost());
        }
    }

    /// The entrance could not make the intermediate process of this member.
    fn member_failed(&mut self, key: Key, error: Error) {
        if let Some(member) = self.member_mut(key) {
            member.phase.make_failed(error);
        }
        self.finish_member(key);
        self.finish_if_over(key.container);
    }

    /// Tells a new intermediate process which container to enter.
    fn send_destination(&mut self, key: Key, child: Child, channel: Channel) {
        let Ok(child) = self.watch_end(key, EventSource::IntermediateEnd, child) else {
            return self.member_failed(key, entrance_lost());
        };
        let Some(container) = self.containers.get_mut(&key.container) else { return child.end_now() };
        let first = container.first.phase.own_child().map(|child| child.pidfd.try_clone());
        let destination = Destination::of(&container.plan, self.resolver.host().privileged);
        let Some(member) = container.entered.get_mut(&key.member) else { return child.end_now() };
        match member.phase.intermediate_made(child, channel) {
            Ok(Next::End) => return member.kill(),
            Ok(_) => {}
            Err(error) => return member.end(Cause::Failed(error)),
        }
        let (Some(channel), Some(Ok(first))) = (member.phase.channel(), first) else {
            return member.end(Cause::Failed(container_has_ended()));
        };
        let begun = channel
            .send_any_size(&ToChild::Enter(Box::new(destination)), &[first.as_fd()])
            .and_then(|()| self.events.listen(channel, Token::Container(key, EventSource::Channel)));
        if let Err(error) = begun {
            member.end(Cause::Failed(error));
        }
    }

    /// Records a process that has entered a container in the journal, unless the container has a PID namespace of its own:
    /// there the kernel ends it with the first process. Elsewhere it has an init, which is asked to end.
    pub(super) fn note_entered(&mut self, key: Key) {
        let Some(container) = self.containers.get(&key.container) else { return };
        if container.plan.sandbox.namespaces.makes(Kind::Pid) {
            return;
        }
        let Some(pid) = self.member(key).and_then(|member| member.phase.child()).map(|child| child.pid) else { return };
        let noted = self.run_directory().and_then(|run| run.journal.note(JournalEntry::process(pid, Termination::Ask)));
        match noted {
            Ok(slot) => {
                if let Some(child) = self.member_mut(key).and_then(|member| member.phase.child_mut()) {
                    child.slot = Some(slot);
                }
            }
            Err(error) => self.give_up(key, error),
        }
    }

    /// A process that waited for a request ended by itself: another takes its place. If it failed to enter, there is none
    /// before the next request, which then fails with the reason.
    pub(super) fn replace_waiting_member(&mut self, number: u32, outcome: &Outcome) {
        if !matches!(outcome, Outcome::Failed(_)) {
            self.keep_member_waiting(number);
        }
    }
}

/// What signals mean to a process that entered.
fn signals(plan: &Plan) -> SignalRole {
    if plan.sandbox.namespaces.makes(Kind::Pid) {
        SignalRole::Plain
    } else {
        SignalRole::UnderInit { is_pid_one: false }
    }
}
