//! What a container tells on its way, and how it ends.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll;
use rustix::process::Pid;

use super::container::Container;
use super::engine::Engine;
use super::launch;
use super::protocol::{Event, Exit};
use super::token::{Source, Token};
use crate::diff::collect::{Collected, Collector, ContainerLayers};
use crate::steps::channel::{FromChild, ToChild};
use nsrs_base::error::{At, Code, Error};
use nsrs_base::sys::wait::{Status, Usage, reap};

impl Engine {
    /// Reads one message of a container's first process.
    pub(super) fn hear(&mut self, key: u64) {
        let Some(container) = self.containers.get_mut(&key) else { return };
        let Some(channel) = &container.channel else { return };
        match channel.receive::<FromChild>() {
            Ok(Some((message, fds))) => self.heard(key, message, fds),
            Ok(None) => {
                let _ = epoll::delete(&self.epoll, channel);
                container.channel = None;
                // With an init the end of the channel is the init's own end.
                if container.failure.is_none() && !container.plan.sandbox.init {
                    self.started(key);
                }
            }
            Err(error) => {
                let _ = epoll::delete(&self.epoll, channel);
                container.channel = None;
                self.give_up(key, error);
            }
        }
    }

    pub(super) fn heard(&mut self, key: u64, message: FromChild, mut fds: Vec<OwnedFd>) {
        let Some(container) = self.containers.get_mut(&key) else { return };
        // From its start on the command may get at the init's end of the channel, where it has the right to trace it: of
        // what comes then only the end is believed, and nobody is taken for a container's first process twice.
        let believed = match message {
            FromChild::Ended(_) => true,
            FromChild::Born(_) => !container.running && container.first.is_none(),
            _ => !container.running,
        };
        if !believed {
            return;
        }
        match message {
            FromChild::Failed(error) => container.failure = container.failure.take().or(Some(error)),
            FromChild::Note(note) => container.report.fallbacks.push(note),
            FromChild::Terminal => {
                if let Some(id) = container.id {
                    self.events.push((Event::Terminal { id }, fds.pop()));
                }
            }
            FromChild::Ready => {
                container.mounts = fds.pop();
                self.spare_stands(key);
            }
            FromChild::InCharge => {
                container.init_in_charge = true;
                if let Some(channel) = &container.channel {
                    // If it is gone already, its end tells.
                    let _ = channel.send(&ToChild::Start, &[]);
                }
            }
            FromChild::Layers => {
                let mut fds = fds.into_iter();
                if let (Some(directory), Some(record)) = (fds.next(), fds.next()) {
                    container.layers = Some(ContainerLayers { directory, record, user_namespace: fds.next() });
                }
                if let Some(kept) = &container.kept
                    && let Err(error) = kept.commit_draft()
                {
                    self.give_up(key, error);
                }
            }
            FromChild::Executed => self.started(key),
            FromChild::Ended(status) => container.ended = Some(Status::from_raw(status)),
            FromChild::NeedNetwork => {
                if let Err(error) = self.start_user_network(key) {
                    self.give_up(key, error);
                }
            }
            FromChild::NeedMaps => {
                let stage = container.stage.as_ref().map(|stage| stage.pid);
                if let (Some(pid), Some(channel)) = (stage, &container.channel)
                    && let Err(error) = launch::map_ids(&container.plan.sandbox, pid, channel)
                {
                    self.give_up(key, error);
                }
            }
            FromChild::Born(pid) => match (Pid::from_raw(pid), fds.pop()) {
                (Some(pid), Some(pidfd)) => self.born(key, pid, pidfd),
                _ => self.give_up(
                    key,
                    Error::new(Code::SetupFailed, "take over the container", "it came without a process"),
                ),
            },
        }
    }

    pub(super) fn started(&mut self, key: u64) {
        let Some(container) = self.containers.get_mut(&key) else { return };
        let Some(first) = &container.first else { return };
        container.running = true;
        container.report.pid = first.pid.as_raw_nonzero().get();
        if let (true, Some(id)) = (container.announce, container.id) {
            self.events.push((Event::Started { id, report: container.report.clone() }, None));
        }
    }

    /// Notes why a container can't be, and ends what there is of it.
    pub(super) fn give_up(&mut self, key: u64, error: Error) {
        // What the process itself has to say comes first: our error may only be that it is gone.
        self.drain(key);
        if let Some(container) = self.containers.get_mut(&key) {
            container.failure = container.failure.take().or(Some(error));
            container.take_down();
        }
    }

    pub(super) fn reap_stage(&mut self, key: u64) {
        // What it said last counts before its end.
        self.drain(key);
        let Some(container) = self.containers.get_mut(&key) else { return };
        let Some(stage) = container.stage.take() else { return };
        let ended = match reap(stage.pid) {
            Ok(None) => {
                container.stage = Some(stage);
                return;
            }
            ended => ended.ok().flatten(),
        };
        match ended {
            // It made the container, which may have ended before it did.
            _ if container.first.is_some() || container.exit.is_some() || container.failure.is_some() => {}
            // Ended on request, as the command would have been.
            Some((status @ Status::Signaled(_), usage)) => container.exit = Some(exit(container, status, usage)),
            _ => {
                container.failure =
                    Some(Error::new(Code::SetupFailed, "make the container", "its stage ended without a word"));
            }
        }
        self.unwatch(&stage.pidfd);
        self.strike(stage.slot);
    }

    pub(super) fn reap_first(&mut self, key: u64) {
        self.drain(key);
        let Some(container) = self.containers.get_mut(&key) else { return };
        let Some(first) = container.first.take() else { return };
        let (status, usage) = match reap(first.pid) {
            Ok(Some(end)) => end,
            Ok(None) => {
                container.first = Some(first);
                return;
            }
            Err(_) => (Status::Signaled(libc::SIGKILL), Usage::default()),
        };
        let by_us = container.killed_for.filter(|_| status == Status::Signaled(libc::SIGKILL));
        let status = container.ended.or(by_us.map(Status::Signaled)).unwrap_or(status);
        container.exit = Some(exit(container, status, usage));
        if let Some(network) = &mut container.user_network {
            network.end();
        }
        let kind = container.plan.sandbox.network.kind();
        if let Err(error) = kind.down(&mut self.network, &container.attachment) {
            container.report.notes.push(error.to_string());
        }
        self.unwatch(&first.pidfd);
        self.strike(first.slot);
    }

    /// Reads what a process said before it ended.
    pub(super) fn drain(&mut self, key: u64) {
        while self.containers.get(&key).is_some_and(|container| container.channel.as_ref().is_some_and(readable)) {
            self.hear(key);
        }
    }

    /// Begins to look at what the command changed, if that is wanted and it has run.
    fn list_changes(&mut self, key: u64) {
        let Some(container) = self.containers.get_mut(&key) else { return };
        let Some(changes) = &container.plan.sandbox.changes else { return };
        if container.exit.is_none() || container.failure.is_some() || container.looked_through {
            return;
        }
        container.looked_through = true;
        let started = match container.layers.take() {
            Some(layers) => Collector::start(layers, &container.plan.sandbox.user_namespace, changes.list),
            // It was ended before there was a command.
            None if !container.running => return,
            None => Err(Error::new(Code::SetupFailed, "list the changes", "the container has not told its layers")),
        };
        let started = started.and_then(|collector| {
            let token = Token::Container(key, Source::Listed).data();
            epoll::add(&self.epoll, &collector.pidfd, token, epoll::EventFlags::IN).at("list the changes", "")?;
            Ok(collector)
        });
        match started {
            Ok(collector) => container.collector = Some(collector),
            Err(error) => container.failure = Some(error),
        }
    }

    /// The changes are listed.
    pub(super) fn listed(&mut self, key: u64) {
        let Some(container) = self.containers.get_mut(&key) else { return };
        let Some(collector) = container.collector.take() else { return };
        let status = match reap(collector.pid) {
            Ok(None) => {
                container.collector = Some(collector);
                return;
            }
            ended => ended.ok().flatten().map(|(status, _)| status),
        };
        let _ = epoll::delete(&self.epoll, &collector.pidfd);
        let collected = collector.finish(status == Some(Status::Exited(0))).and_then(|Collected { list, baseline }| {
            container.kept.as_ref().map_or(Ok(()), |kept| kept.add_baseline(baseline)).map(|()| list)
        });
        match collected {
            Ok(list) => container.listing = list,
            Err(error) => container.failure = Some(error),
        }
    }

    /// Tells the end of a container of which nothing is left.
    pub(super) fn finish_if_over(&mut self, key: u64) {
        if self.containers.get(&key).is_some_and(Container::is_over) {
            self.list_changes(key);
        }
        if !self.containers.get(&key).is_some_and(Container::is_over) {
            return;
        }
        let Some(mut container) = self.containers.remove(&key) else { return };
        if let Some(channel) = &container.channel {
            self.unwatch(channel);
        }
        self.held.extend(container.mounts.take());
        self.thrown.extend(container.changes.take());
        // Whoever hears of the end can use the directory.
        drop(container.kept.take());
        let Some(id) = container.id else { return self.forget_spare(key, container.failure.is_some()) };
        if container.waiting.is_some() {
            return self.launch_anew(container);
        }
        if let Some(spares) = &mut self.spares {
            spares.note_end();
        }
        match (container.failure, container.exit) {
            (Some(error), _) => self.events.push((Event::Failed { id, errors: vec![error] }, None)),
            (None, Some(exit)) => {
                let report = (!container.announce).then_some(container.report);
                self.events.push((Event::Exited { id, exit, report }, container.listing));
            }
            (None, None) => {}
        }
    }
}

fn exit(container: &Container, status: Status, usage: Usage) -> Exit {
    Exit { status, usage, timed_out: container.timed_out, duration_us: container.since.elapsed().as_micros() as u64 }
}

fn readable(channel: &impl AsFd) -> bool {
    let mut poll = [rustix::event::PollFd::new(channel, rustix::event::PollFlags::IN)];
    let now = rustix::event::Timespec::try_from(Duration::ZERO).ok();
    rustix::event::poll(&mut poll, now.as_ref()).is_ok_and(|ready| ready > 0)
}
