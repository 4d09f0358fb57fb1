//! The intermediate process of one that enters: in the container's namespaces, and seen by nobody there.

use std::convert::Infallible;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use rustix::fs::Mode;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, getppid, pidfd_open, set_parent_process_death_signal, setsid, umask,
};

use super::Destination;
use crate::plan::capability::Capabilities;
use crate::plan::process::Process;
use crate::steps::channel::{Channel, FromChild, FromEntrance, ToChild};
use crate::steps::complete::{self, PreparedCommand};
use crate::steps::exec::{self, Arranged};
use crate::steps::limits::OomScore;
use crate::steps::{identity, root, terminal};
use nsrs_base::error::{Act, At, Code, During, Error, Result};
use nsrs_base::ids::maps::{self, UserNamespace};
use nsrs_base::sys::child::spawn_apart;
use nsrs_base::sys::fds::close_others;
use nsrs_base::sys::process::exit_now;

/// What the intermediate process gets from the entrance, whose copy it is.
pub struct Origin<'a> {
    /// The entrance's channel, for one message.
    pub entrance: &'a Channel,
    /// The supervisor's number for the answer.
    pub request: u64,
    /// Where the entrance hears that this message was sent.
    pub answer: &'a OwnedFd,
    /// The parent of both.
    pub supervisor: Option<Pid>,
    /// Our executable in sealed memory.
    pub program: &'a OwnedFd,
}

/// Keeps others out of this process's memory and descriptors, unless they may trace every process of the host. A change
/// of credentials may take it back (`fs.suid_dumpable`, proc_sys_fs(5)).
///
/// # Errors
/// Never in practice.
pub fn hide() -> Result<()> {
    nix::sys::prctl::set_dumpable(false).at("hide from other processes", "")
}

/// The life of an intermediate process. Does not come back: what fails is reported on its channel.
pub fn run(origin: Origin<'_>) -> ! {
    let (channel, program) = introduce(&origin).unwrap_or_else(|error| {
        let _ = origin.entrance.send(&FromEntrance::Failed { request: Some(origin.request), error }, &[]);
        let _ = rustix::io::write(origin.answer, b"a");
        exit_now(125)
    });
    let Err(error) = enter_and_become(&channel, &program, origin.supervisor);
    complete::report(&channel, error.during(Act::Supervisor))
}

/// Makes a channel and hands its other end to the supervisor, through the entrance's.
///
/// The channel is made here and by nobody else: a process that holds one end of a pair of sockets can get a pidfd of the
/// process that made them (`SO_PEERPIDFD`, since Linux 6.5), and by that, if it may trace, all descriptors of that one.
/// This end will be in reach of the container, and this process has nothing else.
fn introduce(origin: &Origin<'_>) -> Result<(Channel, OwnedFd)> {
    // A session and a process group of its own: kill(2) of group 0 reaches the members of a group in every PID namespace.
    setsid().at("start a session", "")?;
    die_with(origin.supervisor)?;
    let (ours, theirs) = Channel::pair()?;
    let own = pidfd_open(getpid(), PidfdFlags::empty()).at("hold the intermediate process", "")?;
    let program = origin.program.try_clone().at("hold the executable", "")?;
    let made = FromEntrance::Made { request: origin.request, pid: getpid().as_raw_nonzero().get() };
    origin.entrance.send(&made, &[own.as_fd(), theirs.socket().as_fd()])?;
    let _ = rustix::io::write(origin.answer, b"a");
    drop((own, theirs));
    close_others(&[ours.socket().as_fd(), program.as_fd()]).at("close all other file descriptors", "")?;
    Ok((ours, program))
}

/// This process, in the supervisor's PID namespace, ends with the supervisor.
fn die_with(supervisor: Option<Pid>) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).at("die with the supervisor", "")?;
    if getppid() != supervisor {
        return Err(Error::new(Code::SupervisorLost, "look for the supervisor", "it is gone"));
    }
    Ok(())
}

fn enter_and_become(channel: &Channel, program: &OwnedFd, supervisor: Option<Pid>) -> Result<Infallible> {
    let Some((ToChild::Enter(destination), mut fds)) = channel.receive_any_size()? else { exit_now(0) };
    let first = fds.pop().ok_or_else(|| Error::new(Code::SetupFailed, ENTER, "its first process wasn't named"))?;
    let mut score = open_score().during(Act::Limits)?;
    // While it may still be lowered.
    score.set(destination.oom_score_adj).during(Act::Limits)?;
    enter(&destination, &first).during(Act::Namespaces)?;
    drop(first);
    // The death signal is lost with a change of credentials.
    die_with(supervisor)?;
    // Made before any limit of the container's, which may allow no descriptors on the way (`ETOOMANYREFS`, unix(7)).
    let (theirs, mailbox) = Channel::mailbox()?;
    channel.send(&FromChild::Ready, &theirs.fds())?;
    drop(theirs);
    let channels = Channels { own: channel, newborn: &mailbox };
    match channel.receive_any_size()? {
        Some((ToChild::Process(process), fds)) => become_process(&destination, &process, fds, score, channels, program),
        _ => exit_now(0),
    }
}

/// The channels of an intermediate process.
struct Channels<'a> {
    /// Its own, whose end tells the supervisor that everything else comes over the other one.
    own: &'a Channel,
    /// That of the process which it makes, for its own last words too.
    newborn: &'a Channel,
}

/// Opens this process's out-of-memory score. The files in /proc of a process that hides belong to root (proc(5)); in the
/// container's namespaces, where it must, it is not yet.
fn open_score() -> Result<OomScore> {
    nix::sys::prctl::set_dumpable(true).at("open the process's own files", "")?;
    let score = OomScore::open()?;
    hide()?;
    Ok(score)
}

const ENTER: &str = "enter the container";

/// Nobody can enter what does not run.
#[must_use]
pub fn has_ended() -> Error {
    Error::new(Code::ContainerEnded, ENTER, "it has ended, or is being stopped")
        .hint("create another one with Container.create()")
}

/// Enters all namespaces in one call: either all or none, and those of the process that is meant, even if its number has
/// gone to another by now.
fn enter(destination: &Destination, first: &OwnedFd) -> Result<()> {
    let flags = destination.namespaces.iter().fold(0, |flags, kind| flags | kind.flag());
    if flags != 0 {
        setns(first, CloneFlags::from_bits_retain(flags as i32))
            .map_err(|errno| if errno == Errno::ESRCH { has_ended() } else { Error::os(ENTER, "", errno) })?;
    }
    let around = &destination.surroundings;
    match &around.user_namespace {
        UserNamespace::Joined => maps::become_root_of_joined(),
        user => maps::become_mapped(user)?,
    }
    hide()?;
    identity::drop_bounding(Capabilities::ALL, &around.most)
}

/// The acts before the birth, in their order: all that takes a right, a descriptor or a look at the container's files.
/// Nobody in the container can see this process, unless they share the supervisor's PID namespace.
fn become_process(
    destination: &Destination,
    process: &Process,
    mut fds: Vec<OwnedFd>,
    mut score: OomScore,
    channels: Channels<'_>,
    program: &OwnedFd,
) -> Result<Infallible> {
    score.set(process.resources.oom_score_adj).during(Act::Limits)?;
    drop(score);
    // The terminal's master must be gone before the birth: who has it reads and types for the user.
    match process.tty {
        Some(size) => terminal::open_inside(size, &root::current()?, channels.own).during(Act::Terminal)?,
        None => {
            let passed = fds.split_off(fds.len().min(3));
            complete::take_stdio(<[OwnedFd; 3]>::try_from(std::mem::replace(&mut fds, passed)).ok())
                .during(Act::Descriptors)?;
        }
    }
    if let Some(mask) = process.umask {
        umask(Mode::from_raw_mode(mask));
    }
    // The rights of this process are those of the supervisor over the container: none of them is left at the birth.
    let command = complete::assume(&destination.surroundings, process)?;
    hide()?;
    let program = Some(program).filter(|_| destination.init);
    // What is born has a copy of every descriptor, and who traces it can keep it from the exec that would close them. So
    // nothing is open from here on but what the command is to have, its channel, and the program for an init. This process's
    // own channel, over which it could send descriptors to the supervisor, is closed.
    let fds = exec::arrange_fds(&process.preserve_fds, fds, channels.newborn, program).during(Act::Descriptors)?;
    let Err(error) = give_birth(process, command, &fds);
    complete::report(&fds.channel, error.during(Act::Namespaces))
}

/// Makes the process itself, as a child of the supervisor. It does nothing before the supervisor has been told of it:
/// nobody else would ever end it.
fn give_birth(process: &Process, command: PreparedCommand, fds: &Arranged) -> Result<Infallible> {
    let step = "start the process";
    let (go, tell) = pipe_with(PipeFlags::CLOEXEC).at(step, "")?;
    let body = || {
        if !matches!(File::from(go).read(&mut [0]), Ok(1)) {
            return 0;
        }
        match be_born(process) {
            Ok(()) => command.exec(process, fds),
            Err(error) => complete::report(&fds.channel, error.during(Act::Terminal)),
        }
    };
    let (new, tell) =
        spawn_apart(libc::CLONE_PARENT as u64, tell, body).map_err(|errno| no_process(Error::os(step, "", errno)))?;
    fds.channel.send(&FromChild::Born(new.pid.as_raw_nonzero().get()), &[])?;
    File::from(tell).write_all(b"g").at(step, "")?;
    exit_now(0)
}

/// The error for a process that the kernel refuses to make, with the reasons that are known for it.
fn no_process(error: Error) -> Error {
    match error.errno.map(Errno::from_raw) {
        // What the kernel says of a PID namespace whose first process is gone (pid_namespaces(7)). A container that is so
        // short of memory can't be entered either.
        Some(Errno::ENOMEM) => has_ended(),
        Some(Errno::EAGAIN) => {
            error.hint("the limit of processes is reached (nproc), in which this one counts for two")
        }
        _ => error,
    }
}

/// The acts after the birth: those that no process can do for another. The container may watch all of them.
fn be_born(process: &Process) -> Result<()> {
    // It must lead its session to get a controlling terminal.
    setsid().at("start a session", "")?;
    if process.tty.is_some() {
        terminal::make_controlling()?;
    }
    // In a PID namespace of the container's own the kernel ends this process with the first one, which has the same signal
    // from the supervisor; elsewhere an init of ours is executed now, which waits for the supervisor's word. So nothing
    // is lost if the supervisor has died before this line, which getppid() couldn't tell across PID namespaces.
    set_parent_process_death_signal(Some(Signal::KILL)).at("die with the supervisor", "")
}
