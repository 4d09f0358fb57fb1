//! How a container comes about: its process, its id maps, its network.

use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::event::epoll;
use rustix::process::Pid;

use super::container::{Container, Process};
use super::engine::{Engine, Order, Resolved};
use super::launch::{self, Files, Launched};
use super::name_files;
use super::protocol::Report;
use super::token::{Source, Token};
use super::user_network::UserNetwork;
use crate::diff::changes_directory::ChangesDirectory;
use crate::net::kinds::ProgramTarget;
use crate::plan::namespace::Kind;
use crate::state::journal::{JournalEntry, Termination};
use crate::steps::channel::ToChild;
use nsrs_base::error::{At, Result};

impl Engine {
    /// Makes the container that was asked for.
    pub(super) fn launch(&mut self, order: Order<'_>, resolved: Resolved, since: Instant) -> Result<()> {
        let Order { id, stdio, fds, announce, .. } = order;
        if resolved.plan.sandbox.network.kind().wants_address() {
            self.free_addresses();
        }
        self.make(Some(id), stdio, fds, announce, resolved, since).map(drop)
    }

    /// Makes a container that nobody has asked for yet, and returns our number for it.
    pub(super) fn launch_ahead(&mut self, resolved: Resolved) -> Result<u64> {
        self.make(None, None, Vec::new(), false, resolved, Instant::now())
    }

    /// Makes a container; without a number of the caller's, ahead of its command.
    pub(super) fn make(
        &mut self,
        id: Option<u64>,
        stdio: Option<[OwnedFd; 3]>,
        fds: Vec<OwnedFd>,
        announce: bool,
        Resolved { plan, leases }: Resolved,
        since: Instant,
    ) -> Result<u64> {
        let state = self.ground()?.state.clone();
        let attachment = plan.sandbox.network.kind().reserve(&mut self.network, &state)?;
        let name_files = name_files::text(&plan.sandbox, &attachment.addresses)?;
        let upper = plan.sandbox.changes.as_ref().and_then(|changes| changes.upper.as_deref());
        let kept = upper.map(|path| ChangesDirectory::prepare(path, &plan.sandbox)).transpose()?;
        let hold =
            |kept: &ChangesDirectory| kept.directory.try_clone().at("hold the directory for changes", &kept.path);
        let held = kept.as_ref().map(hold).transpose()?;
        let program = self.program.try_clone().at("hold the executable", "")?;
        let (addresses, etc) = (attachment.addresses.clone(), name_files.clone());
        let key = self.next;
        self.next += 1;
        // Kept ones have their directory.
        let changes = if kept.is_some() { None } else { self.make_changes(&plan.sandbox.root, key)? };
        let disk = changes.as_ref().map(|changes| changes.path.clone());
        let files = Files { stdio, fds, program, addresses, etc, disk, kept: held };
        let launched = launch::start(&plan, &self.host, files, id.is_none()).and_then(|launched| {
            let source = if launched.is_stage { Source::Stage } else { Source::First };
            let process = self.watch_end(key, source, launched.process)?;
            Ok(Launched { process, ..launched })
        });
        let launched = match launched {
            Ok(launched) => launched,
            Err(error) => {
                self.thrown.extend(changes);
                return Err(error);
            }
        };
        let pid = launched.process.pid;
        let is_stage = launched.is_stage;
        let (stage, first) = if is_stage { (Some(launched.process), None) } else { (None, Some(launched.process)) };
        let report = Report {
            pid: if is_stage { 0 } else { pid.as_raw_nonzero().get() },
            network: plan.sandbox.network.kind().name().into(),
            addresses: attachment
                .addresses
                .iter()
                .map(|address| format!("{}/{}", address.address, address.length))
                .collect(),
            ports: attachment.ports.clone(),
            notes: attachment.notes.clone(),
            fallbacks: Vec::new(),
        };
        let timeout_ms = plan.process.timeout_ms;
        // One plan for all of a kind: memory that lives as long as containers lie in it is copied with each new process.
        let of_kind = self.spares.as_mut().and_then(|spares| spares.plan_of_kind(&plan));
        let container = Container {
            id,
            plan: of_kind.unwrap_or(plan),
            timeout_ms,
            stage,
            first,
            leases,
            changes,
            attachment,
            name_files,
            user_network: None,
            channel: Some(launched.channel),
            announce,
            init_in_charge: false,
            stands: false,
            waiting: None,
            mounts: None,
            layers: None,
            kept,
            looked_through: false,
            collector: None,
            listing: None,
            running: false,
            failure: None,
            ended: None,
            killed_for: None,
            is_going: false,
            timed_out: false,
            since,
            report,
            exit: None,
        };
        self.containers.insert(key, container);
        // From here on the process exists: whatever fails is a failure of the container, which is then ended.
        let source = if is_stage { Source::Stage } else { Source::First };
        let noted = self.note_new(key, source, pid);
        let begun = noted.and_then(|()| if is_stage { Ok(()) } else { self.begin(key, pid, true) });
        if let Err(error) = begun {
            self.give_up(key, error);
        }
        Ok(key)
    }

    /// Watches a new process for its end, before anything else is done about it: whatever fails from here on kills it, and
    /// whoever waits for the container is told when it has ended. One that can't be watched is ended here.
    fn watch_end(&self, key: u64, source: Source, process: Process) -> Result<Process> {
        let token = Token::Container(key, source).data();
        match epoll::add(&self.epoll, &process.pidfd, token, epoll::EventFlags::IN) {
            Ok(()) => Ok(process),
            Err(errno) => {
                process.end_now();
                Err(errno).at("watch the container", "")
            }
        }
    }

    /// Watches the channel of a container's new process and writes that process into the journal.
    fn note_new(&mut self, key: u64, source: Source, pid: Pid) -> Result<()> {
        let Some(container) = self.containers.get(&key) else { return Ok(()) };
        // The channel of a stage goes on to the container it makes.
        if let Some(channel) = &container.channel
            && container.is_heard()
            && (source == Source::Stage || container.stage.is_none())
        {
            let token = Token::Container(key, Source::Channel).data();
            epoll::add(&self.epoll, channel, token, epoll::EventFlags::IN).at("watch the container", "")?;
        }
        let shared = source == Source::First
            && container.plan.sandbox.init
            && !container.plan.sandbox.namespaces.makes(Kind::Pid);
        let termination = if shared { Termination::Ask } else { Termination::Kill };
        let slot = self.ground()?.journal.note(JournalEntry::process(pid, termination))?;
        let Some(container) = self.containers.get_mut(&key) else { return Ok(()) };
        let process = if source == Source::Stage { &mut container.stage } else { &mut container.first };
        if let Some(process) = process {
            process.slot = Some(slot);
        }
        Ok(())
    }

    /// The host's part in the set-up of a container that exists: its id maps, its cable.
    pub(super) fn begin(&mut self, key: u64, pid: Pid, map: bool) -> Result<()> {
        let state = self.ground()?.state.clone();
        let Some(container) = self.containers.get_mut(&key) else { return Ok(()) };
        if let (Some(changes), true) = (&mut container.changes, container.plan.sandbox.user_namespace.is_private()) {
            changes.belong_to(pid)?;
        }
        let Some(channel) = &container.channel else { return Ok(()) };
        if map {
            launch::map_ids(&container.plan.sandbox, pid, channel)?;
        }
        let (kind, pid) = (container.plan.sandbox.network.kind(), pid.as_raw_nonzero().get());
        if kind.up(&mut self.network, &container.attachment, pid, &state)? {
            // A process that is gone by now says why on its own channel.
            let _ = channel.send(&ToChild::Connected, &[]);
        }
        Ok(())
    }

    /// The stage has made the container's first process.
    pub(super) fn born(&mut self, key: u64, pid: Pid, pidfd: OwnedFd) {
        let process = match self.watch_end(key, Source::First, Process { pid, pidfd, slot: None }) {
            Ok(process) => process,
            Err(error) => return self.give_up(key, error),
        };
        let Some(container) = self.containers.get_mut(&key) else { return };
        container.first = Some(process);
        if container.is_going {
            // The stage told of it in the very moment in which it was ended.
            return container.take_down();
        }
        if let Some(channel) = &container.channel {
            // If it is gone already, its end tells.
            let _ = channel.send(&ToChild::Known, &[]);
        }
        // With clock offsets the stage made the user namespace, and had it mapped.
        let map = container.plan.sandbox.namespaces.clock.is_none();
        let begun = self.note_new(key, Source::First, pid).and_then(|()| self.begin(key, pid, map));
        if let Err(error) = begun {
            self.give_up(key, error);
        }
    }

    /// Starts the program that connects a container.
    pub(super) fn start_user_network(&mut self, key: u64) -> Result<()> {
        let Some(container) = self.containers.get_mut(&key) else { return Ok(()) };
        let (Some(first), Some(ground)) = (&container.first, &mut self.ground) else { return Ok(()) };
        let sandbox = &container.plan.sandbox;
        let has_user_namespace = sandbox.user_namespace.is_private();
        let started = UserNetwork::start(first.pid, &mut ground.journal, |pid, ready| {
            let target = ProgramTarget { pid, has_user_namespace, ready };
            sandbox.network.kind().program(&mut self.network, &target)
        })?;
        let Some((mut network, ports)) = started else { return Ok(()) };
        container.report.ports = ports;
        let watch = |fd: &OwnedFd, source| {
            epoll::add(&self.epoll, fd, Token::Container(key, source).data(), epoll::EventFlags::IN)
        };
        let watched = watch(&network.process.pidfd, Source::NetworkEnded)
            .and_then(|()| watch(&network.ready, Source::NetworkReady));
        if let Err(errno) = watched {
            self.unwatch(&network.process.pidfd);
            let slot = network.process.slot.take();
            network.process.end_now();
            self.strike(slot);
            return Err(errno).at("watch the network's program", "");
        }
        container.user_network = Some(network);
        Ok(())
    }

    pub(super) fn network_ready(&mut self, key: u64) {
        let Some(container) = self.containers.get_mut(&key) else { return };
        if let (Some(network), Some(channel)) = (&container.user_network, &container.channel) {
            let _ = epoll::delete(&self.epoll, &network.ready);
            // A process that is gone has said why, or will.
            let _ = channel.send(&ToChild::Connected, &[]);
        }
    }

    pub(super) fn network_ended(&mut self, key: u64) {
        let Some(container) = self.containers.get_mut(&key) else { return };
        let Some(mut network) = container.user_network.take() else { return };
        self.unwatch(&network.process.pidfd);
        self.unwatch(&network.ready);
        self.strike(network.process.slot.take());
        let error = network.reap();
        let Some(container) = self.containers.get(&key) else { return };
        if container.first.is_some() && !container.running {
            self.give_up(key, error);
        }
    }
}
