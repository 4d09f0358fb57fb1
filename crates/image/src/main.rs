//! The executable of nsrs that handles images:
//! `nsrs-image VERSION VERB [--format json] [--progress MODE] [--for-javascript] [--parent PID] …`.
//!
//! Results go to standard output, everything else to standard error. Killed at any moment, it leaves the store consistent.

// They panic if nobody reads, and a panic aborts.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod args;
mod caller_store;
mod login;
mod output;
mod pack;
mod progress;
mod pull;
mod push;
mod registry;
mod verbs;

use std::io::IsTerminal;
use std::process::ExitCode;

use nsrs_base::error::{self, Act, At, Code, Error, Result};
use nsrs_base::options::Front;
use nsrs_base::version::VERSION;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use crate::args::Args;
use crate::progress::{Mode, Progress};
use crate::verbs::Call;

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    if args == ["--version"] {
        return finish(&Progress::new(Mode::Plain), output::line(&format!("nsrs-image {VERSION}")));
    }
    if args.len() < 2 {
        return finish(&Progress::new(Mode::Plain), Err(run_directly()));
    }
    let verb = args.remove(1);
    let version = args.remove(0);
    let mut args = Args::new(args);
    let mode = match mode(&mut args) {
        Ok(mode) => mode,
        Err(error) => return finish(&Progress::new(Mode::Plain), Err(error)),
    };
    let progress = Progress::new(mode);
    raise_descriptor_limit();
    // Node forgets what was ignored when nsrs was started, as by nohup(1); the command line hands it on.
    if let Some(mask) = std::env::var("NSRS_IGNORED_SIGNALS").ok().and_then(|mask| mask.parse().ok()) {
        nsrs_base::sys::signal::ignore_those_of(mask);
    }
    // What we were started with is not for the programs we start: credential helpers, newuidmap.
    let _ = nsrs_base::sys::fds::close_on_exec_from(3);
    // Before any thread is started: a process with several can't enter a user namespace.
    let result = check(&version)
        .and_then(|()| format(&mut args))
        .and_then(|json| caller_store::gain_access(verbs::uses_layers(&verb)).map(|warning| (json, warning)))
        .and_then(|(json, warning)| {
            warning.into_iter().for_each(|warning| progress.warn(warning));
            // Only now: entering a user namespace resets it.
            end_with_parent(&mut args)?;
            verbs::run(&verb, Call { args, progress: progress.clone(), json })
        });
    if result.is_ok() && verbs::adds_layers(&verb) {
        caller_store::settle_in_background();
    }
    finish(&progress, result)
}

/// `--parent PID`: ends with the process that started us, however that ends; at once, if it is gone already.
fn end_with_parent(args: &mut Args) -> Result<()> {
    let Some(parent) = args.value("--parent")? else { return Ok(()) };
    set_parent_process_death_signal(Some(Signal::KILL)).at("set the parent death signal", "")?;
    if getppid().is_none_or(|pid| pid.as_raw_nonzero().to_string() != parent) {
        std::process::exit(128 + Signal::KILL.as_raw());
    }
    Ok(())
}

/// Raises the limit of open files: every directory on the way to an entry is held open.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

fn finish(progress: &Progress, result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let errors = [error.during(Act::Image)];
            progress.fail(&errors);
            ExitCode::from(error::exit_code(&errors))
        }
    }
}

fn run_directly() -> Error {
    Error::new(Code::InvalidArgument, "start nsrs-image", "internal program of nsrs, not meant to be run directly")
        .hint("npx nsrs --help")
}

/// The programs of nsrs are released together: those of different versions may misread each other.
fn check(version: &str) -> Result<()> {
    if version == VERSION {
        return Ok(());
    }
    Err(Error::new(
        Code::SupervisorLost,
        "start nsrs-image",
        format!("version mismatch: {version} of the caller, {VERSION} of nsrs-image"),
    )
    .hint("reinstall nsrs, so that both come from the same package"))
}

/// `--progress json|plain|live|none`, `--quiet`; by default live on a terminal and plain elsewhere. `--for-javascript`: the
/// caller is a program, which knows options by their names in JavaScript.
fn mode(args: &mut Args) -> Result<Mode> {
    let quiet = args.flag("--quiet");
    let front = if args.flag("--for-javascript") { Front::JavaScript } else { Front::Shell };
    Ok(match args.value("--progress")?.as_deref() {
        Some("json") => Mode::Json(front),
        _ if quiet => Mode::Quiet,
        Some("plain") => Mode::Plain,
        Some("live") => Mode::Live,
        Some("none") => Mode::Quiet,
        Some(other) => return Err(Error::invalid_value("--progress", other, "give json, plain, live or none")),
        None if std::io::stderr().is_terminal() => Mode::Live,
        None => Mode::Plain,
    })
}

/// Whether `--format json|table` asks for JSON; default `table`.
fn format(args: &mut Args) -> Result<bool> {
    match args.value("--format")?.as_deref() {
        None | Some("table") => Ok(false),
        Some("json") => Ok(true),
        Some(other) => Err(Error::invalid_value("--format", other, "give json or table")),
    }
}
