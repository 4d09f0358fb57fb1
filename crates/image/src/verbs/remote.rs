//! `pull`, `push`, `login` and `logout`: the verbs that speak to a registry.

use std::io::{BufRead, IsTerminal, Write};

use nsrs_core::error::{At, Code, Error, Result};
use nsrs_core::image::reference::{Reference, parse_registry};
use serde_json::json;

use super::Call;
use crate::args::Args;
use crate::identity::{open_store, unpacking};
use crate::progress::Mode;
use crate::registry::platform::Platform;
use crate::registry::{Client, Options};

/// A password longer than this is none.
const MOST_PASSWORD: usize = 64 << 10;

/// `--plain-http`, `--ca-file FILE`, `--authfile FILE`, and what the environment says.
fn client(call: &mut Call) -> Result<Client> {
    let mut options = Options::from_environment()?;
    options.plain_http = call.args.flag("--plain-http");
    options.ca_file = call.args.value("--ca-file")?.map(Into::into);
    options.auth_file = call.args.value("--authfile")?.map(Into::into);
    Client::new(options, call.progress.clone())
}

fn jobs(args: &mut Args) -> Result<usize> {
    let Some(text) = args.value("--jobs")? else { return Ok(crate::pull::JOBS) };
    match text.parse() {
        Ok(jobs @ 1..=16) => Ok(jobs),
        _ => Err(Error::invalid("--jobs", text, "give a number from 1 to 16")),
    }
}

fn platform(args: &mut Args) -> Result<Option<Platform>> {
    args.value("--platform")?.map(|text| Platform::parse(&text)).transpose()
}

/// Writes the result: JSON, the digest alone, or nothing where the closing line has told it.
fn result(call: &Call, value: &serde_json::Value) -> Result<()> {
    let line = match (call.json, call.progress.mode()) {
        (true, _) => value.to_string(),
        (false, Mode::Quiet) => value["digest"].as_str().unwrap_or_default().to_owned(),
        (false, _) => return Ok(()),
    };
    writeln!(std::io::stdout(), "{line}").at("write the result", "")
}

/// `pull [--platform OS/ARCH[/VARIANT]] [--jobs N] [--no-unpack] IMAGE`.
///
/// # Errors
/// Those of the arguments and of [`crate::pull::pull`].
pub fn pull(mut call: Call) -> Result<()> {
    let client = client(&mut call)?;
    let options = crate::pull::Options {
        platform: platform(&mut call.args)?,
        jobs: jobs(&mut call.args)?,
        unpack: !call.args.flag("--no-unpack"),
        unpacking: unpacking()?,
    };
    let args = std::mem::replace(&mut call.args, Args::new(Vec::new()));
    let reference = Reference::parse(&args.rest("the name of one image", 1, 1)?[0])?;
    let pulled = crate::pull::pull(&open_store()?, &client, &reference, &options)?;
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

/// `push [--jobs N] IMAGE [TO]`.
///
/// # Errors
/// Those of the arguments and of [`crate::push::push`].
pub fn push(mut call: Call) -> Result<()> {
    let client = client(&mut call)?;
    let jobs = jobs(&mut call.args)?;
    let args = std::mem::replace(&mut call.args, Args::new(Vec::new()));
    let names = args.rest("the name of an image, and where it goes if that is another name", 1, 2)?;
    let source = Reference::parse(&names[0])?.to_string();
    let target = Reference::parse(names.last().unwrap_or(&names[0]))?;
    let digest = crate::push::push(&open_store()?, &client, &source, &target, jobs)?;
    result(&call, &json!({ "reference": target.to_string(), "digest": digest.to_string() }))
}

/// `login [--username USER] [REGISTRY]`; the password comes by the standard input, from a terminal without echo.
///
/// # Errors
/// Those of the arguments and of [`crate::login::login`].
pub fn login(mut call: Call) -> Result<()> {
    let client = client(&mut call)?;
    let user = call.args.value("--username")?;
    let args = std::mem::replace(&mut call.args, Args::new(Vec::new()));
    let registry = registry(args)?;
    let user = match user {
        Some(user) => user,
        None => ask(&format!("user of {registry}: "), true)?,
    };
    let password = ask("password: ", false)?;
    let kept = crate::login::login(&client, &registry, &user, &password)?;
    if call.json {
        return result(&call, &json!({ "registry": registry, "user": user, "kept": kept }));
    }
    if call.progress.mode() != Mode::Quiet {
        eprintln!("logged in to {registry} as {user}; kept in {kept}");
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
        eprintln!(
            "{}",
            if known { format!("logged out of {registry}") } else { format!("not logged in to {registry}") }
        );
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
    let mut before = None;
    if terminal {
        eprint!("{question}");
        if !echo && let Ok(modes) = rustix::termios::tcgetattr(&stdin) {
            let mut silent = modes.clone();
            silent.local_modes.remove(rustix::termios::LocalModes::ECHO);
            let _ = rustix::termios::tcsetattr(&stdin, rustix::termios::OptionalActions::Now, &silent);
            before = Some(modes);
        }
    }
    let mut line = String::new();
    let read = std::io::Read::take(stdin.lock(), MOST_PASSWORD as u64).read_line(&mut line);
    if let Some(modes) = before {
        let _ = rustix::termios::tcsetattr(&stdin, rustix::termios::OptionalActions::Now, &modes);
        eprintln!();
    }
    read.at("read the standard input", "")?;
    let line = line.trim_end_matches(['\n', '\r']).to_owned();
    match line.is_empty() {
        true => Err(Error::new(Code::InvalidArgument, "log in", "nothing came by the standard input")
            .hint("echo PASSWORD | nsrs login --username USER REGISTRY")),
        false => Ok(line),
    }
}
