//! The executable of nsrs that handles images: `nsrs-image VERSION VERB [--format json] [--progress MODE] [--parent PID] …`.
//!
//! Results go to the standard output, what happens to the standard error. One that is killed at any moment leaves the
//! store as it was or as it should be.

// They panic, and with that abort, where nobody hears them.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod args;
mod identity;
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

use nsrs_base::error::{self, At, Code, Error, Result};
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
        return finish(&Progress::new(Mode::Plain), Err(by_hand()));
    }
    let verb = args.remove(1);
    let version = args.remove(0);
    let mut args = Args::new(args);
    let mode = match mode(&mut args) {
        Ok(mode) => mode,
        Err(error) => return finish(&Progress::new(Mode::Plain), Err(error)),
    };
    let progress = Progress::new(mode);
    more_descriptors();
    // Node forgets what was ignored when nsrs was started, as by nohup(1); the command line hands it on.
    if let Some(mask) = std::env::var("NSRS_IGNORED_SIGNALS").ok().and_then(|mask| mask.parse().ok()) {
        nsrs_base::sys::signal::ignore_those_of(mask);
    }
    // What we were started with is not for the programs we start: credential helpers, newuidmap.
    let _ = nsrs_base::sys::fds::close_on_exec_from(3);
    // Before anything starts a thread: a process of several can't enter a user namespace.
    let result = check(&version)
        .and_then(|()| format(&mut args))
        .and_then(|json| identity::become_needed(verbs::touches_trees(&verb)).map(|warning| (json, warning)))
        .and_then(|(json, warning)| {
            warning.into_iter().for_each(|warning| progress.warn(warning));
            // To enter a user namespace undoes this.
            end_with_parent(&mut args)?;
            verbs::run(&verb, Call { args, progress: progress.clone(), json })
        });
    if result.is_ok() && verbs::brings_trees(&verb) {
        identity::settle_later();
    }
    finish(&progress, result)
}

/// `--parent PID`: ends with the process that started us, however that ends; at once, if it is gone already.
fn end_with_parent(args: &mut Args) -> Result<()> {
    let Some(parent) = args.value("--parent")? else { return Ok(()) };
    set_parent_process_death_signal(Some(Signal::KILL)).at("end with the caller", "")?;
    if getppid().is_none_or(|pid| pid.as_raw_nonzero().to_string() != parent) {
        std::process::exit(128 + Signal::KILL.as_raw());
    }
    Ok(())
}

/// As many descriptors as may be: a deep tree of many layers takes one for each directory on the way.
fn more_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

fn finish(progress: &Progress, result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let errors = [error];
            progress.fail(&errors);
            ExitCode::from(error::exit_code(&errors))
        }
    }
}

fn by_hand() -> Error {
    Error::new(Code::InvalidArgument, "start nsrs-image", "it is a part of nsrs and not meant to be run by hand")
        .hint("npx nsrs --help")
}

/// All programs of nsrs travel in one package; of two builds the one would misread the other.
fn check(version: &str) -> Result<()> {
    if version == VERSION {
        return Ok(());
    }
    Err(Error::new(
        Code::SupervisorLost,
        "start nsrs-image",
        format!("the caller is of version {version}, nsrs-image of {VERSION}"),
    )
    .hint("install nsrs again, so that both come from one package"))
}

/// `--progress json|plain|live|none`, `--quiet`; by default live on a terminal and plain elsewhere.
fn mode(args: &mut Args) -> Result<Mode> {
    let quiet = args.flag("--quiet");
    Ok(match args.value("--progress")?.as_deref() {
        Some("json") => Mode::Json,
        _ if quiet => Mode::Quiet,
        Some("plain") => Mode::Plain,
        Some("live") => Mode::Live,
        Some("none") => Mode::Quiet,
        Some(other) => return Err(Error::invalid("--progress", other, "give json, plain, live or none")),
        None if std::io::stderr().is_terminal() => Mode::Live,
        None => Mode::Plain,
    })
}

/// `--format json|table`.
fn format(args: &mut Args) -> Result<bool> {
    match args.value("--format")?.as_deref() {
        None | Some("table") => Ok(false),
        Some("json") => Ok(true),
        Some(other) => Err(Error::invalid("--format", other, "give json or table")),
    }
}
