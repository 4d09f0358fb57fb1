//! Credential helpers: `docker-credential-NAME get|store|erase` (the protocol of docker-credential-helpers).

use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nsrs_base::error::{At, Code, Error, Result};
use serde::{Deserialize, Serialize};

use super::untrusted::tame;

/// A helper may ask its user something, but not forever.
const PATIENCE: Duration = Duration::from_secs(120);

/// The credentials of one registry, as a helper stores them.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct HelperCredential {
    /// The address that they are stored under.
    #[serde(rename = "ServerURL", default)]
    pub server: String,
    /// The user, or `<token>` if the secret is an identity token.
    pub username: String,
    /// The password, or the identity token.
    pub secret: String,
}

/// What the helper keeps under this address, if anything.
///
/// # Errors
/// The helper isn't there or fails.
pub fn get(name: &str, server: &str) -> Result<Option<HelperCredential>> {
    let (status, output) = run(name, "get", server.as_bytes())?;
    if !status.success() {
        return match output.contains("credentials not found") {
            true => Ok(None),
            false => Err(failed(name, server, &said(status, output))),
        };
    }
    let kept: HelperCredential =
        serde_json::from_str(&output).map_err(|_| failed(name, server, "malformed response"))?;
    Ok(Some(kept).filter(|kept| !kept.secret.is_empty()))
}

/// Makes the helper keep this.
///
/// # Errors
/// The helper isn't there or fails.
pub fn store(name: &str, kept: &HelperCredential) -> Result<()> {
    let text = serde_json::to_vec(kept).unwrap_or_default();
    let (status, output) = run(name, "store", &text)?;
    if status.success() { Ok(()) } else { Err(failed(name, &kept.server, &said(status, output))) }
}

/// Makes the helper forget this address; says whether it knew it.
///
/// # Errors
/// The helper isn't there or fails.
pub fn erase(name: &str, server: &str) -> Result<bool> {
    let known = get(name, server)?.is_some();
    let (status, output) = run(name, "erase", server.as_bytes())?;
    if status.success() || !known { Ok(known) } else { Err(failed(name, server, &said(status, output))) }
}

/// What a helper that failed says; how it ended, if it says nothing.
fn said(status: ExitStatus, output: String) -> String {
    if output.trim().is_empty() { format!("no output ({status})") } else { output }
}

fn failed(name: &str, server: &str, why: &str) -> Error {
    Error::new(Code::SetupFailed, format!("ask docker-credential-{name} for the credentials of"), tame(why))
        .on(server)
        .hint("fix the helper, or remove it from credsStore and credHelpers in the credentials file")
}

/// Runs the helper with this on its standard input: how it ended, and what it wrote.
fn run(name: &str, verb: &str, input: &[u8]) -> Result<(ExitStatus, String)> {
    let program = format!("docker-credential-{name}");
    // The name is a part of a file that may be written by others: it must not become a path.
    if name.is_empty() || name.contains('/') {
        return Err(Error::new(Code::InvalidArgument, "run the credential helper", "invalid name of a helper").on(name));
    }
    let mut child = Command::new(&program)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .at("run the credential helper", &program)
        .map_err(|error| error.hint("install it, or remove it from the credentials file"))?;
    let mut stdout = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = stdout.as_mut().map(|stdout| stdout.take(1 << 20).read_to_end(&mut text));
        String::from_utf8_lossy(&text).into_owned()
    });
    if let Some(mut stdin) = child.stdin.take() {
        // One that doesn't read what it is given will say why.
        let _ = stdin.write_all(input);
    }
    let status = wait(&mut child, &program)?;
    Ok((status, reader.join().unwrap_or_default()))
}

fn wait(child: &mut Child, program: &str) -> Result<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().at("wait for the credential helper", program)? {
            return Ok(status);
        }
        if start.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            return Err(Error::new(Code::SetupFailed, "wait for the credential helper", "timed out").on(program));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
