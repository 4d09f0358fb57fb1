//! A container in the caller's own terminal: this process took the place of the one the caller started, so that signals,
//! terminal and exit code need no relay but the container's own.

use std::io::Write;
use std::os::fd::OwnedFd;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::epoll::EventFlags;
use rustix::termios::{OutputModes, tcgetattr};

use crate::net::publish;
use crate::spec::Spec;
use crate::supervise::engine::token::Token;
use crate::supervise::engine::{Engine, RunRequest};
use crate::supervise::io::output_pump::{self, OutputPump, PumpedOutput, ReaderState};
use crate::supervise::io::relay::{self, Relay};
use crate::supervise::protocol::{Event, Exit, ProcessAddress, Report};
use nsrs_base::error::{At, Error, Result, notice};
use nsrs_base::sys::child::spawn;
use nsrs_base::sys::process::leave_caller;
use nsrs_base::sys::signal::{is_ignored, set_default};
use nsrs_base::sys::wait::Status;

/// The number of the signals among the descriptors of this front.
const SIGNALS: u32 = 1;
/// The address of the only container and its first process.
const ONLY: ProcessAddress = ProcessAddress { container: 1, process: 1 };

/// Signals that are the supervisor's own: `SIGCHLD` of its children, and those about its terminal output.
const OWN: [Signal; 6] =
    [Signal::SIGCHLD, Signal::SIGPIPE, Signal::SIGTTIN, Signal::SIGTTOU, Signal::SIGKILL, Signal::SIGSTOP];
/// Signals that tell of a fault of this very process.
const FAULTS: [Signal; 6] =
    [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGFPE, Signal::SIGILL, Signal::SIGTRAP, Signal::SIGSYS];

/// What our caller has us ignore, as nohup(1) does and scripts for their jobs in the background, the command ignores too.
fn forwarded() -> SigSet {
    let is_kept = |signal: &Signal| OWN.contains(signal) || FAULTS.contains(signal) || is_ignored(*signal);
    Signal::iterator().filter(|signal| !is_kept(signal)).collect()
}

/// How a container ended, and what its caller should see.
#[derive(Debug)]
pub struct ContainerEnd {
    /// The exit code or signal of its command, and what it used.
    pub exit: Exit,
    /// It was ended by Ctrl-C on the caller's terminal. A shell that runs a script goes on with its next line unless what it
    /// waits for dies of the signal itself; an exit code says that the signal was handled.
    pub by_interrupt: bool,
    /// The list of its changes, where that is wanted.
    pub changes: Option<OwnedFd>,
}

/// Runs one container and returns how it ended.
///
/// # Errors
/// Every reason why there was none.
pub fn run(mut spec: Spec, fds: Vec<OwnedFd>, program: OwnedFd) -> Result<ContainerEnd, Vec<Error>> {
    // Who ignores it has no children to wait for, and we have.
    set_default(Signal::SIGCHLD).at("reset the signal", Signal::SIGCHLD)?;
    let mut engine = Engine::new(program)?;
    let set = forwarded();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None).at("block signals", "")?;
    let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).at("watch signals", "")?;
    engine.watch(&signals, Token::Front(SIGNALS), EventFlags::IN)?;
    if spec.process.tty.is_some() {
        spec.process.tty = relay::caller_size().or(spec.process.tty);
    }
    // Only a command that is PID 1 is spared by SIGPIPE, and a terminal is relayed anyway.
    let is_pid_one = spec.process.tty.is_none() && !spec.init;
    let (stdio, pumps) = if is_pid_one {
        let PumpedOutput { streams, own_pipes, pumps } = output_pump::open(&engine)?;
        spec.own_pipes = own_pipes;
        (Some(streams), pumps)
    } else {
        (None, Vec::new())
    };
    let ports = Ports::of(&spec);
    engine.start(RunRequest { address: ONLY, spec: &spec, stdio, fds, announce: ports.are_chosen });
    let result = supervise(&mut engine, &signals, pumps, &ports);
    // What is removed behind the caller's back is removed by copies of this process. They may live a moment longer, and the
    // caller may unmount what he is in right away.
    let _ = rustix::process::chdir("/");
    engine.sweep();
    give_back(&mut engine);
    result
}

/// The ports that the caller publishes.
struct Ports {
    /// Those whose port on the host the caller names, as reports have them.
    named: Vec<String>,
    /// There are others, of which nobody but us knows where they are.
    are_chosen: bool,
}

impl Ports {
    fn of(spec: &Spec) -> Ports {
        let all = spec.network.publish.iter().filter_map(|text| publish::parse(text).ok()).flatten();
        let (named, free): (Vec<_>, Vec<_>) = all.partition(|port| port.host_port.is_some());
        let named = named.iter().map(ToString::to_string).collect();
        Ports { named, are_chosen: spec.image.publish_all || !free.is_empty() }
    }

    /// Tells which ports of the host were chosen, in the words of `--publish`.
    fn tell(&self, report: &Report) {
        let chosen: Vec<&str> =
            report.ports.iter().filter(|port| !self.named.contains(port)).map(String::as_str).collect();
        if !chosen.is_empty() {
            say(&format!("published {}", chosen.join(", ")));
        }
    }
}

/// Tells the user something. Where the terminal is raw by now, a line feed alone wouldn't begin a line.
fn say(text: &str) {
    let mut stderr = std::io::stderr();
    let is_raw = tcgetattr(&stderr).is_ok_and(|modes| !modes.output_modes.contains(OutputModes::OPOST));
    let line = notice(text);
    let line = if is_raw { line.replace('\n', "\r\n") } else { line };
    // A failure to report this must not fail the command.
    let _ = stderr.write_all(line.as_bytes());
}

/// Removes the bridge behind the caller's back: the kernel takes some 40 ms for it, and the caller waits for an exit code.
fn give_back(engine: &mut Engine) {
    if !engine.holds_network() {
        return;
    }
    let released = spawn(0, || {
        leave_caller();
        engine.let_go();
        // What fails here is found by the next nsrs command, which collects what nobody uses.
        let _ = engine.release();
        0
    });
    if released.is_err() {
        drop(engine.release());
    }
}

fn supervise(
    engine: &mut Engine,
    signals: &SignalFd,
    mut pumps: Vec<OutputPump>,
    ports: &Ports,
) -> Result<ContainerEnd, Vec<Error>> {
    let mut relay: Option<Relay> = None;
    let mut announced = None;
    let mut is_interrupted = false;
    loop {
        for (event, fd) in engine.take_events() {
            match (event, fd) {
                (Event::Terminal { .. }, Some(master)) => relay = Some(Relay::start(master, engine)?),
                (Event::Started { report, .. }, _) => {
                    ports.tell(&report);
                    announced = Some(report);
                }
                (Event::Failed { errors, .. }, _) => return Err(errors),
                (Event::Exited { exit, report, .. }, changes) => {
                    if let Some(relay) = &mut relay {
                        relay.drain();
                    }
                    pumps.iter_mut().for_each(OutputPump::drain);
                    for fallback in report.or(announced).into_iter().flat_map(|report| report.fallbacks) {
                        say(&fallback);
                    }
                    let by_interrupt = is_interrupted && exit.status == Status::Signaled(libc::SIGINT);
                    return Ok(ContainerEnd { exit, by_interrupt, changes });
                }
                _ => {}
            }
        }
        for token in engine.wait()? {
            if let Some(pump) = pumps.iter_mut().find(|pump| pump.number() == token) {
                if pump.ready(engine) == ReaderState::Gone {
                    engine.kill(ONLY, libc::SIGPIPE);
                    pumps.retain(|pump| pump.number() != token);
                }
                continue;
            }
            match (token, &mut relay) {
                (SIGNALS, relay) => is_interrupted |= take_signals(engine, signals, relay.as_ref()),
                (token, Some(relay)) => {
                    relay.ready(token, engine)?;
                    attend(engine, relay);
                }
                _ => {}
            }
        }
    }
}

/// Does what was typed, or the reader's end, means to a command with a terminal of its own.
fn attend(engine: &mut Engine, relay: &mut Relay) {
    if std::mem::take(&mut relay.reader_gone) {
        // As from a terminal that is gone.
        engine.kill_group(ONLY, libc::SIGHUP);
    }
    for signal in std::mem::take(&mut relay.keys) {
        if engine.key(ONLY, signal, relay.foreground()) && signal == libc::SIGTSTP {
            stop(engine, Some(relay));
        }
    }
}

/// Stops, as the job of a shell that the command is a part of.
fn stop(engine: &mut Engine, relay: Option<&Relay>) {
    if let Some(relay) = relay {
        relay.restore();
    }
    stop_until_continued();
    if let Some(relay) = relay {
        relay.raw();
    }
    // Where nobody could continue us (setpgid(2), orphaned process groups) the kernel has not stopped us.
    engine.kill_group(ONLY, libc::SIGCONT);
}

/// Hands on every signal that has come. Returns whether the terminal's Ctrl-C was among them.
fn take_signals(engine: &mut Engine, signals: &SignalFd, relay: Option<&Relay>) -> bool {
    let mut is_interrupted = false;
    while let Ok(Some(info)) = signals.read_signal() {
        let number = info.ssi_signo as i32;
        // What a key of the terminal sends is for the whole job, which a container of its own session is no part of.
        let from_terminal = info.ssi_code == libc::SI_KERNEL;
        is_interrupted |= from_terminal && number == libc::SIGINT;
        let send = |engine: &mut Engine, number| match from_terminal {
            true => engine.kill_group(ONLY, number),
            false => engine.kill(ONLY, number),
        };
        match (Signal::try_from(number), relay) {
            (Ok(Signal::SIGWINCH), Some(relay)) => relay.follow_size(),
            (Ok(Signal::SIGCONT), Some(relay)) => {
                relay.raw();
                relay.follow_size();
                engine.kill_group(ONLY, number);
            }
            (Ok(Signal::SIGCONT), None) => engine.kill_group(ONLY, number),
            (Ok(Signal::SIGTSTP), relay) => {
                // As a shell's job: the command stops, then the process that the shell waits for.
                send(engine, number);
                stop(engine, relay);
            }
            _ => send(engine, number),
        }
    }
    is_interrupted
}

/// Ends this process as Ctrl-C ends one that has no handler, if that is possible.
pub fn die_of_interrupt() {
    let _ = set_default(Signal::SIGINT);
    let _ = nix::sys::signal::raise(Signal::SIGINT);
    let _ = sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&SigSet::from(Signal::SIGINT)), None);
}

/// Lets the signal that was taken from the terminal do to this process what it does.
fn stop_until_continued() {
    let stop = SigSet::from(Signal::SIGTSTP);
    let _ = nix::sys::signal::raise(Signal::SIGTSTP);
    let _ = sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&stop), None);
    let _ = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&stop), None);
}
