//! The static executable of nsrs: supervisor of a Node process, container in the foreground, entrance to containers, init of
//! a container.

mod apply;
mod seal;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use nsrs_base::error::{At, Code, Error, Result, exit_code, notice, report, show};
use nsrs_base::options::{FDS, TIMEOUT};
use nsrs_base::sys::fds;
use nsrs_base::version::VERSION;
use nsrs_core::init;
use nsrs_core::spec::{self, Spec};
use nsrs_core::steps::channel::Channel;
use nsrs_core::steps::enter;
use nsrs_core::supervise::front::foreground::ContainerEnd;
use nsrs_core::supervise::front::{attached, foreground};

/// Where the addon puts the socket to the supervisor.
const SOCKET: i32 = 3;

fn main() -> ExitCode {
    // Descriptors 0 to 2 are open from here on: the standard library opens /dev/null for those that are missing.
    let args: Result<Vec<String>, _> = std::env::args_os().map(std::ffi::OsString::into_string).collect();
    let args = match args {
        Ok(args) => args,
        Err(arg) => {
            let why = "an argument is not UTF-8";
            let error = Error::new(Code::InvalidArgument, "start nsrs-runtime", why).on(show(arg.as_bytes()));
            return finish(Err(error.into()));
        }
    };
    match args.iter().skip(1).map(String::as_str).collect::<Vec<_>>()[..] {
        ["supervise", version] => finish(check(version).and_then(|()| supervise()).map(|()| 0).map_err(Vec::from)),
        ["run", version, request] => finish(check(version).map_err(Vec::from).and_then(|()| run(request)).map(code)),
        ["apply", version, directory, ref flags @ ..] => {
            finish(check(version).and_then(|()| apply::run(directory, flags)).map_err(Vec::from))
        }
        ["enter", channel] => finish(enter(channel).map(|()| 0).map_err(Vec::from)),
        ["init", channel, ..] => match channel_of_init(channel) {
            Ok(channel) => ExitCode::from(init::run(&channel, &args[3..])),
            Err(error) => finish(Err(error.into())),
        },
        ["--version"] => {
            println!("nsrs-runtime {VERSION}");
            ExitCode::SUCCESS
        }
        _ => finish(Err(Error::new(
            Code::InvalidArgument,
            "start nsrs-runtime",
            "it is a part of nsrs and not meant to be run by hand",
        )
        .hint("npx nsrs --help")
        .into())),
    }
}

/// The exit code for how the command ended, after the list of its changes; that it was the time limit is told, for the code
/// alone doesn't.
fn code(ContainerEnd { exit, by_interrupt, changes }: ContainerEnd) -> i32 {
    if let Some(changes) = changes {
        // A reader that is gone, or a disk that is full, is no matter of the command's.
        let _ = std::io::copy(&mut File::from(changes), &mut std::io::stderr());
    }
    if exit.timed_out {
        print_error(&notice(&format!("the command was killed: it ran for longer than {TIMEOUT} allows")));
    }
    if by_interrupt {
        foreground::die_of_interrupt();
    }
    exit.status.code()
}

/// The exit code for a result; errors are written out, each with its hint.
fn finish(result: Result<i32, Vec<Error>>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code as u8),
        Err(errors) => {
            print_error(&report(&errors));
            ExitCode::from(exit_code(&errors))
        }
    }
}

/// Writes what people should know. That it can't be written is no reason to do anything else.
fn print_error(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn number(text: &str) -> Result<i32> {
    text.parse()
        .map_err(|_| Error::new(Code::InvalidArgument, "start nsrs-runtime", "a file descriptor is a number").on(text))
}

fn inherited_channel(number_text: &str) -> Result<OwnedFd> {
    number(number_text).and_then(|fd| fds::inherited(fd).at("take over the channel", fd))
}

/// The channel of an init, from the numbers of its descriptors.
fn channel_of_init(numbers: &str) -> Result<Channel> {
    Channel::of_process(numbers.split(',').map(inherited_channel).collect::<Result<_>>()?)
}

/// Addon and executable travel in one package; of two builds the one would misread the other.
fn check(version: &str) -> Result<()> {
    if version == VERSION {
        return Ok(());
    }
    Err(Error::new(
        Code::SupervisorLost,
        "start the supervisor",
        format!("the addon is of version {version}, nsrs-runtime of {VERSION}"),
    )
    .hint("install nsrs again, so that both come from one package"))
}

/// Serves a Node process until its end of the socket closes.
fn supervise() -> Result<()> {
    let program = seal::program()?;
    let socket = fds::inherited(SOCKET).at("take over the socket", SOCKET)?;
    // Away from the caller's terminal: Ctrl-C is for Node to handle, and Node's end is ours.
    rustix::process::setsid().at("leave the caller's session", "")?;
    rustix::process::chdir("/").at("leave the caller's directory", "/")?;
    attached::serve(socket, program)
}

/// Serves a supervisor as the entrance to its containers.
fn enter(channel: &str) -> Result<()> {
    let program = seal::program()?;
    enter::serve(&Channel::from_fd(inherited_channel(channel)?), &program)
}

/// Runs the one container that the handed request asks for.
fn run(request: &str) -> Result<ContainerEnd, Vec<Error>> {
    let program = seal::program()?;
    let request = number(request).and_then(|fd| fds::inherited(fd).at("take over the request", fd))?;
    let text = std::io::read_to_string(File::from(request)).at("read the request", "")?;
    let spec: Spec = spec::parse(&text)?;
    let numbers: BTreeSet<i32> = spec.preserve_fds.iter().copied().collect();
    let passed = numbers.iter().map(|fd| {
        fds::inherited(*fd).map_err(|_| Error::invalid(FDS, fd, "the caller has no such open file descriptor"))
    });
    let passed = passed.collect::<Result<_>>()?;
    let spec = Spec { preserve_fds: numbers.into_iter().collect(), ..spec };
    foreground::run(spec, passed, program)
}
