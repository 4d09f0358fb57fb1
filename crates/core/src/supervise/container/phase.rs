//! The states of a container's process, each with the data that only this state has, and the transitions between them.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use nsrs_base::error::{Act, Code, Error};
use nsrs_base::sys::wait::Status;

use super::child::Child;
use super::connection::Connection;
use crate::plan::Plan;
use crate::steps::channel::Channel;
use crate::supervise::protocol::Exit;

/// A command for a process that was prepared before anybody asked for it.
#[derive(Debug)]
pub struct Command {
    /// The plan whose process half it is.
    pub plan: Rc<Plan>,
    /// Standard input, output and error.
    pub stdio: [OwnedFd; 3],
    /// Descriptors for the plan's `preserve_fds`.
    pub fds: Vec<OwnedFd>,
}

/// What a process does when everything but its command is prepared.
#[derive(Debug)]
pub enum Then {
    /// It executes its command, which it knows already.
    Run,
    /// It waits for a request: it was prewarmed.
    Stand,
    /// It takes this command, which was requested before it was ready.
    Take(Box<Command>),
}

/// Why a process is being ended.
#[derive(Debug)]
pub enum Cause {
    /// The caller, or the end of its container, asked for it.
    Wanted,
    /// Its time limit is over.
    TimeLimit,
    /// A step of its set-up failed.
    Failed(Error),
}

/// What is left of a process that is being ended.
#[derive(Debug)]
pub enum Remains {
    /// There is no process: the entrance has not answered yet.
    Nothing,
    /// The intermediate process, which may just have made the process without having reported it.
    Intermediate(Child),
    /// The process that is, or would become, the command.
    Process(Child),
}

impl Remains {
    /// What is left of one that stood, or of the intermediate process that stood for it.
    fn standing(child: Child, is_intermediate: bool) -> Remains {
        if is_intermediate { Remains::Intermediate(child) } else { Remains::Process(child) }
    }

    fn child(&self) -> Option<&Child> {
        match self {
            Remains::Nothing => None,
            Remains::Intermediate(child) | Remains::Process(child) => Some(child),
        }
    }

    fn child_mut(&mut self) -> Option<&mut Child> {
        match self {
            Remains::Nothing => None,
            Remains::Intermediate(child) | Remains::Process(child) => Some(child),
        }
    }
}

/// How far the init of a process is, where it has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InitRole {
    /// There is no init, or it is PID 1 and the kernel ends the other processes with it.
    #[default]
    Plain,
    /// It runs in a shared PID namespace and ends the command's descendants itself: it is asked to end, not killed.
    InCharge,
}

/// How a process ended.
#[derive(Debug)]
pub enum Outcome {
    /// Its command ran, or was stopped before it could, and ended.
    Exited(Exit),
    /// It never had a command: no request waits for the reason.
    Unasked,
    /// It failed before its command ran.
    Failed(Error),
    /// It was prewarmed and failed while a command waited for it; with the reason, if one is known.
    Unfit(Box<Command>, Option<Error>),
}

/// The state of a process of a container.
#[derive(Debug)]
pub enum Phase {
    /// The entrance was asked for its intermediate process and has not answered.
    Requested {
        /// What comes after its preparation.
        then: Then,
    },
    /// An intermediate process is at work, which will make it.
    Staging {
        /// The intermediate process.
        child: Child,
        /// The channel to it. The process that it makes inherits this channel, or has one that succeeds it.
        channel: Connection,
        /// What comes after its preparation.
        then: Then,
    },
    /// The process exists and goes through the steps before its command.
    Preparing {
        /// The process that becomes the command.
        child: Child,
        /// The channel to it.
        channel: Connection,
        /// What comes after its preparation.
        then: Then,
        /// Whether its init has taken charge of the descendants of the command.
        init: InitRole,
    },
    /// Prepared, it waits for a command.
    Standing {
        /// The process that waits.
        child: Child,
        /// The channel to it.
        channel: Connection,
        /// It is an intermediate process, which makes the command's process and doesn't become it.
        is_intermediate: bool,
    },
    /// The command was executed and has not ended.
    Running {
        /// The command, or its init.
        child: Child,
        /// The channel to its init, where it has one.
        channel: Option<Connection>,
        /// Whether its init has taken charge of the descendants of the command.
        init: InitRole,
        /// How its command ended, as its init saw it.
        reported: Option<Status>,
    },
    /// It was killed, or asked to end, and its end is waited for.
    Ending {
        /// The process that is still to be reaped.
        remains: Remains,
        /// The channel to it, while it is open.
        channel: Option<Connection>,
        /// The reason, which decides what is reported to the caller.
        cause: Cause,
        /// Whether its init has taken charge of the descendants of the command.
        init: InitRole,
        /// How its command ended, as its init saw it.
        reported: Option<Status>,
        /// The command that waited for it, for which another process will be made.
        unserved: Option<Box<Command>>,
    },
    /// Its process was reaped, or will never be made.
    Ended(Outcome),
}

/// The placeholder while a transition takes a phase apart.
const TAKEN: Phase = Phase::Ended(Outcome::Unasked);

/// What is to be done after a transition.
#[derive(Debug)]
pub enum Next {
    /// Nothing, until the next event.
    Wait,
    /// It is prepared, and joins the pool.
    Stands,
    /// It is prepared, and this command is to be sent to it.
    Command(Box<Command>),
    /// The process that an intermediate process has made is to be set up.
    SetUp,
    /// The process was made in the moment it was ended: it is to be ended too.
    End,
}

impl Phase {
    /// The name of the state, for errors.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Phase::Requested { .. } => "requested",
            Phase::Staging { .. } => "staging",
            Phase::Preparing { .. } => "preparing",
            Phase::Standing { .. } => "standing",
            Phase::Running { .. } => "running",
            Phase::Ending { .. } => "ending",
            Phase::Ended(_) => "ended",
        }
    }

    /// The open channel to the process or to its intermediate process.
    #[must_use]
    pub fn channel(&self) -> Option<&Channel> {
        match self {
            Phase::Staging { channel, .. } | Phase::Preparing { channel, .. } | Phase::Standing { channel, .. } => {
                Some(channel.current())
            }
            Phase::Running { channel, .. } | Phase::Ending { channel, .. } => channel.as_ref().map(Connection::current),
            Phase::Requested { .. } | Phase::Ended(_) => None,
        }
    }

    /// The process whose end is the end of this state.
    #[must_use]
    pub fn child(&self) -> Option<&Child> {
        match self {
            Phase::Staging { child, .. }
            | Phase::Preparing { child, .. }
            | Phase::Standing { child, .. }
            | Phase::Running { child, .. } => Some(child),
            Phase::Ending { remains, .. } => remains.child(),
            Phase::Requested { .. } | Phase::Ended(_) => None,
        }
    }

    /// [`Phase::child`], mutable: its entry in the journal is noted here.
    pub fn child_mut(&mut self) -> Option<&mut Child> {
        match self {
            Phase::Staging { child, .. }
            | Phase::Preparing { child, .. }
            | Phase::Standing { child, .. }
            | Phase::Running { child, .. } => Some(child),
            Phase::Ending { remains, .. } => remains.child_mut(),
            Phase::Requested { .. } | Phase::Ended(_) => None,
        }
    }

    /// The process that is or becomes the command, and not an intermediate one.
    #[must_use]
    pub fn own_child(&self) -> Option<&Child> {
        match self {
            Phase::Staging { .. }
            | Phase::Standing { is_intermediate: true, .. }
            | Phase::Ending { remains: Remains::Intermediate(_), .. } => None,
            other => other.child(),
        }
    }

    /// Whether its intermediate process may still report that it has made the process.
    #[must_use]
    pub fn expects_process(&self) -> bool {
        matches!(self, Phase::Staging { .. } | Phase::Ending { remains: Remains::Intermediate(_), .. })
    }

    /// Whether the command was executed and has not ended.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self, Phase::Running { .. })
    }

    /// Whether its process is gone and reaped.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(self, Phase::Ended(_))
    }

    /// Whether its init has taken charge of the descendants of the command.
    #[must_use]
    pub fn init(&self) -> InitRole {
        match self {
            Phase::Preparing { init, .. } | Phase::Running { init, .. } | Phase::Ending { init, .. } => *init,
            _ => InitRole::Plain,
        }
    }

    /// Somebody asked for a prewarmed process: it takes this command as soon as it stands.
    ///
    /// # Errors
    /// It has a command already, or is not there any more; the command comes back.
    pub fn take_command(&mut self, command: Box<Command>) -> Result<Next, Box<Command>> {
        match self {
            Phase::Requested { then } | Phase::Staging { then, .. } | Phase::Preparing { then, .. }
                if matches!(then, Then::Stand) =>
            {
                *then = Then::Take(command);
                Ok(Next::Wait)
            }
            Phase::Standing { .. } => Ok(Next::Command(command)),
            _ => Err(command),
        }
    }

    /// The entrance has made the intermediate process.
    ///
    /// # Errors
    /// It was not asked for.
    pub fn intermediate_made(&mut self, made: Child, channel: Channel) -> Result<Next, Error> {
        match std::mem::replace(self, TAKEN) {
            Phase::Requested { then } => {
                *self = Phase::Staging { child: made, channel: channel.into(), then };
                Ok(Next::Wait)
            }
            Phase::Ending { remains: Remains::Nothing, channel: None, cause, init, reported, unserved } => {
                let remains = Remains::Intermediate(made);
                *self = Phase::Ending { remains, channel: Some(channel.into()), cause, init, reported, unserved };
                Ok(Next::End)
            }
            other => Err(self.out_of_place(other, "an intermediate process")),
        }
    }

    /// It is prepared up to its command. `successor`: the channel of the process that an intermediate one makes, for when
    /// that one's own closes.
    ///
    /// # Errors
    /// It has its command already.
    pub fn ready(&mut self, successor: Option<Channel>) -> Result<Next, Error> {
        match std::mem::replace(self, TAKEN) {
            Phase::Staging { child, channel, then: Then::Stand } => {
                let channel = channel.with_successor(successor);
                *self = Phase::Standing { child, channel, is_intermediate: true };
                Ok(Next::Stands)
            }
            Phase::Staging { child, channel, then: Then::Take(command) } => {
                let channel = channel.with_successor(successor);
                *self = Phase::Standing { child, channel, is_intermediate: true };
                Ok(Next::Command(command))
            }
            Phase::Preparing { child, channel, then: Then::Stand, .. } => {
                *self = Phase::Standing { child, channel, is_intermediate: false };
                Ok(Next::Stands)
            }
            Phase::Preparing { child, channel, then: Then::Take(command), .. } => {
                *self = Phase::Standing { child, channel, is_intermediate: false };
                Ok(Next::Command(command))
            }
            ending @ Phase::Ending { .. } => {
                *self = ending;
                Ok(Next::Wait)
            }
            other => Err(self.out_of_place(other, "a report that it waits for a command")),
        }
    }

    /// It can't take the command that was to be its own: another process is made for that, when this one has ended.
    pub fn refuse(&mut self, command: Box<Command>) {
        *self = match std::mem::replace(self, TAKEN) {
            Phase::Standing { child, channel, is_intermediate } => Phase::Ending {
                remains: Remains::standing(child, is_intermediate),
                channel: Some(channel),
                cause: Cause::Wanted,
                init: InitRole::Plain,
                reported: None,
                unserved: Some(command),
            },
            other => other,
        };
    }

    /// Its command was sent to it.
    ///
    /// # Errors
    /// It does not wait for one.
    pub fn commanded(&mut self) -> Result<(), Error> {
        match std::mem::replace(self, TAKEN) {
            Phase::Standing { child, channel, is_intermediate: true } => {
                *self = Phase::Staging { child, channel, then: Then::Run };
                Ok(())
            }
            Phase::Standing { child, channel, is_intermediate: false } => {
                *self = Phase::Preparing { child, channel, then: Then::Run, init: InitRole::Plain };
                Ok(())
            }
            other => Err(self.out_of_place(other, "a command")),
        }
    }

    /// The intermediate process has made the process. Returns the intermediate one, which is still to be reaped.
    ///
    /// # Errors
    /// There is one already, or none was to come.
    pub fn process_made(&mut self, process: Child) -> Result<(Next, Option<Child>), Error> {
        match std::mem::replace(self, TAKEN) {
            Phase::Staging { child, channel, then } => {
                *self = Phase::Preparing { child: process, channel, then, init: InitRole::Plain };
                Ok((Next::SetUp, Some(child)))
            }
            Phase::Ending { remains: Remains::Intermediate(child), channel, cause, init, reported, unserved } => {
                let remains = Remains::Process(process);
                *self = Phase::Ending { remains, channel, cause, init, reported, unserved };
                Ok((Next::End, Some(child)))
            }
            other => {
                process.end_now();
                Err(self.out_of_place(other, "a new process"))
            }
        }
    }

    /// Replaces the channel to it, and returns the old one.
    ///
    /// # Errors
    /// It isn't about to execute an init.
    pub fn renew_channel(&mut self, new: Channel) -> Result<Channel, Error> {
        match self {
            Phase::Preparing { channel, then: Then::Run, .. } => Ok(channel.replace(new)),
            _ => Err(self.unexpected("another channel")),
        }
    }

    /// Its init has taken charge of the descendants of the command.
    ///
    /// # Errors
    /// It has no init that could say so now.
    pub fn in_charge(&mut self) -> Result<(), Error> {
        match self {
            Phase::Preparing { init, then: Then::Run, .. } | Phase::Ending { init, .. } => {
                *init = InitRole::InCharge;
                Ok(())
            }
            _ => Err(self.unexpected("a message of an init")),
        }
    }

    /// Its channel has closed: the successor, if there is one, takes its place. Returns the old channel.
    pub fn succeed_channel(&mut self) -> Option<Channel> {
        match self {
            Phase::Staging { channel, .. } | Phase::Standing { channel, .. } => channel.succeed(),
            Phase::Ending { channel, .. } => channel.as_mut()?.succeed(),
            Phase::Requested { .. } | Phase::Preparing { .. } | Phase::Running { .. } | Phase::Ended(_) => None,
        }
    }

    /// The end of its channel tells that its command runs, if it has no init.
    #[must_use]
    pub fn runs_at_end_of_channel(&self) -> bool {
        matches!(self, Phase::Preparing { then: Then::Run, .. })
    }

    /// The command runs; `keep` where an init goes on to report through the channel.
    ///
    /// # Errors
    /// It runs already, or never will.
    pub fn executed(&mut self, keep: bool) -> Result<(), Error> {
        match std::mem::replace(self, TAKEN) {
            Phase::Preparing { child, channel, then: Then::Run, init } => {
                *self = Phase::Running { child, channel: keep.then_some(channel), init, reported: None };
                Ok(())
            }
            other => Err(self.out_of_place(other, "a report that its command runs")),
        }
    }

    /// Its init saw the command end.
    ///
    /// # Errors
    /// The command is not running, nor being ended.
    pub fn command_ended(&mut self, status: Status) -> Result<(), Error> {
        match self {
            Phase::Running { reported, .. } | Phase::Ending { reported, .. } => {
                *reported = Some(status);
                Ok(())
            }
            _ => Err(self.unexpected("the end of its command")),
        }
    }

    /// Marks it as ending for this cause; the caller sends the signal. The first cause counts, but `Wanted` gives way.
    pub fn end(&mut self, cause: Cause) {
        let keeps = |cause: &Cause, then: Then| match (cause, then) {
            // The command is not wanted any more either.
            (Cause::Wanted | Cause::TimeLimit, _) => None,
            (Cause::Failed(_), Then::Take(command)) => Some(command),
            (Cause::Failed(_), _) => None,
        };
        *self = match std::mem::replace(self, TAKEN) {
            Phase::Requested { then } => Phase::Ending {
                remains: Remains::Nothing,
                channel: None,
                unserved: keeps(&cause, then),
                cause,
                init: InitRole::Plain,
                reported: None,
            },
            Phase::Staging { child, channel, then } => Phase::Ending {
                remains: Remains::Intermediate(child),
                channel: Some(channel),
                unserved: keeps(&cause, then),
                cause,
                init: InitRole::Plain,
                reported: None,
            },
            Phase::Preparing { child, channel, then, init } => Phase::Ending {
                remains: Remains::Process(child),
                channel: Some(channel),
                unserved: keeps(&cause, then),
                cause,
                init,
                reported: None,
            },
            Phase::Standing { child, channel, is_intermediate } => Phase::Ending {
                remains: Remains::standing(child, is_intermediate),
                channel: Some(channel),
                cause,
                init: InitRole::Plain,
                reported: None,
                unserved: None,
            },
            Phase::Running { child, channel, init, reported } => {
                Phase::Ending { remains: Remains::Process(child), channel, cause, init, reported, unserved: None }
            }
            Phase::Ending { remains, channel, cause: first, init, reported, unserved } => {
                // Whoever asked for its end doesn't want another process in its place.
                let unserved = if matches!(cause, Cause::Failed(_)) { unserved } else { None };
                let first = if matches!(first, Cause::Wanted) { cause } else { first };
                Phase::Ending { remains, channel, cause: first, init, reported, unserved }
            }
            ended @ Phase::Ended(_) => ended,
        };
    }

    /// A command waits for it to be prepared.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        match self {
            Phase::Requested { then } | Phase::Staging { then, .. } | Phase::Preparing { then, .. } => {
                matches!(then, Then::Take(_))
            }
            Phase::Ending { unserved, .. } => unserved.is_some(),
            _ => false,
        }
    }

    /// Its channel has closed, or is of no use any more: nothing but its end can come from it.
    pub fn close_channel(&mut self) {
        *self = match std::mem::replace(self, TAKEN) {
            Phase::Running { child, init, reported, .. } => Phase::Running { child, channel: None, init, reported },
            Phase::Ending { remains, cause, init, reported, unserved, .. } => {
                Phase::Ending { remains, channel: None, cause, init, reported, unserved }
            }
            Phase::Staging { child, then, .. } => Phase::silent(Remains::Intermediate(child), then, InitRole::Plain),
            Phase::Preparing { child, then, init, .. } => Phase::silent(Remains::Process(child), then, init),
            Phase::Standing { child, is_intermediate, .. } => {
                Phase::silent(Remains::standing(child, is_intermediate), Then::Stand, InitRole::Plain)
            }
            other => other,
        };
    }

    /// The state after the channel has closed before the command ran. A command that waited gets another process.
    fn silent(remains: Remains, then: Then, init: InitRole) -> Phase {
        let unserved = if let Then::Take(command) = then { Some(command) } else { None };
        Phase::Ending { remains, channel: None, cause: Cause::Wanted, init, reported: None, unserved }
    }

    /// Its process has ended: takes it out, and records the outcome. `exit` tells of a status how the command ended.
    /// In a state without a process nothing happens.
    pub fn reaped(&mut self, status: Status, exit: impl FnOnce(Status, bool) -> Exit) -> Option<Child> {
        let (child, outcome) = match std::mem::replace(self, TAKEN) {
            Phase::Staging { child, then, .. } => {
                let outcome = match (status, then) {
                    (_, Then::Take(command)) => Outcome::Unfit(command, None),
                    // Ended on request, as the command would have been.
                    (Status::Signaled(_), Then::Run) => Outcome::Exited(exit(status, false)),
                    (Status::Exited(_), _) => Outcome::Failed(
                        Error::new(
                            Code::SetupFailed,
                            "make the container",
                            "its intermediate process ended without a message",
                        )
                        .during(Act::Namespaces),
                    ),
                    (_, Then::Stand) => Outcome::Unasked,
                };
                (child, outcome)
            }
            Phase::Preparing { child, then: Then::Take(command), .. } => (child, Outcome::Unfit(command, None)),
            Phase::Preparing { child, then: Then::Stand, .. } | Phase::Standing { child, .. } => {
                (child, Outcome::Unasked)
            }
            Phase::Preparing { child, .. } => (child, Outcome::Exited(exit(status, false))),
            Phase::Running { child, reported, .. } => (child, Outcome::Exited(exit(reported.unwrap_or(status), false))),
            Phase::Ending {
                remains: Remains::Intermediate(child) | Remains::Process(child),
                unserved: Some(command),
                cause,
                ..
            } => {
                let reason = if let Cause::Failed(error) = cause { Some(error) } else { None };
                (child, Outcome::Unfit(command, reason))
            }
            Phase::Ending {
                remains: Remains::Intermediate(child) | Remains::Process(child), cause, reported, ..
            } => {
                let outcome = match cause {
                    Cause::Failed(error) => Outcome::Failed(error),
                    Cause::TimeLimit => Outcome::Exited(exit(reported.unwrap_or(status), true)),
                    Cause::Wanted => Outcome::Exited(exit(reported.unwrap_or(status), false)),
                };
                (child, outcome)
            }
            other => {
                *self = other;
                return None;
            }
        };
        *self = Phase::Ended(outcome);
        Some(child)
    }

    /// The entrance could not make the intermediate process, so there will be no process.
    pub fn make_failed(&mut self, error: Error) {
        *self = match std::mem::replace(self, TAKEN) {
            Phase::Requested { then: Then::Take(command) } => Phase::Ended(Outcome::Unfit(command, Some(error))),
            Phase::Requested { .. } => Phase::Ended(Outcome::Failed(error)),
            Phase::Ending { remains: Remains::Nothing, cause: Cause::Failed(first), .. } => {
                Phase::Ended(Outcome::Failed(first))
            }
            Phase::Ending { remains: Remains::Nothing, .. } => Phase::Ended(Outcome::Failed(error)),
            other => other,
        };
    }

    fn out_of_place(&mut self, phase: Phase, what: &str) -> Error {
        *self = phase;
        self.unexpected(what)
    }

    /// An event that this state can't have.
    fn unexpected(&self, what: &str) -> Error {
        Error::new(Code::SetupFailed, "follow the container", format!("{what} came while it was {}", self.name()))
    }
}

#[cfg(test)]
#[path = "phase_tests.rs"]
mod tests;
