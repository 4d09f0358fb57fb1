//! The containers of one supervisor and the events that move them.
//!
//! Single-threaded: one epoll(7) reports everything that happens. Events for the outside wait in [`Engine::take_events`];
//! this module doesn't know who takes them. The engine keeps the loop and the containers; what has state of its own (the
//! pool, the host's network, images, what is left over) is a member with its own methods.

pub mod enter;
mod event_loop;
mod prewarm;
mod progress;
mod start;
mod strays;
pub mod token;

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use nsrs_base::error::{Act, At, During, Error, Result};
use nsrs_base::sys::seccomp;
use rustix::event::epoll::EventFlags;
use rustix::process::Pid;

use self::event_loop::EventLoop;
use self::strays::Strays;
use self::token::{EventSource, Key, Token};
use super::container::Container;
use super::container::member::Member;
use super::container::phase::Cause;
use super::entrance::Entrance;
use super::janitor::Janitor;
use super::pool::Pool;
use super::protocol::{Event, ProcessAddress};
use super::resolve::Resolver;
use super::run_directory::RunDirectory;
use crate::doctor;
use crate::net::kinds::SharedNetwork;
use crate::spec::Spec;

/// A container that is asked for, with its first process.
pub struct RunRequest<'a> {
    /// The caller's numbers for the container and its first process, which every event names.
    pub address: ProcessAddress,
    /// The caller's options, not resolved yet.
    pub spec: &'a Spec,
    /// Standard input, output and error; `None` hands on the supervisor's own.
    pub stdio: Option<[OwnedFd; 3]>,
    /// Descriptors for the plan's `preserve_fds`.
    pub fds: Vec<OwnedFd>,
    /// Report when the command starts ([`Event::Started`]), and not only when it ends.
    pub announce: bool,
}

/// The containers of one supervisor.
pub struct Engine {
    events: EventLoop,
    resolver: Resolver,
    /// Our own executable in sealed memory.
    program: OwnedFd,
    /// The state directory and the journal, opened with the first container.
    run: Option<RunDirectory>,
    network: SharedNetwork,
    janitor: Janitor,
    strays: Strays,
    /// `None` where this engine serves a single request.
    pool: Option<Pool>,
    /// The process that makes those that enter; started with the first request to enter.
    entrance: Option<Entrance>,
    /// Containers by a number of the engine's own: callers choose theirs freely, and may repeat them.
    containers: HashMap<u32, Container>,
    next: u32,
    pending_events: Vec<(Event, Option<OwnedFd>)>,
}

impl Engine {
    /// An engine without containers.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn new(program: OwnedFd) -> Result<Engine> {
        let resolver = Resolver::probe();
        if resolver.host().privileged {
            // Once, for all containers: a filter is inherited, and nothing here needs what it refuses. Without the right
            // to, each container installs its own: no_new_privs on the supervisor would disarm newuidmap.
            seccomp::install().at("install the system call filter", "")?;
        }
        Ok(Engine {
            events: EventLoop::new()?,
            resolver,
            program,
            run: None,
            network: SharedNetwork::default(),
            janitor: Janitor::default(),
            strays: Strays::default(),
            pool: None,
            entrance: None,
            containers: HashMap::new(),
            next: 1,
            pending_events: Vec::new(),
        })
    }

    /// Watches a descriptor of the front.
    ///
    /// # Errors
    /// Fails as epoll_ctl(2) does.
    pub fn watch(&self, fd: impl AsFd, token: Token, flags: EventFlags) -> Result<()> {
        self.events.watch(fd, token, flags)
    }

    /// Changes what a watched descriptor of the front is watched for.
    ///
    /// # Errors
    /// Fails as epoll_ctl(2) does.
    pub fn rewatch(&self, fd: impl AsFd, token: Token, flags: EventFlags) -> Result<()> {
        self.events.rewatch(fd, token, flags)
    }

    /// Stops watching a descriptor of the front.
    pub fn unwatch(&self, fd: impl AsFd) {
        self.events.unwatch(fd);
    }

    /// Waits for something to happen, handles what is the containers', and returns the numbers of the front's descriptors
    /// that are ready.
    ///
    /// # Errors
    /// Fails as epoll_wait(2) does.
    pub fn wait(&mut self) -> Result<Vec<u32>> {
        self.janitor.reap();
        let quiet = self.pool.as_ref().map_or_else(Instant::now, Pool::quiet);
        let pool_due = self.pool_due();
        let deadlines = self.containers.values().filter_map(Container::deadline);
        let until = deadlines.chain(pool_due).chain(self.janitor.due(quiet)).chain(self.strays.due()).min();
        let ready = self.events.wait(until)?;
        self.enforce_deadlines();
        self.janitor.work(ready.is_empty(), quiet);
        if ready.is_empty() && pool_due.is_some_and(|due| due <= Instant::now()) {
            self.tend_pool();
        }
        // Before a container is handed over on what has changed since.
        if ready.contains(&Token::Mounts) {
            self.mounts_changed();
        }
        if ready.contains(&Token::Images) {
            self.images_changed();
        }
        let mut fronts = Vec::new();
        let mut children_ended = self.strays.due().is_some();
        for token in ready {
            match token {
                Token::Front(number) => fronts.push(number),
                Token::Mounts | Token::Images => {}
                Token::Entrance => self.read_entrance(),
                Token::EntranceEnd => self.entrance_ended(),
                Token::Children => children_ended = true,
                Token::Container(key, source) => self.handle(key, source),
            }
        }
        if children_ended {
            self.reap_strays();
        }
        Ok(fronts)
    }

    /// The events since the last call, oldest first, each with the descriptor that goes with it.
    pub fn take_events(&mut self) -> Vec<(Event, Option<OwnedFd>)> {
        std::mem::take(&mut self.pending_events)
    }

    /// No container is left.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.containers.is_empty()
    }

    /// Starts a container. Success and failure are reported as events.
    pub fn start(&mut self, request: RunRequest<'_>) {
        let (address, since) = (request.address, Instant::now());
        let launched =
            self.resolver.resolve(request.spec).and_then(|resolved| match self.find_prewarmed(&request, &resolved) {
                Some(key) => {
                    self.adopt(key, request, resolved.plan, since);
                    Ok(())
                }
                None => self.launch(request, resolved, since).during(Act::Supervisor).map_err(Vec::from),
            });
        if let Err(errors) = launched {
            self.emit(Event::Failed { address, errors }, None);
        }
    }

    /// Reports that a request failed.
    pub fn fail(&mut self, address: ProcessAddress, error: Error) {
        self.emit(Event::Failed { address, errors: vec![error.during(Act::Supervisor)] }, None);
    }

    fn emit(&mut self, event: Event, fd: Option<OwnedFd>) {
        self.pending_events.push((event, fd));
    }

    /// Examines the host and reports the findings.
    pub fn examine(&mut self, id: u64) {
        // What a killed supervisor left is not a finding. If it can't be collected, the next start says why.
        if self.run.is_none()
            && RunDirectory::path(self.resolver.host()).exists()
            && let Ok(path) = RunDirectory::make(self.resolver.host())
        {
            let _ = self.collect(&path);
        }
        let findings = doctor::examine(self.resolver.host());
        self.emit(Event::Examined { id, findings }, None);
    }

    /// Sends a signal to a process of a container.
    pub fn kill(&mut self, address: ProcessAddress, signal: i32) {
        self.signal(address, |member| member.signal(signal));
    }

    /// Asks a process to end, by the signal that is meant for that; a container that only waits, and all that entered it.
    pub fn stop(&mut self, address: ProcessAddress) {
        let Some(key) = self.find(address) else { return };
        self.drain(key);
        let Some(container) = self.containers.get_mut(&key.container) else { return };
        match container.entered.get_mut(&key.member) {
            Some(member) => member.signal(libc::SIGTERM),
            None => container.stop(),
        }
        self.finish_unmade(key.container);
    }

    /// Sends a signal to a process and all others of its process group.
    pub fn kill_group(&mut self, address: ProcessAddress, signal: i32) {
        self.signal(address, |member| member.signal_group(signal));
    }

    /// A key of a process's terminal that stands for a signal was typed. The terminal gives it to its foreground group;
    /// where that is the one of a PID 1 without a handler, which the kernel keeps it from, it is given in the kernel's
    /// place. Returns whether it was.
    pub fn key(&mut self, address: ProcessAddress, signal: i32, foreground: Option<Pid>) -> bool {
        let mut given = false;
        self.signal(address, |member| given = member.signal_by_key(signal, foreground));
        given
    }

    fn signal(&mut self, address: ProcessAddress, send: impl FnOnce(&mut Member)) {
        let Some(key) = self.find(address) else { return };
        // How a process is ended depends on its state.
        self.drain(key);
        let Some(container) = self.containers.get_mut(&key.container) else { return };
        if let Some(member) = container.member_mut(key.member) {
            send(member);
        }
    }

    /// The process that was requested under these numbers.
    fn find(&self, address: ProcessAddress) -> Option<Key> {
        let asked = |member: &Member| member.request.is_some_and(|request| request.address == address);
        let mut all = self.containers.iter().flat_map(|(container, it)| it.members(*container));
        all.find(|(_, member)| asked(member)).map(|(key, _)| key)
    }

    /// Ends every container, and stops prewarming.
    pub fn kill_all(&mut self) {
        self.pool = None;
        let keys: Vec<u32> = self.containers.keys().copied().collect();
        for key in keys {
            self.end_container(key);
        }
    }

    /// Ends a container. How that is done depends on its state, so the messages it has sent are read first.
    fn end_container(&mut self, container: u32) {
        self.drain(Key::first(container));
        if let Some(container) = self.containers.get_mut(&container) {
            container.end(Cause::Wanted);
        }
    }

    fn enforce_deadlines(&mut self) {
        let now = Instant::now();
        let late = |member: &Member| member.deadline().is_some_and(|deadline| deadline <= now);
        let all = self.containers.iter().flat_map(|(container, it)| it.members(*container));
        let keys: Vec<Key> = all.filter(|(_, member)| late(member)).map(|(key, _)| key).collect();
        for key in keys {
            self.drain(key);
            let Some(container) = self.containers.get_mut(&key.container) else { continue };
            match container.entered.get_mut(&key.member) {
                Some(member) => member.end(Cause::TimeLimit),
                None => container.end(Cause::TimeLimit),
            }
        }
    }

    /// Handles a ready descriptor of a container.
    fn handle(&mut self, key: Key, source: EventSource) {
        match source {
            // What is ready may have been read meanwhile, and another read would wait.
            EventSource::Channel => self.drain(key),
            EventSource::End => self.reap(key),
            EventSource::IntermediateEnd => self.reap_intermediate(key),
            EventSource::NetworkReady => self.network_ready(key.container),
            EventSource::NetworkEnd => self.network_ended(key.container),
            EventSource::Listed => self.listed(key.container),
        }
        self.finish_member(key);
        self.finish_if_over(key.container);
    }

    /// The state directory and the journal; what dead supervisors left is collected on the way.
    fn run_directory(&mut self) -> Result<&mut RunDirectory> {
        if self.run.is_none() {
            let path = RunDirectory::make(self.resolver.host()).during(Act::State)?;
            self.collect(&path).during(Act::State)?;
            self.run = Some(RunDirectory::open(path).during(Act::State)?);
        }
        self.run.as_mut().ok_or_else(|| Error::os("open the state directory", "", libc::ENOENT))
    }

    /// Ends and removes what dead supervisors left. Not beside a journal of our own, whose lock would tell us nothing.
    fn collect(&mut self, path: &Path) -> Result<()> {
        RunDirectory::collect(path, self.resolver.host())?;
        self.janitor.collect(self.resolver.host())
    }

    /// Starts to remove what ended containers have left on the disk.
    pub fn sweep(&mut self) {
        self.janitor.sweep();
    }

    /// Lets go of the mounts of containers that have ended, and with them of the file systems these are of.
    pub fn let_go(&mut self) {
        self.janitor.let_go();
    }

    /// Whether [`Engine::release`] has something of the host's network to remove, which takes a moment.
    #[must_use]
    pub fn holds_network(&self) -> bool {
        self.network.is_used()
    }

    /// Removes what the containers shared of the host's network, once the last of them is gone.
    ///
    /// # Errors
    /// The kernel refuses to remove the bridge.
    pub fn release(&mut self) -> Result<()> {
        self.network.release()
    }
}
