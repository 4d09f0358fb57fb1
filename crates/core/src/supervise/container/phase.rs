//! The states of a container's process, each with what only it has, and the ways from one to the next.

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
    /// It goes on: it knows its command.
    Run,
    /// It waits: nobody has asked for it yet.
    Stand,
    /// It waits for this command, which came before it was ready.
    Take(Box<Command>),
}

/// Why a process is being ended.
#[derive(Debug)]
pub enum Cause {
    /// Somebody wants it gone.
    Wanted,
    /// Its time limit is over.
    TimeLimit,
    /// A step of its set-up failed.
    Failed(Error),
}

/// What is left of a process that is being ended.
#[derive(Debug)]
pub enum Remains {
    /// Nothing was made yet.
    Nothing,
    /// The intermediate process, which may have made it in this moment and not told of it yet.
    Intermediate(Child),
    /// The process itself.
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
    /// There is none, or the kernel ends the others with it: it is PID 1.
    #[default]
    Plain,
    /// In a shared PID namespace: it ends what comes of the command, and is asked to, not killed.
    InCharge,
}

/// What became of a process.
#[derive(Debug)]
pub enum Outcome {
    /// Its command ended.
    Exited(Exit),
    /// It never had a command, and nobody is to be told why.
    Unasked,
    /// It came to nothing.
    Failed(Error),
    /// It was prewarmed and came to nothing while a command waited for it; with the reason, where there is one.
    Unfit(Box<Command>, Option<Error>),
}

/// Where a process of a container stands.
#[derive(Debug)]
pub enum Phase {
    /// The entrance was asked to make it and has not answered.
    Summoned {
        /// What comes after its preparation.
        then: Then,
    },
    /// An intermediate process is at work, which will make it.
    Staging {
        /// The intermediate process.
        child: Child,
        /// The channel, which passes on to the process that it makes, or is followed by that one's.
        channel: Connection,
        /// What comes after its preparation.
        then: Then,
    },
    /// It walks the recipe.
    Preparing {
        /// The process.
        child: Child,
        /// The channel to it.
        channel: Connection,
        /// What comes after its preparation.
        then: Then,
        /// What its init has said.
        init: InitRole,
    },
    /// Prepared, it waits for a command.
    Standing {
        /// The process that waits.
        child: Child,
        /// The channel to it.
        channel: Connection,
        /// It will make the command's process, and not become it.
        is_intermediate: bool,
    },
    /// Its command runs.
    Running {
        /// The command, or its init.
        child: Child,
        /// The channel to its init, where it has one.
        channel: Option<Connection>,
        /// What its init has said.
        init: InitRole,
        /// How its command ended, as its init saw it.
        reported: Option<Status>,
    },
    /// It was killed, or asked to end, and its end is waited for.
    Ending {
        /// What is left of it.
        remains: Remains,
        /// The channel to it, if it is open still.
        channel: Option<Connection>,
        /// Why.
        cause: Cause,
        /// What its init has said.
        init: InitRole,
        /// How its command ended, as its init saw it.
        reported: Option<Status>,
        /// The command that waited for it, which another process is made for.
        unserved: Option<Box<Command>>,
    },
    /// It has ended.
    Ended(Outcome),
}

/// The stand-in while a phase is taken apart.
const TAKEN: Phase = Phase::Ended(Outcome::Unasked);

/// What is to be done after a transition.
#[derive(Debug)]
pub enum Next {
    /// Nothing.
    Wait,
    /// It stands and waits for a command.
    Stands,
    /// It stands, and here is its command.
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
            Phase::Summoned { .. } => "summoned",
            Phase::Staging { .. } => "staging",
            Phase::Preparing { .. } => "preparing",
            Phase::Standing { .. } => "standing",
            Phase::Running { .. } => "running",
            Phase::Ending { .. } => "ending",
            Phase::Ended(_) => "ended",
        }
    }

    /// The channel to it.
    #[must_use]
    pub fn channel(&self) -> Option<&Channel> {
        match self {
            Phase::Staging { channel, .. } | Phase::Preparing { channel, .. } | Phase::Standing { channel, .. } => {
                Some(channel.current())
            }
            Phase::Running { channel, .. } | Phase::Ending { channel, .. } => channel.as_ref().map(Connection::current),
            Phase::Summoned { .. } | Phase::Ended(_) => None,
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
            Phase::Summoned { .. } | Phase::Ended(_) => None,
        }
    }

    /// As [`Phase::child`].
    pub fn child_mut(&mut self) -> Option<&mut Child> {
        match self {
            Phase::Staging { child, .. }
            | Phase::Preparing { child, .. }
            | Phase::Standing { child, .. }
            | Phase::Running { child, .. } => Some(child),
            Phase::Ending { remains, .. } => remains.child_mut(),
            Phase::Summoned { .. } | Phase::Ended(_) => None,
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

    /// Its intermediate process may tell that it has made it.
    #[must_use]
    pub fn expects_birth(&self) -> bool {
        matches!(self, Phase::Staging { .. } | Phase::Ending { remains: Remains::Intermediate(_), .. })
    }

    /// The command runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self, Phase::Running { .. })
    }

    /// Nothing of it is left.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(self, Phase::Ended(_))
    }

    /// What its init has said.
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
            Phase::Summoned { then } | Phase::Staging { then, .. } | Phase::Preparing { then, .. }
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
    pub fn made(&mut self, made: Child, channel: Channel) -> Result<Next, Error> {
        match std::mem::replace(self, TAKEN) {
            Phase::Summoned { then } => {
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
            other => Err(self.out_of_place(other, "word that it waits for a command")),
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

    /// The intermediate process has made the process. The intermediate one comes back: it is still to be reaped.
    ///
    /// # Errors
    /// There is one already, or none was to come.
    pub fn born(&mut self, born: Child) -> Result<(Next, Option<Child>), Error> {
        match std::mem::replace(self, TAKEN) {
            Phase::Staging { child, channel, then } => {
                *self = Phase::Preparing { child: born, channel, then, init: InitRole::Plain };
                Ok((Next::SetUp, Some(child)))
            }
            Phase::Ending { remains: Remains::Intermediate(child), channel, cause, init, reported, unserved } => {
                let remains = Remains::Process(born);
                *self = Phase::Ending { remains, channel, cause, init, reported, unserved };
                Ok((Next::End, Some(child)))
            }
            other => {
                born.end_now();
                Err(self.out_of_place(other, "a new process"))
            }
        }
    }

    /// Another channel takes the place of the one to it. The old one comes back.
    ///
    /// # Errors
    /// It isn't about to execute an init.
    pub fn renew_channel(&mut self, new: Channel) -> Result<Channel, Error> {
        match self {
            Phase::Preparing { channel, then: Then::Run, .. } => Ok(channel.replace(new)),
            _ => Err(self.unexpected("another channel")),
        }
    }

    /// Its init ends what comes of the command.
    ///
    /// # Errors
    /// It has no init that could say so now.
    pub fn in_charge(&mut self) -> Result<(), Error> {
        match self {
            Phase::Preparing { init, then: Then::Run, .. } | Phase::Ending { init, .. } => {
                *init = InitRole::InCharge;
                Ok(())
            }
            _ => Err(self.unexpected("word of its init")),
        }
    }

    /// Its channel has closed: the one that follows it, if there is one, takes its place. The old one comes back.
    pub fn succeed_channel(&mut self) -> Option<Channel> {
        match self {
            Phase::Staging { channel, .. } | Phase::Standing { channel, .. } => channel.succeed(),
            Phase::Ending { channel, .. } => channel.as_mut()?.succeed(),
            Phase::Summoned { .. } | Phase::Preparing { .. } | Phase::Running { .. } | Phase::Ended(_) => None,
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
            other => Err(self.out_of_place(other, "word that its command runs")),
        }
    }

    /// Its init saw the command end.
    ///
    /// # Errors
    /// No command has run.
    pub fn command_ended(&mut self, status: Status) -> Result<(), Error> {
        match self {
            Phase::Running { reported, .. } | Phase::Ending { reported, .. } => {
                *reported = Some(status);
                Ok(())
            }
            _ => Err(self.unexpected("the end of its command")),
        }
    }

    /// It is to end for this cause, and comes to that by itself or by a signal. The first cause is the one that counts.
    pub fn end(&mut self, cause: Cause) {
        let keeps = |cause: &Cause, then: Then| match (cause, then) {
            // Nobody wants it any more, whatever it was to run.
            (Cause::Wanted | Cause::TimeLimit, _) => None,
            (Cause::Failed(_), Then::Take(command)) => Some(command),
            (Cause::Failed(_), _) => None,
        };
        *self = match std::mem::replace(self, TAKEN) {
            Phase::Summoned { then } => Phase::Ending {
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
                // Whoever wants it gone wants nothing in its place either.
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
            Phase::Summoned { then } | Phase::Staging { then, .. } | Phase::Preparing { then, .. } => {
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

    /// A process that is not heard of any more before its command has run; one that waits for it is served by another.
    fn silent(remains: Remains, then: Then, init: InitRole) -> Phase {
        let unserved = if let Then::Take(command) = then { Some(command) } else { None };
        Phase::Ending { remains, channel: None, cause: Cause::Wanted, init, reported: None, unserved }
    }

    /// Its process has ended: takes it out, and says what became of it. `exit` tells of a status how the command ended.
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
                            "its intermediate process ended without a word",
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

    /// There will be no process: the entrance could not make one.
    pub fn unmade(&mut self, error: Error) {
        *self = match std::mem::replace(self, TAKEN) {
            Phase::Summoned { then: Then::Take(command) } => Phase::Ended(Outcome::Unfit(command, Some(error))),
            Phase::Summoned { .. } => Phase::Ended(Outcome::Failed(error)),
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
