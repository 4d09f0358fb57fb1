//! The intermediate process, which makes one that enters: it is in the container's namespaces, and nobody there can see it.

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

/// What the intermediate process gets from the entrance, which forked it.
pub struct Origin<'a> {
    /// The entrance's channel, for one message.
    pub entrance: &'a Channel,
    /// The supervisor's number for the answer.
    pub request: u64,
    /// A pipe to the entrance: a byte says that the message was sent.
    pub answer: &'a OwnedFd,
    /// The supervisor, the parent of the entrance and of this process.
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

/// Runs the intermediate process. Never returns: a failure is reported on its channel.
pub fn run(origin: Origin<'_>) -> ! {
    let (channel, program) = open_channel(&origin).unwrap_or_else(|error| {
        let _ = origin.entrance.send(&FromEntrance::Failed { request: Some(origin.request), error }, &[]);
        let _ = rustix::io::write(origin.answer, b"a");
        exit_now(125)
    });
    let Err(error) = enter_and_wait(&channel, &program, origin.supervisor);
    complete::report(&channel, error.during(Act::Supervisor))
}

/// Opens this process's channel, and sends its other end to the supervisor over that of the entrance.
///
/// The channel is made here and by nobody else: a process that holds one end of a pair of sockets can get a pidfd of the
/// process that made them (`SO_PEERPIDFD`, since Linux 6.5), and by that, if it may trace, all descriptors of that one.
/// This end will be in reach of the container, and this process has nothing else.
fn open_channel(origin: &Origin<'_>) -> Result<(Channel, OwnedFd)> {
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

/// Enters the container, waits for the command, and makes its process.
fn enter_and_wait(channel: &Channel, program: &OwnedFd, supervisor: Option<Pid>) -> Result<Infallible> {
    let Some((ToChild::Enter(destination), mut fds)) = channel.receive_any_size()? else { exit_now(0) };
    let first = fds
        .pop()
        .ok_or_else(|| Error::new(Code::SetupFailed, ENTER, "the descriptor of its first process is missing"))?;
    let mut score = open_score().during(Act::Limits)?;
    // Set now: to lower it takes a right that this process is about to lose.
    score.set(destination.oom_score_adj).during(Act::Limits)?;
    enter_namespaces(&destination, &first).during(Act::Namespaces)?;
    drop(first);
    // The death signal is lost with a change of credentials.
    die_with(supervisor)?;
    // Made before any limit of the container's, which may allow no descriptors on the way (`ETOOMANYREFS`, unix(7)).
    let (theirs, mailbox) = Channel::mailbox()?;
    channel.send(&FromChild::Ready, &theirs.fds())?;
    drop(theirs);
    let channels = Channels { own: channel, process: &mailbox };
    match channel.receive_any_size()? {
        Some((ToChild::Process(process), fds)) => set_up_process(&destination, &process, fds, score, channels, program),
        _ => exit_now(0),
    }
}

/// The channels of an intermediate process.
struct Channels<'a> {
    /// Its own. When it closes, the supervisor goes on with the other one.
    own: &'a Channel,
    /// The channel of the process that it makes, over which it reports its own last message too.
    process: &'a Channel,
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

/// The error of a request to enter a container that has ended.
#[must_use]
pub fn container_has_ended() -> Error {
    Error::new(Code::ContainerEnded, ENTER, "it has ended, or is being stopped")
        .hint("create another one with Container.create()")
}

/// Enters all namespaces in one call: either all or none. The pidfd makes sure that they are those of the container, even
/// if the number of its first process was reused.
fn enter_namespaces(destination: &Destination, first: &OwnedFd) -> Result<()> {
    let flags = destination.namespaces.iter().fold(0, |flags, kind| flags | kind.flag());
    if flags != 0 {
        setns(first, CloneFlags::from_bits_retain(flags as i32))
            .map_err(|errno| if errno == Errno::ESRCH { container_has_ended() } else { Error::os(ENTER, "", errno) })?;
    }
    let around = &destination.surroundings;
    match &around.user_namespace {
        UserNamespace::Joined => maps::become_root_of_joined(),
        user => maps::become_mapped(user)?,
    }
    hide()?;
    identity::drop_bounding(Capabilities::ALL, &around.most)
}

/// Does what comes before the process is made: all that takes a right, a descriptor or a look at the container's files.
/// Nobody in the container can see this process, unless they share the supervisor's PID namespace.
fn set_up_process(
    destination: &Destination,
    process: &Process,
    mut fds: Vec<OwnedFd>,
    mut score: OomScore,
    channels: Channels<'_>,
    program: &OwnedFd,
) -> Result<Infallible> {
    score.set(process.resources.oom_score_adj).during(Act::Limits)?;
    drop(score);
    // The terminal's master must be closed before the process is made: whoever has it reads and types for the user.
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
    // This process has the supervisor's rights over the container: it drops all of them before it makes the process.
    let command = complete::assume(&destination.surroundings, process)?;
    hide()?;
    let program = Some(program).filter(|_| destination.init);
    // The process gets a copy of every descriptor, and a tracer can keep it from the exec that would close them. So
    // nothing is open from here on but what the command is to have, its channel, and the program for an init. This process's
    // own channel, over which it could send descriptors to the supervisor, is closed.
    let fds = exec::arrange_fds(&process.preserve_fds, fds, channels.process, program).during(Act::Descriptors)?;
    let Err(error) = make_process(process, command, &fds);
    complete::report(&fds.channel, error.during(Act::Namespaces))
}

/// Makes the process itself, as a child of the supervisor. It waits until the supervisor was sent its number: nobody else
/// would ever end it.
fn make_process(process: &Process, command: PreparedCommand, fds: &Arranged) -> Result<Infallible> {
    let step = "start the process";
    let (go, release) = pipe_with(PipeFlags::CLOEXEC).at(step, "")?;
    let body = || {
        if !matches!(File::from(go).read(&mut [0]), Ok(1)) {
            return 0;
        }
        match start_session(process) {
            Ok(()) => command.exec(process, fds),
            Err(error) => complete::report(&fds.channel, error.during(Act::Terminal)),
        }
    };
    let (new, release) = spawn_apart(libc::CLONE_PARENT as u64, release, body)
        .map_err(|errno| explain_clone_error(Error::os(step, "", errno)))?;
    fds.channel.send(&FromChild::ProcessMade(new.pid.as_raw_nonzero().get()), &[])?;
    File::from(release).write_all(b"g").at(step, "")?;
    exit_now(0)
}

/// Adds the known reasons to the error of a clone3(2) that the kernel refuses.
fn explain_clone_error(error: Error) -> Error {
    match error.errno.map(Errno::from_raw) {
        // What the kernel says of a PID namespace whose first process is gone (pid_namespaces(7)). A container that is so
        // short of memory can't be entered either.
        Some(Errno::ENOMEM) => container_has_ended(),
        Some(Errno::EAGAIN) => {
            error.hint("the limit of processes is reached (nproc), in which this one counts for two")
        }
        _ => error,
    }
}

/// Starts the session of the new process and takes its terminal: no process can do that for another. The container may
/// watch all of it.
fn start_session(process: &Process) -> Result<()> {
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
