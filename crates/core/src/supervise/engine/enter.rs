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
use crate::steps::enter::{Destination, has_ended};
use crate::supervise::container::Container;
use crate::supervise::container::child::Child;
use crate::supervise::container::member::{Member, RequestOrigin, SignalRole};
use crate::supervise::container::phase::{Cause, Command, Next, Outcome, Phase, Then};
use crate::supervise::entrance::{Entrance, EntranceAnswer, lost};
use crate::supervise::protocol::{Event, ProcessAddress};

/// A process that is to enter a container.
pub struct EnterRequest<'a> {
    /// The caller's numbers for the container, and for the process.
    pub address: ProcessAddress,
    /// What is wanted.
    pub spec: &'a EnterSpec,
    /// Standard input, output and error.
    pub stdio: [OwnedFd; 3],
    /// Descriptors for the plan's `preserve_fds`.
    pub fds: Vec<OwnedFd>,
    /// Tell when the command runs.
    pub announce: bool,
}

impl Engine {
    /// Lets a process enter a container. Whatever comes of it is told in events.
    pub fn enter(&mut self, request: EnterRequest<'_>) {
        let address = request.address;
        if let Err(errors) = self.try_enter(request) {
            self.tell(Event::Failed { address, errors }, None);
        }
    }

    fn try_enter(&mut self, request: EnterRequest<'_>) -> Result<(), Vec<Error>> {
        let since = Instant::now();
        let EnterRequest { address, spec, stdio, fds, announce } = request;
        let Some(Key { container: number, .. }) = self.find(ProcessAddress::of_container(address.container)) else {
            return Err(has_ended().into());
        };
        self.drain(Key::first(number));
        let Some(container) = self.containers.get(&number).filter(|container| container.takes_processes()) else {
            return Err(has_ended().into());
        };
        let plan = enter::resolve(&container.plan, spec)?;
        let timeout_ms = plan.process.timeout_ms;
        let command = Box::new(Command { plan: Rc::new(plan), stdio, fds });
        let key = match self.newcomer(number) {
            Some(key) => key,
            None => self.summon(number)?,
        };
        let Some(member) = self.member_mut(key) else { return Err(has_ended().into()) };
        member.request = Some(RequestOrigin { address, announce, since, timeout_ms });
        match member.phase.take_command(command) {
            Ok(Next::Command(command)) => self.hand_over(key, *command),
            Ok(_) => {}
            Err(_) => return Err(has_ended().into()),
        }
        self.keep_newcomer(number);
        Ok(())
    }

    /// The process that waits outside of a container for a command, best one that stands.
    fn newcomer(&self, number: u32) -> Option<Key> {
        let waiting = |member: &Member| {
            member.request.is_none()
                && matches!(
                    member.phase,
                    Phase::Standing { .. }
                        | Phase::Summoned { then: Then::Stand }
                        | Phase::Staging { then: Then::Stand, .. }
                )
        };
        let container = self.containers.get(&number)?;
        let mut waiting = container.members(number).filter(|(key, member)| key.member != 0 && waiting(member));
        // The oldest is the first to stand.
        waiting.next().map(|(key, _)| key)
    }

    /// Sees to it that one process waits ahead of the next request.
    pub(super) fn keep_newcomer(&mut self, number: u32) {
        let takes_more = self.containers.get(&number).is_some_and(Container::takes_processes);
        if takes_more && self.newcomer(number).is_none() {
            // Whoever asks next is told why there is none.
            let _ = self.summon(number);
        }
    }

    /// Asks the entrance for a process that enters this container.
    fn summon(&mut self, number: u32) -> Result<Key> {
        if self.entrance.is_none() {
            self.watch_for_strays()?;
            let entrance = Entrance::start(&self.program)?;
            self.events.listen(entrance.channel(), Token::Entrance)?;
            self.events.watch(entrance.pidfd(), Token::EntranceEnd, EventFlags::IN)?;
            self.entrance = Some(entrance);
        }
        let (Some(entrance), Some(container)) = (&mut self.entrance, self.containers.get_mut(&number)) else {
            return Err(lost());
        };
        let signals = signals(&container.plan);
        let member = container.take_in(Member::new(None, Phase::Summoned { then: Then::Stand }, signals));
        let key = Key { container: number, member };
        if let Err(error) = entrance.ask(key) {
            container.entered.remove(&member);
            return Err(error);
        }
        Ok(key)
    }

    /// Takes what the entrance has answered.
    pub(super) fn entrance_says(&mut self) {
        let Some(entrance) = &mut self.entrance else { return };
        match entrance.answer() {
            EntranceAnswer::Made(key, child, channel) => self.intermediate_is_there(key, child, channel),
            EntranceAnswer::Failed(key, error) => self.is_unmade(key, error),
            EntranceAnswer::Late => {}
            EntranceAnswer::Gone => self.entrance_ended(),
        }
    }

    /// The entrance has ended: whoever waits for a process of its is told, and the next request starts another.
    pub(super) fn entrance_ended(&mut self) {
        let Some(entrance) = self.entrance.take() else { return };
        self.events.stop_listening(entrance.channel());
        self.events.unwatch(entrance.pidfd());
        for key in entrance.end() {
            self.is_unmade(key, lost());
        }
    }

    fn is_unmade(&mut self, key: Key, error: Error) {
        if let Some(member) = self.member_mut(key) {
            member.phase.unmade(error);
        }
        self.finish_member(key);
        self.finish_if_over(key.container);
    }

    /// An intermediate process waits to be told which container it is for.
    fn intermediate_is_there(&mut self, key: Key, child: Child, channel: Channel) {
        let Ok(child) = self.watch_end(key, EventSource::IntermediateEnd, child) else {
            return self.is_unmade(key, lost());
        };
        let Some(container) = self.containers.get_mut(&key.container) else { return child.end_now() };
        let first = container.first.phase.own_child().map(|child| child.pidfd.try_clone());
        let destination = Destination::of(&container.plan, self.resolver.host().privileged);
        let Some(member) = container.entered.get_mut(&key.member) else { return child.end_now() };
        match member.phase.made(child, channel) {
            Ok(Next::End) => return member.kill(),
            Ok(_) => {}
            Err(error) => return member.end(Cause::Failed(error)),
        }
        let (Some(channel), Some(Ok(first))) = (member.phase.channel(), first) else {
            return member.end(Cause::Failed(has_ended()));
        };
        let begun = channel
            .send_any_size(&ToChild::Enter(Box::new(destination)), &[first.as_fd()])
            .and_then(|()| self.events.listen(channel, Token::Container(key, EventSource::Channel)));
        if let Err(error) = begun {
            member.end(Cause::Failed(error));
        }
    }

    /// A process that enters is in the container, and about to execute its command. With the first process of a PID
    /// namespace of its own the kernel ends it in any case; elsewhere it has an init, which is asked to end.
    pub(super) fn newcomer_is_there(&mut self, key: Key) {
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

    /// A process that waited for a request ended by itself. One that could not enter is not followed by another until
    /// somebody asks, who is then told why.
    pub(super) fn newcomer_is_lost(&mut self, number: u32, outcome: &Outcome) {
        if !matches!(outcome, Outcome::Failed(_)) {
            self.keep_newcomer(number);
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
