//! The container's init: starts the command, reaps orphans, hands on signals, ends with the command. Where there is no
//! command, it holds the container open until it is asked to end.
//!
//! As PID 1 it takes the rest of the container along: the kernel sees to that. Elsewhere, in the host's or a joined PID
//! namespace, it is the subreaper of its descendants (prctl(2)), and ends them itself.

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, killpg, sigprocmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::steps::channel::{Channel, FromChild, ToChild};
use crate::steps::exec::{Image, reset_signals};
use nsrs_base::error::{Act, At, Code, Error, Result};
use nsrs_base::sys::child::{self, ChildProcess, dies_with};
use nsrs_base::sys::signal;

/// Runs the command and returns the exit code to end with. Without a command it reaps orphans until a signal or the
/// supervisor ends it.
pub fn run(channel: &Channel, args: &[String]) -> u8 {
    // The command can neither trace the init nor reach its executable or its channel through /proc, unless it was given
    // the right to trace (CAP_SYS_PTRACE). Lost again with the exec of the command.
    let hidden = nix::sys::prctl::set_dumpable(false).at("hide from other processes", "");
    match hidden.and_then(|()| supervise(channel, args)) {
        Ok(code) => code,
        Err(error) => {
            let code = error.code.exit_code();
            let _ = channel.send(&FromChild::Failed(error.during(Act::Exec)), &[]);
            code
        }
    }
}

fn supervise(channel: &Channel, args: &[String]) -> Result<u8> {
    let all = SigSet::all();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&all), None).at("block signals", "")?;
    let reaper = if std::process::id() == 1 { Reaper::PidOne } else { take_charge(channel)? };
    let command = if args.is_empty() { None } else { Some(start(args)?) };
    if let Err(error) = channel.send(&FromChild::Executed, &[]) {
        reaper.end_others();
        return Err(error);
    }
    loop {
        // In our own PID namespace a signal is either for the command or SIGCHLD.
        match (signal::wait(&all), command) {
            (Ok((Signal::SIGCHLD, _)), _) => {
                if let Some(code) = reap(channel, command) {
                    reaper.end_others();
                    return Ok(code);
                }
            }
            (Ok(_), _) if reaper.is_abandoned(channel) => {
                reaper.end_others();
                let _ = kill(Pid::this(), Signal::SIGKILL);
            }
            // The command leads a process group of its own.
            (Ok((signal, true)), Some(command)) => drop(killpg(command, signal)),
            (Ok((signal, false)), Some(command)) => drop(kill(command, signal)),
            (Ok((signal, _)), None) if ENDING.contains(&signal) => {
                reaper.end_others();
                return Ok(0);
            }
            _ => {}
        }
    }
}

/// The signals that end an init without a command: those by which programs are asked to end.
const ENDING: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];

/// How the init comes to reap the processes that the command leaves behind.
#[derive(Clone, Copy)]
enum Reaper {
    /// The first of its PID namespace: the kernel ends the others with it.
    PidOne,
    /// In a PID namespace with others, whose descendants it ends itself.
    InCharge {
        /// Its parent, while that lives.
        supervisor: Pid,
    },
}

impl Reaper {
    /// Ends every process that came of the command.
    fn end_others(self) {
        if matches!(self, Reaper::InCharge { .. }) {
            end_orphans();
        }
    }

    /// Whether the supervisor is gone, or wants the container to end: it says nothing more then.
    fn is_abandoned(self, channel: &Channel) -> bool {
        match self {
            Reaper::PidOne => false,
            Reaper::InCharge { supervisor } => Pid::parent() != supervisor || channel.is_readable(),
        }
    }
}

/// Without a PID namespace of its own the kernel doesn't end the others with this process. So the supervisor's death comes
/// as a signal that can be acted upon.
fn take_charge(channel: &Channel) -> Result<Reaper> {
    let supervisor = Pid::parent();
    nix::sys::prctl::set_child_subreaper(true).at("become the parent of orphans", "")?;
    let told = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::HUP));
    told.at("watch for the supervisor's death", "")?;
    channel.send(&FromChild::InCharge, &[])?;
    // The supervisor kills an init that it doesn't know to be in charge, and what such an init had started by then would
    // be left behind.
    match channel.receive::<ToChild>()? {
        Some((ToChild::Start, _)) => Ok(Reaper::InCharge { supervisor }),
        _ => Err(Error::new(Code::SupervisorLost, "wait for the supervisor", "it is gone")),
    }
}

/// Starts the command, with this process's environment.
fn start(args: &[String]) -> Result<Pid> {
    let env: Vec<String> = std::env::vars_os()
        .map(|(name, value)| format!("{}={}", name.to_string_lossy(), value.to_string_lossy()))
        .collect();
    let image = Image::new(args, &env)?;
    let own = rustix::process::getpid();
    let command = child::ask::<()>("start the command", "", 0, || Err(become_command(&image, own)))?;
    let ChildProcess { pid, pidfd } = command.child;
    // The command finds nothing open here that this process doesn't need.
    drop(pidfd);
    // The pipe is closed by the exec, or by the end of a child that somebody killed, which is reported like the command's.
    command.answer.read()?;
    Ok(Pid::from_raw(pid.as_raw_nonzero().get()))
}

/// In the child: a process group of its own, in the terminal's foreground if there is one, then the command.
fn become_command(image: &Image, init: rustix::process::Pid) -> Error {
    // Where the init is not PID 1, its end would not be the command's.
    if !dies_with(init) {
        return Error::new(Code::SupervisorLost, "look for the init", "it is gone");
    }
    let pid = rustix::process::getpid();
    if rustix::process::setpgid(None, None).is_ok() && rustix::termios::isatty(nsrs_base::sys::fds::stdio()[0]) {
        let _ = rustix::termios::tcsetpgrp(nsrs_base::sys::fds::stdio()[0], pid);
    }
    match reset_signals() {
        Ok(()) => image.exec(),
        Err(error) => error,
    }
}

/// Ends every descendant: the children we have, and those we get by their end.
fn end_orphans() {
    let list = format!("/proc/self/task/{}/children", nix::unistd::gettid());
    while let Ok(children) = std::fs::read_to_string(&list) {
        let pids = children.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw);
        for pid in pids {
            let _ = kill(pid, Signal::SIGKILL);
        }
        if waitpid(None, None) == Err(Errno::ECHILD) {
            return;
        }
    }
}

/// Reaps everything that has ended; the command's end, if there is one, is ours.
fn reap(channel: &Channel, command: Option<Pid>) -> Option<u8> {
    loop {
        let (raw, code) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if Some(pid) == command => (code << 8, code),
            Ok(WaitStatus::Signaled(pid, signal, _)) if Some(pid) == command => (signal as i32, 128 + signal as i32),
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return None,
            _ => continue,
        };
        let _ = channel.send(&FromChild::Ended(raw), &[]);
        return Some(code as u8);
    }
}
