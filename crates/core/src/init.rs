//! The container's init: starts the command, reaps orphans, hands on signals, ends with the command.
//!
//! As PID 1 it takes the rest of the container along: the kernel sees to that. Elsewhere, in the host's or a joined PID
//! namespace, it is the one to whom the kernel gives the orphans of its descendants, and ends them itself.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, killpg, sigprocmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2};

use crate::steps::channel::{Channel, FromChild, ToChild};
use crate::steps::exec::{Image, reset_signals};
use nsrs_base::error::{At, Code, Error, Result};
use nsrs_base::sys::clone::{Side, clone3};
use nsrs_base::sys::process::exit_now;
use nsrs_base::sys::signal;

/// Runs the command and returns the exit code to end with.
pub fn run(channel: OwnedFd, args: &[String]) -> u8 {
    let channel = Channel::from_fd(channel);
    // The command can neither trace the init nor reach its executable or its channel through /proc, unless it was given
    // the right to trace (CAP_SYS_PTRACE). Lost again with the exec of the command.
    let hidden = nix::sys::prctl::set_dumpable(false).at("hide from other processes", "");
    match hidden.and_then(|()| supervise(&channel, args)) {
        Ok(code) => code,
        Err(error) => {
            let code = error.code.exit_code();
            let _ = channel.send(&FromChild::Failed(error), &[]);
            code
        }
    }
}

fn supervise(channel: &Channel, args: &[String]) -> Result<u8> {
    let all = SigSet::all();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&all), None).at("block signals", "")?;
    let is_pid_one = std::process::id() == 1;
    let supervisor = Pid::parent();
    if !is_pid_one {
        nix::sys::prctl::set_child_subreaper(true).at("become the parent of orphans", "")?;
        // Without a PID namespace the kernel doesn't end the others with this process. So the supervisor's death comes as
        // a signal that can be acted upon.
        let told = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::HUP));
        told.at("hear of the supervisor's death", "")?;
        channel.send(&FromChild::InCharge, &[])?;
        // The supervisor kills an init that it doesn't know to be in charge, and whom that one had started by then would
        // be left to nobody.
        match channel.receive::<ToChild>()? {
            Some((ToChild::Start, _)) => {}
            _ => return Err(Error::new(Code::SupervisorLost, "wait for the supervisor", "it is gone")),
        }
    }
    let env: Vec<String> = std::env::vars_os()
        .map(|(name, value)| format!("{}={}", name.to_string_lossy(), value.to_string_lossy()))
        .collect();
    let image = Image::new(args, &env)?;
    let (told, tell) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).at("make a pipe", "")?;
    let own = rustix::process::getpid();
    let child = match clone3(0).at("start the command", "")? {
        Side::Parent(pid, _) => Pid::from_raw(pid.as_raw_nonzero().get()),
        Side::Child => {
            let error = start(&image, own);
            let _ = rustix::io::write(&tell, &serde_json::to_vec(&error).unwrap_or_default());
            exit_now(i32::from(error.code.exit_code()))
        }
    };
    drop(tell);
    let mut reason = Vec::new();
    let _ = std::io::Read::read_to_end(&mut std::fs::File::from(told), &mut reason);
    match serde_json::from_slice::<Error>(&reason) {
        Ok(error) => return Err(error),
        Err(_) => {
            if let Err(error) = channel.send(&FromChild::Executed, &[]) {
                end_orphans();
                return Err(error);
            }
        }
    }
    loop {
        // In our own PID namespace a signal is either for the command or tells of a child.
        match signal::wait(&all) {
            Ok((Signal::SIGCHLD, _)) => {
                if let Some(code) = reap(channel, child) {
                    if !is_pid_one {
                        end_orphans();
                    }
                    return Ok(code);
                }
            }
            Ok(_) if !is_pid_one && (Pid::parent() != supervisor || is_closed(channel)) => {
                end_orphans();
                let _ = kill(Pid::this(), Signal::SIGKILL);
            }
            // The command leads a process group of its own.
            Ok((signal, true)) => drop(killpg(child, signal)),
            Ok((signal, false)) => drop(kill(child, signal)),
            Err(_) => {}
        }
    }
}

/// The supervisor says nothing more: the container is to end.
fn is_closed(channel: &Channel) -> bool {
    let mut poll = [rustix::event::PollFd::new(channel, rustix::event::PollFlags::IN)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut poll, Some(&now)).is_ok_and(|ready| ready > 0)
}

/// In the child: a process group of its own, in the terminal's foreground if there is one, then the command.
fn start(image: &Image, init: rustix::process::Pid) -> Error {
    // Where the init is not PID 1, its end would not be the command's.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    if rustix::process::getppid() != Some(init) {
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

/// Reaps everything that has ended; the command's end is ours.
fn reap(channel: &Channel, child: Pid) -> Option<u8> {
    loop {
        let (raw, code) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == child => (code << 8, code),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => (signal as i32, 128 + signal as i32),
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return None,
            _ => continue,
        };
        let _ = channel.send(&FromChild::Ended(raw), &[]);
        return Some(code as u8);
    }
}
