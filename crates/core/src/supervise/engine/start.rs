//! How a container comes about: its process, its id maps, its network.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

use nsrs_base::error::{Act, At, During, Result};
use nsrs_store::writable_layer::WritableLayer;
use rustix::event::epoll::EventFlags;
use rustix::process::{Pid, PidfdFlags, getpid, pidfd_open};

use super::token::{EventSource, Key, Token};
use super::{Engine, RunRequest};
use crate::diff::changes_directory::ChangesDirectory;
use crate::net::kinds::{Attachment, ProgramTarget};
use crate::plan::Plan;
use crate::plan::image::Upper;
use crate::plan::namespace::Kind;
use crate::plan::root::Root;
use crate::state::journal::{JournalEntry, Termination};
use crate::steps::channel::{Channel, ToChild};
use crate::steps::etc::Files;
use crate::steps::intermediate;
use crate::steps::{Inputs, Waiting};
use crate::supervise::container::child::Child;
use crate::supervise::container::launch::{self, Launched};
use crate::supervise::container::member::{Member, RequestOrigin};
use crate::supervise::container::phase::{Cause, InitRole, Next, Phase, Then};
use crate::supervise::container::{Container, Holdings};
use crate::supervise::name_files;
use crate::supervise::protocol::Report;
use crate::supervise::resolve::Resolved;
use crate::supervise::user_network::UserNetwork;

/// What the first process of a container is given.
#[derive(Default)]
pub(super) struct Handed {
    /// Standard input, output and error; `None` hands on the supervisor's own.
    pub stdio: Option<[OwnedFd; 3]>,
    /// Descriptors for the plan's `preserve_fds`.
    pub fds: Vec<OwnedFd>,
}

impl Engine {
    /// Makes the container that was asked for.
    pub(super) fn launch(&mut self, request: RunRequest<'_>, resolved: Resolved, since: Instant) -> Result<()> {
        let RunRequest { address, stdio, fds, announce, .. } = request;
        if resolved.plan.sandbox.network.kind().wants_address() {
            self.free_addresses();
        }
        let timeout_ms = resolved.plan.process.timeout_ms;
        let request = RequestOrigin { address, announce, since, timeout_ms };
        self.make(Some(request), Handed { stdio, fds }, resolved).map(drop)
    }

    /// Makes a container, and returns our number for it; without a request, a prewarmed one.
    pub(super) fn make(
        &mut self,
        request: Option<RequestOrigin>,
        handed: Handed,
        Resolved { plan, leases }: Resolved,
    ) -> Result<u32> {
        let state = self.run_directory()?.path.clone();
        let attachment = plan.sandbox.network.kind().reserve(&mut self.network, &state).during(Act::Network)?;
        let name_files = name_files::text(&plan.sandbox, &attachment.addresses).during(Act::Files)?;
        let upper = plan.sandbox.changes.as_ref().and_then(|changes| changes.upper.as_deref());
        let kept = upper.map(|path| ChangesDirectory::prepare(path, &plan.sandbox)).transpose().during(Act::Changes)?;
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        // Kept ones have their directory.
        let writable = if kept.is_some() { None } else { self.make_writable(&plan, number).during(Act::Changes)? };
        let (ours, theirs) = Channel::pair()?;
        let is_asked = request.is_some();
        if !plan.sandbox.namespaces.makes(Kind::Pid) || intermediate::is_needed(&plan.sandbox) {
            self.watch_for_strays()?;
        }
        let waiting = if is_asked { Waiting::Never } else { Waiting::ForProcess };
        let inputs = self.inputs(handed, (&attachment, &name_files), writable.as_ref(), kept.as_ref(), theirs)?;
        let launched =
            launch::start(&plan, self.resolver.host(), inputs, ours, waiting).and_then(|(launched, ours)| {
                let watched = launched.try_map(|is_intermediate, child| {
                    let source = if is_intermediate { EventSource::IntermediateEnd } else { EventSource::End };
                    self.watch_end(Key::first(number), source, child)
                });
                watched.map(|launched| (launched, ours))
            });
        let (launched, ours) = match launched {
            Ok(launched) => launched,
            Err(error) => {
                self.janitor.take_writable(writable);
                return Err(error);
            }
        };
        let report = Self::report(&plan, &attachment, &launched);
        let holdings = Holdings { leases, writable, attachment, name_files, kept, mounts: None };
        let then = if is_asked { Then::Run } else { Then::Stand };
        let (pid, is_intermediate) = (launched.child().pid, launched.is_intermediate());
        let phase = match launched {
            Launched::Intermediate(child) => Phase::Staging { child, channel: ours.into(), then },
            Launched::First(child) => Phase::Preparing { child, channel: ours.into(), then, init: InitRole::Plain },
        };
        let first = Member::new(request, phase, Container::signals_of_first(&plan));
        let plan = match &mut self.pool {
            Some(pool) => pool.share(plan),
            None => plan,
        };
        let container = Container::new(plan, holdings, report, first);
        self.containers.insert(number, container);
        // From here on the process exists: whatever fails is a failure of the container, which is then ended.
        let key = Key::first(number);
        let begun =
            self.note_new(key).and_then(|()| if is_intermediate { Ok(()) } else { self.set_up(number, pid, true) });
        if let Err(error) = begun {
            self.give_up(key, error);
        }
        Ok(number)
    }

    fn inputs(
        &self,
        Handed { stdio, fds }: Handed,
        (attachment, name_files): (&Attachment, &Files),
        writable: Option<&WritableLayer>,
        kept: Option<&ChangesDirectory>,
        channel: Channel,
    ) -> Result<Inputs> {
        let hold =
            |kept: &ChangesDirectory| kept.directory.try_clone().at("hold the directory for changes", &kept.path);
        Ok(Inputs {
            stdio,
            fds,
            program: self.program.try_clone().at("hold the executable", "")?,
            channel,
            supervisor: pidfd_open(getpid(), PidfdFlags::empty()).at("hold the supervisor", "")?,
            addresses: attachment.addresses.clone(),
            files: name_files.clone(),
            filtered: self.resolver.host().privileged,
            mapped: false,
            disk: writable.map(|writable| writable.path.clone()),
            kept: kept.map(hold).transpose().during(Act::Changes)?,
        })
    }

    fn report(plan: &Plan, attachment: &Attachment, launched: &Launched) -> Report {
        let pid = if launched.is_intermediate() { 0 } else { launched.child().pid.as_raw_nonzero().get() };
        Report {
            pid,
            network: plan.sandbox.network.kind().name().into(),
            addresses: attachment
                .addresses
                .iter()
                .map(|address| format!("{}/{}", address.address, address.length))
                .collect(),
            ports: attachment.ports.clone(),
            notes: attachment.notes.clone(),
            fallbacks: Vec::new(),
        }
    }

    /// The directory for what a container changes of its image.
    fn make_writable(&mut self, plan: &Plan, number: u32) -> Result<Option<WritableLayer>> {
        let Root::Image(image) = &plan.sandbox.root else { return Ok(None) };
        if image.upper == Upper::Memory {
            return Ok(None);
        }
        let id = format!("{}-{number}", self.run_directory()?.journal.name());
        WritableLayer::create(Path::new(&image.store), &id).map(Some)
    }

    /// Watches a new process for its end, before anything else is done about it: whatever fails from here on kills it, and
    /// whoever waits for the container is told when it has ended. One that can't be watched is ended here.
    pub(super) fn watch_end(&self, key: Key, source: EventSource, child: Child) -> Result<Child> {
        match self.events.watch(&child.pidfd, Token::Container(key, source), EventFlags::IN) {
            Ok(()) => Ok(child),
            Err(error) => {
                child.end_now();
                Err(error)
            }
        }
    }

    /// Watches the channel of a new process, where it is to be heard while it works, and writes the process into the
    /// journal.
    pub(super) fn note_new(&mut self, key: Key) -> Result<()> {
        let Some(container) = self.containers.get(&key.container) else { return Ok(()) };
        let Some(member) = container.member(key.member) else { return Ok(()) };
        let needs_channel_watch = key.member != 0 || container.needs_channel_watch();
        // The channel of an intermediate process, which is watched already, goes on to the process that it makes.
        if let (Some(channel), true, None) = (member.phase.channel(), needs_channel_watch, &member.intermediate) {
            self.events.listen(channel, Token::Container(key, EventSource::Channel))?;
        }
        let is_shared = container.plan.sandbox.init && !container.plan.sandbox.namespaces.makes(Kind::Pid);
        let how = if is_shared && member.phase.own_child().is_some() { Termination::Ask } else { Termination::Kill };
        let Some(pid) = member.phase.child().map(|child| child.pid) else { return Ok(()) };
        let slot = self.run_directory()?.journal.note(JournalEntry::process(pid, how))?;
        let member = self.containers.get_mut(&key.container).and_then(|container| container.member_mut(key.member));
        if let Some(child) = member.and_then(|member| member.phase.child_mut()) {
            child.slot = Some(slot);
        }
        Ok(())
    }

    /// The host's part in the set-up of a container that exists: its id maps, its cable.
    pub(super) fn set_up(&mut self, number: u32, pid: Pid, map: bool) -> Result<()> {
        let state = self.run_directory()?.path.clone();
        let Some(container) = self.containers.get_mut(&number) else { return Ok(()) };
        let plan = Rc::clone(&container.plan);
        if let (Some(writable), true) = (&mut container.holdings.writable, plan.sandbox.user_namespace.is_private()) {
            writable.hold_user_namespace(pid).during(Act::Changes)?;
        }
        let Some(channel) = container.first.phase.channel() else { return Ok(()) };
        if map {
            launch::map_ids(&plan.sandbox, pid, channel).during(Act::IdMaps)?;
        }
        let kind = plan.sandbox.network.kind();
        let number = pid.as_raw_nonzero().get();
        if kind.up(&mut self.network, &container.holdings.attachment, number, &state).during(Act::Network)? {
            // A process that is gone by now says why on its own channel.
            let _ = channel.send(&ToChild::Connected, &[]);
        }
        Ok(())
    }

    /// An intermediate process has made the process that it was for.
    pub(super) fn process_made(&mut self, key: Key, pid: Pid, pidfd: OwnedFd) {
        let child = match self.watch_end(key, EventSource::End, Child::new(pid, pidfd)) {
            Ok(child) => child,
            Err(error) => return self.give_up(key, error),
        };
        let Some(container) = self.containers.get_mut(&key.container) else { return };
        let Some(member) = container.member_mut(key.member) else { return };
        let (next, intermediate) = match member.phase.process_made(child) {
            Ok(made) => made,
            Err(error) => return self.give_up(key, error),
        };
        member.intermediate = intermediate;
        if matches!(next, Next::End) {
            // It was reported just after it was told to end.
            return member.kill();
        }
        if key.member != 0 {
            return self.note_entered(key);
        }
        if let Some(channel) = member.phase.channel() {
            // If it is gone already, its end tells.
            let _ = channel.send(&ToChild::Known, &[]);
        }
        // With clock offsets the intermediate process made the user namespace, and had it mapped.
        let map = container.plan.sandbox.namespaces.clock.is_none();
        let begun = self.note_new(key).and_then(|()| self.set_up(key.container, pid, map));
        if let Err(error) = begun {
            self.give_up(key, error);
        }
    }

    /// Starts the program that connects a container.
    pub(super) fn start_user_network(&mut self, number: u32) -> Result<()> {
        let Some(container) = self.containers.get_mut(&number) else { return Ok(()) };
        let (Some(first), Some(run)) = (container.first.phase.own_child(), &mut self.run) else { return Ok(()) };
        let sandbox = &container.plan.sandbox;
        let has_user_namespace = sandbox.user_namespace.is_private();
        let started = UserNetwork::start(first.pid, &mut run.journal, |pid, ready| {
            let target = ProgramTarget { pid, has_user_namespace, ready };
            sandbox.network.kind().program(&mut self.network, &target)
        })?;
        let Some((mut network, ports)) = started else { return Ok(()) };
        container.report.ports = ports;
        let key = Key::first(number);
        let watch = |fd: &OwnedFd, source| self.events.watch(fd, Token::Container(key, source), EventFlags::IN);
        let watched = watch(&network.process.pidfd, EventSource::NetworkEnd)
            .and_then(|()| watch(&network.ready, EventSource::NetworkReady));
        if let Err(error) = watched {
            self.events.unwatch(&network.process.pidfd);
            let slot = network.process.slot.take();
            network.process.end_now();
            run.strike(slot);
            return Err(error);
        }
        container.user_network = Some(network);
        Ok(())
    }

    pub(super) fn network_ready(&mut self, number: u32) {
        let Some(container) = self.containers.get_mut(&number) else { return };
        if let (Some(network), Some(channel)) = (&container.user_network, container.first.phase.channel()) {
            self.events.unwatch(&network.ready);
            // A process that is gone has said why, or will.
            let _ = channel.send(&ToChild::Connected, &[]);
        }
    }

    pub(super) fn network_ended(&mut self, number: u32) {
        let Some(container) = self.containers.get_mut(&number) else { return };
        let Some(mut network) = container.user_network.take() else { return };
        self.events.unwatch(&network.process.pidfd);
        self.events.unwatch(&network.ready);
        if let Some(run) = &mut self.run {
            run.strike(network.process.slot.take());
        }
        let error = network.reap();
        // After the command runs, it is the command's to find out that its network is gone.
        if matches!(container.first.phase, Phase::Preparing { .. } | Phase::Standing { .. }) {
            self.give_up(Key::first(number), error.during(Act::Network));
        }
    }

    /// Notes why a process can't be, and ends what there is of it.
    pub(super) fn give_up(&mut self, key: Key, error: nsrs_base::error::Error) {
        // What the process itself has to say comes first: our error may only be that it is gone.
        self.drain(key);
        let error = error.during(Act::Supervisor);
        let Some(container) = self.containers.get_mut(&key.container) else { return };
        match container.entered.get_mut(&key.member) {
            Some(member) => member.end(Cause::Failed(error)),
            None => container.end(Cause::Failed(error)),
        }
    }
}
