//! The entrance: the process from which all that enter containers descend.

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::AtFlags;
use nix::unistd::execveat;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use super::intermediate::{self, Origin};
use crate::steps::channel::{Channel, FromEntrance, ToEntrance};
use nsrs_base::error::{At, Code, Error, Result};
use nsrs_base::sys::child::{ChildProcess, spawn};
use nsrs_base::sys::fds::{close_leftovers, close_others, duplicate_above, leave};
use nsrs_base::sys::process::leave_caller;

const START: &str = "start the entrance to containers";
const PREPARE: &str = "make the intermediate process";

/// The process of an entrance that was just started.
#[derive(Debug)]
pub struct EntranceProcess {
    /// Its process id, for wait(2).
    pub pid: Pid,
    /// Its pidfd, readable when it has ended.
    pub pidfd: OwnedFd,
    /// The channel to it: [`ToEntrance`] and [`FromEntrance`]. It ends when this is closed.
    pub channel: Channel,
}

/// Starts the entrance from the sealed executable of this process, which has one thread only.
///
/// # Errors
/// The kernel refuses a process or a descriptor.
pub fn start(program: &OwnedFd) -> Result<EntranceProcess> {
    let (ours, theirs) = Channel::pair()?;
    let child = spawn(0, || {
        leave_caller();
        let error = execute(program, &theirs);
        let _ = theirs.send(&FromEntrance::Failed { request: None, error }, &[]);
        125
    });
    let ChildProcess { pid, pidfd } = child.at(START, "")?;
    Ok(EntranceProcess { pid, pidfd, channel: ours })
}

/// Executes our own program with an empty environment: that of the supervisor may hold secrets.
fn execute(program: &OwnedFd, channel: &Channel) -> Error {
    let handed =
        close_others(&[program.as_fd(), channel.socket().as_fd()]).and_then(|()| duplicate_above(channel.socket(), 3));
    let result = handed.and_then(|handed| {
        let number = leave(handed)?;
        let args = ["nsrs-runtime", "enter", &number.to_string()].map(CString::new);
        let args = args.into_iter().collect::<Result<Vec<_>, _>>().unwrap_or_default();
        execveat(program, c"", &args, &[] as &[CString], AtFlags::AT_EMPTY_PATH)
    });
    let Err(errno) = result;
    Error::os(START, "", errno)
}

/// Serves the supervisor, this process's parent, until it closes its end of the channel. `program` is our executable in sealed memory.
///
/// # Errors
/// The supervisor sends what is not a message of ours.
pub fn serve(channel: &Channel, program: &OwnedFd) -> Result<()> {
    intermediate::hide()?;
    set_parent_process_death_signal(Some(Signal::KILL)).at("die with the supervisor", "")?;
    close_leftovers(&[channel.socket().as_fd(), program.as_fd()]).at("close all other file descriptors", "")?;
    // For whoever finds it in a list of the host's processes.
    rustix::thread::set_name(c"nsrs-entrance").at("name the process", "")?;
    let supervisor = getppid();
    while let Some((ToEntrance::Prepare(request), _)) = channel.receive()? {
        if let Err(error) = prepare(channel, request, program, supervisor) {
            channel.send(&FromEntrance::Failed { request: Some(request), error }, &[])?;
        }
    }
    Ok(())
}

/// Makes an intermediate process, as a child of the supervisor, and waits until it has answered.
fn prepare(channel: &Channel, request: u64, program: &OwnedFd, supervisor: Option<Pid>) -> Result<()> {
    let (answered, answer) = pipe_with(PipeFlags::CLOEXEC).at(PREPARE, "")?;
    let body = || intermediate::run(Origin { entrance: channel, request, answer: &answer, supervisor, program });
    spawn(libc::CLONE_PARENT as u64, body).at(PREPARE, "")?;
    drop(answer);
    match File::from(answered).read(&mut [0]).at(PREPARE, "")? {
        0 => Err(Error::new(Code::SetupFailed, PREPARE, "it ended before it was ready")),
        _ => Ok(()),
    }
}
