//! `pull`, `push`, `login` and `logout`: the verbs that use a registry.

use std::io::{BufRead, IsTerminal};

use nsrs_base::error::{At, Code, Error, Result};
use nsrs_base::options::{JOBS, each};
use nsrs_base::sys::poll;
use nsrs_base::sys::signal::Held;
use nsrs_store::reference::{Reference, parse_registry};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::{Signal, getpid, kill_process};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use serde_json::json;

use super::Call;
use crate::args::Args;
use crate::caller_store::{make_store, open_store};
use crate::output;
use crate::progress::Mode;
use crate::registry::{Client, RegistryOptions};

/// The longest line that is read as a user name or password, in bytes.
const MAX_PASSWORD: u64 = 64 << 10;

/// `--plain-http`, `--ca-file FILE`, `--authfile FILE`, and what the environment says.
fn options(call: &mut Call) -> Result<RegistryOptions> {
    let mut options = RegistryOptions::from_environment()?;
    options.plain_http = call.args.flag("--plain-http");
    options.ca_file = call.args.value("--ca-file")?.map(Into::into);
    options.auth_file = call.args.value("--authfile")?.map(Into::into);
    Ok(options)
}

fn client(call: &mut Call) -> Result<Client> {
    Client::new(options(call)?, call.progress.clone())
}

fn jobs(args: &mut Args) -> Result<usize> {
    let Some(text) = args.value("--jobs")? else { return Ok(crate::pull::JOBS) };
    match text.parse() {
        Ok(jobs @ 1..=16) => Ok(jobs),
        _ => Err(Error::invalid(JOBS, text, "give a number from 1 to 16")),
    }
}

/// Writes the result: JSON, the digest alone, or nothing where the closing line has it already.
fn result(call: &Call, value: &serde_json::Value) -> Result<()> {
    let line = match (call.json, call.progress.mode()) {
        (true, _) => value.to_string(),
        (false, Mode::Quiet) => value["digest"].as_str().unwrap_or_default().to_owned(),
        (false, _) => return Ok(()),
    };
    output::line(&line)
}

/// `pull [--platform OS/ARCH[/VARIANT]] [--jobs N] [--no-unpack] [--max-ratio N] IMAGE`.
///
/// # Errors
/// Those of the arguments and of [`crate::pull::pull`].
pub fn pull(mut call: Call) -> Result<()> {
    let client = client(&mut call)?;
    let options = crate::pull::PullOptions {
        platform: super::platform(&mut call.args)?,
        jobs: jobs(&mut call.args)?,
        unpack: !call.args.flag("--no-unpack"),
        unpacking: super::limits(&mut call)?,
    };
    let args = std::mem::replace(&mut call.args, Args::new(Vec::new()));
    let reference = Reference::parse(&args.rest("the name of one image", 1, 1)?[0])?;
    let store = make_store()?;
    let pulled = crate::pull::pull(&store, &client, &reference, &options)?;
    if options.unpack {
        let image = store.image_for(&store.find(&reference.to_string())?, options.platform.as_ref())?;
        store.stack(&image.config.diff_ids)?;
        if !pulled.present {
            super::warn_of_losses(&store, &image, &call.progress)?;
        }
    }
    result(
        &call,
        &json!({
            "reference": reference.to_string(),
            "digest": pulled.digest.to_string(),
            "image": pulled.image.to_string(),
            "present": pulled.present,
        }),
    )
}

/// `push [--jobs N] IMAGE [TO]`: under its own name, if no other is given; an id has none.
///
/// # Errors
/// Those of the arguments and of [`crate::push::push`].
pub fn push(mut call: Call) -> Result<()> {
    let client = client(&mut call)?;
    let jobs = jobs(&mut call.args)?;
    let args = std::mem::replace(&mut call.args, Args::new(Vec::new()));
    let names = args.rest("the name of an image, and optionally the name to push it to", 1, 2)?;
    let store = open_store()?;
    let _guard = store.guard()?;
    let image = store.find(&names[0])?;
    let target = Reference::parse(names.last().unwrap_or(&names[0]))?;
    if names.len() == 1 && target.digest().is_none() && image.name.as_deref() != Some(&target.to_string()) {
        return Err(Error::new(Code::InvalidArgument, "push the image", "an id has no registry to push to")
            .on(&names[0])
            .hint(each(
                "give a name in option to",
                &format!("give a name, too: nsrs push {} REGISTRY/NAME:TAG", names[0]),
            )));
    }
    let digest = crate::push::push(&store, &client, &image, &target, jobs)?;
    result(&call, &json!({ "reference": target.to_string(), "digest": digest.to_string() }))
}

/// `login [--username USER] [REGISTRY]`; the password comes by the standard input, from a terminal without echo.
///
/// # Errors
/// Those of the arguments and of [`crate::login::login`].
pub fn login(mut call: Call) -> Result<()> {
    let options = options(&mut call)?;
    let user = call.args.value("--username")?;
    let args = std::mem::replace(&mut call.args, Args::new(Vec::new()));
    let registry = registry(args)?;
    let user = match user {
        Some(user) => user,
        None => ask(&format!("username for {registry}: "), true)?,
    };
    let password = ask("password: ", false)?;
    // Threads only now: what asks for the password holds signals back.
    let client = Client::new(options, call.progress.clone())?;
    let kept = crate::login::login(&client, &registry, &user, &password)?;
    if call.json {
        return result(&call, &json!({ "registry": registry, "user": user, "kept": kept }));
    }
    if call.progress.mode() != Mode::Quiet {
        output::print_error(&format!("logged in to {registry} as {user}; credentials stored in {kept}\n"));
    }
    Ok(())
}

/// `logout [REGISTRY]`.
///
/// # Errors
/// Those of the arguments and of [`crate::login::logout`].
pub fn logout(mut call: Call) -> Result<()> {
    let client = client(&mut call)?;
    let args = std::mem::replace(&mut call.args, Args::new(Vec::new()));
    let registry = registry(args)?;
    let known = crate::login::logout(&client, &registry)?;
    if call.json {
        return result(&call, &json!({ "registry": registry, "known": known }));
    }
    if call.progress.mode() != Mode::Quiet {
        output::print_error(&format!("{} {registry}\n", if known { "logged out of" } else { "not logged in to" }));
    }
    Ok(())
}

fn registry(args: Args) -> Result<String> {
    let rest = args.rest("the name of one registry", 0, 1)?;
    parse_registry(rest.first().map_or("docker.io", String::as_str))
}

/// One line of the standard input; on a terminal with a question, and without echo for what is secret.
fn ask(question: &str, echo: bool) -> Result<String> {
    let stdin = std::io::stdin();
    let terminal = stdin.is_terminal();
    let line = match terminal && !echo {
        true => secret(question)?,
        false => {
            if terminal {
                output::print_error(question);
            }
            let mut line = String::new();
            let read = std::io::Read::take(stdin.lock(), MAX_PASSWORD).read_line(&mut line);
            read.at("read the standard input", "")?;
            line.trim_end_matches(['\n', '\r']).to_owned()
        }
    };
    match line.is_empty() {
        true => Err(Error::new(Code::InvalidArgument, "log in", "no input")
            .hint("echo PASSWORD | nsrs login --username USER REGISTRY")),
        false => Ok(line),
    }
}

/// How reading a secret ended.
enum End {
    /// The whole line was read.
    Line,
    /// The key that breaks it off: Ctrl-C.
    Key,
    /// A signal waits, which is delivered once the echo is restored.
    Signal,
}

/// A line of the terminal without echo, which is off before the question invites to type. Signals wait until it is as it was,
/// and Ctrl-C is read as a byte: each would leave the terminal silent.
fn secret(question: &str) -> Result<String> {
    let step = "read the terminal";
    let stdin = std::io::stdin();
    let before = tcgetattr(&stdin).at(step, "")?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
    loop {
        let held = Held::back().at(step, "")?;
        tcsetattr(&stdin, OptionalActions::Now, &silent).at(step, "")?;
        output::print_error(question);
        let mut line: Vec<u8> = Vec::new();
        let end = read_secret(&held, &mut line);
        let _ = tcsetattr(&stdin, OptionalActions::Now, &before);
        output::print_error("\n");
        drop(held);
        match end? {
            End::Line => {
                let not_text = |_| Error::new(Code::InvalidArgument, "log in", "the password is not UTF-8");
                return String::from_utf8(line).map_err(not_text);
            }
            End::Key => {
                // Now the key may do what it always does.
                let _ = kill_process(getpid(), Signal::INT);
                return Err(Error::new(Code::InvalidArgument, "log in", "interrupted"));
            }
            // It was ignored, or has stopped us, and that is over.
            End::Signal => {}
        }
    }
}

/// Reads up to the end of the line, or until a signal waits.
fn read_secret(held: &Held, line: &mut Vec<u8>) -> Result<End> {
    let step = "read the terminal";
    let stdin = std::io::stdin();
    loop {
        let mut ready = [PollFd::new(held, PollFlags::IN), PollFd::new(&stdin, PollFlags::IN)];
        poll::wait(&mut ready, None).at(step, "")?;
        if !ready[0].revents().is_empty() {
            return Ok(End::Signal);
        }
        let mut byte = [0];
        match rustix::io::read(&stdin, &mut byte) {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::os(step, "", errno)),
            Ok(0) => return Ok(End::Line),
            Ok(_) => match byte[0] {
                b'\n' | b'\r' | 4 => return Ok(End::Line),
                3 => return Ok(End::Key),
                8 | 127 => {
                    // A character, not a byte.
                    while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
                }
                byte => line.push(byte),
            },
        }
    }
}
