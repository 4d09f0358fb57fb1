//! Prewarmed containers in the engine's hands: found for a request, handed over, prepared, ended.

use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Instant;

use nsrs_base::sys::message::MOST_FDS;
use rustix::event::epoll::EventFlags;

use super::start::Handed;
use super::token::{Key, Token};
use super::{Engine, RunRequest};
use crate::net::kinds::Attachment;
use crate::plan::Plan;
use crate::plan::root::Root;
use crate::steps::channel::ToChild;
use crate::supervise::container::member::RequestOrigin;
use crate::supervise::container::phase::{Cause, Command, Next, Phase};
use crate::supervise::container::{Container, Holdings};
use crate::supervise::images::Leases;
use crate::supervise::name_files;
use crate::supervise::pool::footing::{self, Footing, are_mounted, mount_table_of, places};
use crate::supervise::pool::{self, ImageNames, Pool, Prewarmed};
use crate::supervise::resolve::Resolved;
use nsrs_base::error::Result;
use nsrs_base::host::mountinfo;

/// A command whose prewarmed container failed before it could take it.
pub(super) struct Unserved {
    pub request: RequestOrigin,
    pub command: Command,
    pub leases: Leases,
}

impl Engine {
    /// Prewarms containers from now on: this engine serves more than one request.
    ///
    /// # Errors
    /// /proc can't be read.
    pub fn keep_pool(&mut self) -> Result<()> {
        let pool = Pool::open()?;
        self.events.watch(pool.mounts(), Token::Mounts, EventFlags::PRI | EventFlags::ET)?;
        self.pool = Some(pool);
        Ok(())
    }

    /// Takes the prewarmed container that serves a request, if there is one, and returns our number for it.
    pub(super) fn find_prewarmed(&mut self, request: &RunRequest<'_>, resolved: &Resolved) -> Option<u32> {
        let plan = &resolved.plan;
        let pool = self.pool.as_mut().filter(|_| pool::possible(plan))?;
        if let Root::Image(image) = &plan.sandbox.root
            && !pool.watches_images()
        {
            let names = ImageNames::watch(&image.store)?;
            self.events.watch(&names, Token::Images, EventFlags::IN).ok()?;
            pool.keep_watch(names);
        }
        if pool.mounts_changed() {
            self.mounts_changed();
        }
        if !plan.sandbox.network.kind().still_stands(&mut self.network) {
            let all = self.pool.as_mut().map(Pool::take_all).unwrap_or_default();
            self.discard(all);
        }
        let pool = self.pool.as_mut()?;
        let found = pool.take(plan);
        let forgotten = pool.note(resolved);
        self.discard(forgotten);
        let prewarmed = found?;
        let fits = request.stdio.as_ref().is_some_and(|stdio| stdio.len() + request.fds.len() <= MOST_FDS);
        if fits && self.serves(&prewarmed, plan) {
            return Some(prewarmed.key);
        }
        self.discard(vec![prewarmed.key]);
        None
    }

    /// Is this container what would be made now?
    fn serves(&self, prewarmed: &Prewarmed, plan: &Plan) -> bool {
        let Some(container) = self.containers.get(&prewarmed.key) else { return false };
        let Some(first) = alive(container) else { return false };
        // Of one that is still being prepared it is looked at when it stands.
        let mounts = prewarmed.mounts.is_none() || prewarmed.mounts == mount_table_of(first);
        let Holdings { attachment, name_files, .. } = &container.holdings;
        mounts
            && prewarmed.footing.files == footing::files(plan)
            && name_files::text(&plan.sandbox, &attachment.addresses).is_ok_and(|files| files == *name_files)
    }

    /// The prewarmed container is the one that was asked for from now on.
    pub(super) fn adopt(&mut self, number: u32, request: RunRequest<'_>, plan: Rc<Plan>, since: Instant) {
        let RunRequest { address, stdio, fds, announce, .. } = request;
        let Some(container) = self.containers.get_mut(&number) else { return };
        // Its process is the caller's from here on, and whoever enters is as that one is.
        if container.plan.process != plan.process {
            container.plan = Rc::clone(&plan);
        }
        let timeout_ms = plan.process.timeout_ms;
        container.first.request = Some(RequestOrigin { address, announce, since, timeout_ms });
        let Some(stdio) = stdio else { return };
        let key = Key::first(number);
        match container.first.phase.take_command(Box::new(Command { plan, stdio, fds })) {
            Ok(Next::Command(command)) => self.hand_over(key, *command),
            Ok(_) => {}
            // It ended in this very moment.
            Err(command) => {
                let leases = container.holdings.leases.clone();
                let Some(request) = container.first.request.take() else { return };
                self.launch_anew(Unserved { request, command: *command, leases });
            }
        }
    }

    /// Gives a process that stands the command that waits for it.
    pub(super) fn hand_over(&mut self, key: Key, command: Command) {
        let Some(container) = self.containers.get_mut(&key.container) else { return };
        let Some(member) = container.member_mut(key.member) else { return };
        let Phase::Standing { channel, .. } = &member.phase else { return };
        let Command { plan, stdio, fds } = &command;
        // With a terminal of its own a process takes no streams.
        let stdio = if plan.process.tty.is_none() { &stdio[..] } else { &[] };
        let fds: Vec<_> = stdio.iter().chain(fds).map(AsFd::as_fd).collect();
        let message = ToChild::Process(Box::new(plan.process.clone()));
        // One that enters takes a command of any size; a container that can't take a large one is made anew.
        let channel = channel.current();
        let sent = if key.member == 0 { channel.send(&message, &fds) } else { channel.send_any_size(&message, &fds) };
        if sent.is_err() {
            drop(fds);
            member.phase.refuse(Box::new(command));
            return member.kill();
        }
        if member.phase.commanded().is_err() || key.member != 0 || container.needs_channel_watch() {
            return;
        }
        if let Some(channel) = container.first.phase.channel() {
            self.events.stop_listening(channel);
        }
    }

    /// A process that was awaited stands, and takes its command, if it is still what was asked for.
    pub(super) fn hand_over_if_sound(&mut self, key: Key, command: Box<Command>) {
        if key.member != 0 || self.mounts_of_sound(key.container).is_some() {
            return self.hand_over(key, *command);
        }
        if let Some(member) = self.member_mut(key) {
            member.phase.refuse(command);
            member.kill();
        }
    }

    /// A process stands that nobody has asked for yet.
    pub(super) fn stands(&mut self, key: Key) {
        if key.member != 0 {
            return;
        }
        if !self.pool.as_ref().is_some_and(|pool| pool.has(key.container)) {
            // Given up meanwhile.
            return;
        }
        if let (Some(mounts), Some(pool)) = (self.mounts_of_sound(key.container), &mut self.pool) {
            return pool.stands(key.container, mounts);
        }
        if let Some(member) = self.member_mut(key) {
            member.end(Cause::Wanted);
        }
    }

    /// The mounts of a prewarmed container that stands. If a name that something is mounted on led through a link, it could
    /// lead elsewhere at the request: then there are none, and no container of that kind is prewarmed again.
    fn mounts_of_sound(&mut self, number: u32) -> Option<Vec<u8>> {
        if self.pool.as_ref().is_some_and(Pool::mounts_changed) {
            self.mounts_changed();
        }
        let container = self.containers.get(&number)?;
        let table = alive(container)
            .and_then(mount_table_of)
            .filter(|table| are_mounted(&places(&container.plan, &container.holdings.name_files), table));
        if let (None, Some(pool)) = (&table, &mut self.pool) {
            pool.never(&container.plan, number);
        }
        table
    }

    /// A prewarmed container failed while a request waited for it: makes a new one.
    pub(super) fn launch_anew(&mut self, Unserved { request, command, leases }: Unserved) {
        let Command { plan, stdio, fds } = command;
        if let Some(pool) = &mut self.pool {
            pool.give_up_on(&plan);
        }
        let handed = Handed { stdio: Some(stdio), fds };
        if let Err(error) = self.make(Some(request), handed, Resolved { plan, leases }) {
            self.fail(request.address, error);
        }
    }

    /// Gives back the addresses of prewarmed containers: somebody asks for one by name.
    pub(super) fn free_addresses(&mut self) {
        let Some(pool) = &mut self.pool else { return };
        for key in pool.take_all() {
            if let Some(container) = self.containers.get_mut(&key) {
                container.end(Cause::Wanted);
                container.holdings.attachment = Attachment::default();
            }
        }
    }

    /// Ends the prewarmed containers whose mounts are no longer as they were.
    pub(super) fn mounts_changed(&mut self) {
        let Some(pool) = &mut self.pool else { return };
        let stale = pool.take_stale(mountinfo::read("self").ok().as_deref());
        self.discard(stale);
    }

    /// Ends the prewarmed containers on images: a name has changed.
    pub(super) fn images_changed(&mut self) {
        let Some(pool) = &mut self.pool else { return };
        let (names, stale) = pool.forget_images();
        if let Some(names) = names {
            self.events.unwatch(&names);
        }
        self.discard(stale);
    }

    fn discard(&mut self, keys: Vec<u32>) {
        for key in keys {
            if let Some(container) = self.containers.get_mut(&key) {
                container.end(Cause::Wanted);
            }
        }
    }

    /// When something is to be done about the pool; `None` when nothing is.
    pub(super) fn pool_due(&self) -> Option<Instant> {
        let working = self.containers.values().flat_map(Container::working);
        self.pool.as_ref()?.due(working.map(|request| request.since))
    }

    /// Prepares one container that is missing, and ends those that nobody asks for any more. For a moment without other
    /// events.
    pub(super) fn tend_pool(&mut self) {
        let Some(pool) = &mut self.pool else { return };
        let expired = pool.take_expired(Instant::now());
        let missing = pool.missing();
        self.discard(expired);
        let Some(resolved) = missing else { return };
        let plan = resolved.plan.clone();
        let footing = Footing::of(&plan);
        let made = self.make(None, Handed::default(), resolved).ok();
        if let Some(pool) = &mut self.pool {
            pool.put(&plan, footing, made);
        }
    }
}

/// The first process of a container that nothing has happened to.
fn alive(container: &Container) -> Option<rustix::process::Pid> {
    match &container.first.phase {
        Phase::Preparing { child, .. } | Phase::Standing { child, .. } => Some(child.pid),
        _ => None,
    }
}
