//! Programs of the host that do a small work for us, like newuidmap(1).

use std::io::Read;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::io::ioctl_fionbio;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::poll::readable_within;
use crate::error::{At, Code, Error, Result};

/// Whoever runs one does nothing else meanwhile: what isn't done after this time never will be.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most that is taken of what it says.
const MOST: u64 = 64 * 1024;

/// What a helper wrote, and how it ended.
#[derive(Debug)]
pub struct HelperOutput {
    /// It exited with code 0.
    pub success: bool,
    /// What it wrote to standard output and error.
    pub said: String,
    status: std::process::ExitStatus,
}

impl HelperOutput {
    /// The last line that it wrote, or else how it ended.
    #[must_use]
    pub fn why(&self) -> String {
        let last = self.said.lines().rev().find(|line| !line.trim().is_empty());
        last.map_or_else(|| format!("it said nothing and ended with {}", self.status), |line| line.trim().to_owned())
    }
}

/// Runs a helper to its end, with nothing to read.
///
/// # Errors
/// It can't be run; it did not end in time, and was killed.
pub fn run(step: &str, command: &mut Command) -> Result<HelperOutput> {
    run_within(PATIENCE, step, command)
}

fn run_within(patience: Duration, step: &str, command: &mut Command) -> Result<HelperOutput> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().at(step, &program)?;
    let in_time = ends_within(patience, &child);
    if !in_time {
        let _ = child.kill();
    }
    let status = child.wait().at(step, &program)?;
    if !in_time {
        let why = format!("it did not end within {} s, and was killed", patience.as_secs_f32());
        return Err(Error::new(Code::SetupFailed, step, why)
            .on(program)
            .hint("run it by hand to see what it waits for"));
    }
    // Whoever it left behind may hold the pipes open: only what is there.
    let mut said = Vec::new();
    if let Some(pipe) = child.stdout.take() {
        take(pipe, &mut said);
    }
    if let Some(pipe) = child.stderr.take() {
        take(pipe, &mut said);
    }
    Ok(HelperOutput { success: status.success(), said: String::from_utf8_lossy(&said).into_owned(), status })
}

fn ends_within(patience: Duration, child: &Child) -> bool {
    let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else { return false };
    pidfd_open(pid, PidfdFlags::empty()).is_ok_and(|pidfd| readable_within(&pidfd, Some(patience)))
}

fn take(pipe: impl Read + AsFd, said: &mut Vec<u8>) {
    let _ = ioctl_fionbio(&pipe, true);
    let _ = pipe.take(MOST).read_to_end(said);
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn what_it_says_is_taken_and_who_it_leaves_behind_is_not_waited_for() {
        let begun = Instant::now();
        let ended = run("try", &mut shell("sleep 20 & echo out; echo err >&2; kill -9 $! && exit 3")).unwrap();
        assert!(!ended.success && ended.said.contains("out\n") && ended.why() == "err", "{ended:?}");
        let ended = run("try", &mut shell("setsid sleep 7 & exit 0")).unwrap();
        assert!(ended.success && begun.elapsed() < Duration::from_secs(5));
        assert_eq!(run("try", &mut shell("exit 3")).unwrap().why(), "it said nothing and ended with exit status: 3");
    }

    #[test]
    fn one_that_does_not_end_is_killed_and_named() {
        let error = run_within(Duration::from_millis(100), "try", &mut shell("exec sleep 20")).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("try sh: it did not end within 0.1 s, and was killed"), "{text}");
    }

    #[test]
    fn one_that_is_not_there_is_an_error() {
        let error = run("try", &mut Command::new("/nonexistent")).unwrap_err();
        assert_eq!((error.errno, error.subject.as_str()), (Some(libc::ENOENT), "/nonexistent"));
    }
}
