//! A child process that runs code of ours, and may answer.
//!
//! It is a copy of the process that makes it, does one thing, and ends without running anything else of what it was copied
//! from. What it answers goes through a pipe that is closed on exec, as one JSON text of a `Result`.

use std::fs::File;
use std::io::{Read, Write};
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use rustix::event::{PollFd, PollFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::clone::{Side, clone3};
use super::poll;
use super::process::{exit_now, send_signal};
use super::wait::{Status, reap};
use crate::error::{At, Code, Error, Result};

/// The exit code of a child whose code panicked.
const PANICKED: i32 = 70;
/// Most of an answer that is read, in bytes: far more than any error.
const MOST: u64 = 1 << 20;

/// A child of this process. It is not ended with this value.
#[derive(Debug)]
pub struct ChildProcess {
    /// Its process id, which is not reused before it is reaped.
    pub pid: Pid,
    /// Readable when it has ended.
    pub pidfd: OwnedFd,
}

/// A child that will answer.
#[derive(Debug)]
pub struct Asked<T> {
    /// The child, which ends after its answer.
    pub child: ChildProcess,
    /// The pipe that its answer comes through.
    pub answer: AnswerPipe<T>,
}

/// The end of the pipe that the answer of a child comes from.
#[derive(Debug)]
pub struct AnswerPipe<T> {
    pipe: File,
    of: PhantomData<fn() -> T>,
}

/// Ends the child even if its code panics: that must not unwind into what belongs to the process it was copied from.
struct NeverBack;

impl Drop for NeverBack {
    fn drop(&mut self) {
        exit_now(PANICKED);
    }
}

/// Has a child, in new namespaces (`CLONE_NEW*` in `flags`), run `body` and end with the exit code it returns.
///
/// # Errors
/// Fails as clone3(2) does.
pub fn spawn(flags: u64, body: impl FnOnce() -> i32) -> Result<ChildProcess, Errno> {
    spawn_apart(flags, (), body).map(|(child, ())| child)
}

/// As [`spawn`]; what is `ours` alone, above all the other end of a pipe, is dropped in the child first.
///
/// # Errors
/// Fails as clone3(2) does.
pub fn spawn_apart<T>(flags: u64, ours: T, body: impl FnOnce() -> i32) -> Result<(ChildProcess, T), Errno> {
    match clone3(flags)? {
        Side::Child => {
            let _never_back = NeverBack;
            drop(ours);
            exit_now(body())
        }
        Side::Parent(pid, pidfd) => Ok((ChildProcess { pid, pidfd }, ours)),
    }
}

/// Has a child run `body` and answer with what it returns. The child ends with 0, or after an error with 1.
///
/// # Errors
/// No descriptors are left; those of clone3(2), as errors of `step` on `subject`.
pub fn ask<T: Serialize + DeserializeOwned>(
    step: &str,
    subject: &str,
    flags: u64,
    body: impl FnOnce() -> Result<T>,
) -> Result<Asked<T>> {
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC).at("make a pipe", "")?;
    let (ours, mut theirs) = (File::from(ours), File::from(theirs));
    let reply = || {
        let result = body();
        let _ = theirs.write_all(&serde_json::to_vec(&result).unwrap_or_default());
        i32::from(result.is_err())
    };
    let (child, pipe) = spawn_apart(flags, ours, reply).at(step, subject)?;
    Ok(Asked { child, answer: AnswerPipe { pipe, of: PhantomData } })
}

/// Has the kernel kill this process when `parent`, which made it, ends. `false`: it has ended already.
#[must_use]
pub fn dies_with(parent: Pid) -> bool {
    set_parent_process_death_signal(Some(Signal::KILL)).is_ok() && getppid() == Some(parent)
}

impl ChildProcess {
    /// Waits until it ends, for no longer than `limit`, and takes its status. `None`: it runs on, or was reaped before.
    pub fn wait(&self, limit: Option<Duration>) -> Option<Status> {
        if poll::readable_within(&self.pidfd, limit) { self.reap() } else { None }
    }

    /// Kills the child (`SIGKILL`), without waiting for its end.
    pub fn kill(&self) {
        send_signal(&self.pidfd, libc::SIGKILL);
    }

    fn reap(&self) -> Option<Status> {
        reap(self.pid).ok().flatten().map(|(status, _)| status)
    }
}

impl<T: DeserializeOwned> Asked<T> {
    /// Waits for the child's end, and returns its answer.
    ///
    /// # Errors
    /// The error that the child's body returned; it ended without an answer.
    pub fn wait(self, step: &str) -> Result<T> {
        self.finish(step, None)
    }

    /// As [`Asked::wait`], for no longer than `limit`; then the child is killed.
    ///
    /// # Errors
    /// It did not answer in time.
    pub fn wait_within(self, step: &str, limit: Duration) -> Result<T> {
        self.finish(step, Some(limit))
    }

    fn finish(mut self, step: &str, limit: Option<Duration>) -> Result<T> {
        let Some(bytes) = self.gather(limit) else {
            self.child.kill();
            // A process deep in the kernel may take its time even then; it is left rather than waited for without end.
            let _ = self.child.wait(limit);
            let limit = limit.unwrap_or_default();
            return Err(Error::new(Code::SetupFailed, step, format!("no answer within {limit:?}")));
        };
        let status = self.child.reap();
        decode(&bytes).unwrap_or_else(|| Err(no_answer(step, status)))
    }

    /// What it wrote until its end. Whoever it left behind may hold the pipe open: no more is waited for.
    fn gather(&mut self, limit: Option<Duration>) -> Option<Vec<u8>> {
        let deadline = limit.map(|limit| Instant::now() + limit);
        let mut bytes = Vec::new();
        let mut is_open = true;
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let mut fds =
                [PollFd::new(&self.child.pidfd, PollFlags::IN), PollFd::new(&self.answer.pipe, PollFlags::IN)];
            let watched = if is_open { &mut fds[..] } else { &mut fds[..1] };
            if !poll::wait(watched, left).unwrap_or(false) {
                return None;
            }
            let [has_ended, has_more] = fds.map(|fd| !fd.revents().is_empty());
            if is_open && has_more {
                let mut chunk = [0; 4096];
                let count = self.answer.pipe.read(&mut chunk).unwrap_or(0);
                bytes.extend_from_slice(&chunk[..count]);
                is_open = count > 0 && bytes.len() as u64 <= MOST;
            } else if has_ended {
                return Some(bytes);
            }
        }
    }
}

impl<T: DeserializeOwned> AnswerPipe<T> {
    /// Waits until the child answers, or closes the pipe without an answer (`None`): it has executed a program, or ended.
    ///
    /// # Errors
    /// The error that the child's body returned.
    pub fn read(self) -> Result<Option<T>> {
        let mut bytes = Vec::new();
        let _ = self.pipe.take(MOST).read_to_end(&mut bytes);
        decode(&bytes).transpose()
    }
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<Result<T>> {
    serde_json::from_slice(bytes).ok()
}

/// The error for a child that ended without an answer.
#[must_use]
pub fn no_answer(step: &str, status: Option<Status>) -> Error {
    let why = match status {
        // `SIGSYS` is how a seccomp filter of the surroundings ends a process.
        Some(Status::Signaled(signal)) => match nix::sys::signal::Signal::try_from(signal) {
            Ok(signal) => format!("killed by {signal}"),
            Err(_) => format!("killed by signal {signal}"),
        },
        Some(Status::Exited(code)) => format!("ended without an answer (exit code {code})"),
        None => "ended without an answer".to_owned(),
    };
    Error::new(Code::SetupFailed, step, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::leave_caller;

    const STEP: &str = "try it";

    fn asked(body: impl FnOnce() -> Result<String>) -> Asked<String> {
        ask(STEP, "", 0, body).unwrap()
    }

    #[test]
    fn an_answer_and_an_error_come_back_whole() {
        nsrs_testing::alone!();
        assert_eq!(asked(|| Ok("seen".into())).wait(STEP), Ok("seen".into()));
        let error = Error::os("mount", "proc", 1).hint("unmask it");
        assert_eq!(asked(|| Err(error.clone())).wait(STEP), Err(error));
        // Longer than a pipe holds.
        let long = "x".repeat(300_000);
        assert_eq!(asked(|| Ok(long.clone())).wait(STEP), Ok(long));
    }

    #[test]
    fn the_end_without_an_answer_is_an_error_that_tells_how() {
        nsrs_testing::alone!();
        let killed = asked(|| {
            let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
            Ok(String::new())
        });
        assert_eq!(killed.wait(STEP).unwrap_err().to_string(), "try it: killed by SIGKILL");
        let ended = asked(|| exit_now(3)).wait(STEP).unwrap_err();
        assert_eq!(ended.to_string(), "try it: ended without an answer (exit code 3)");
    }

    #[test]
    fn one_that_hangs_is_killed_and_reaped() {
        nsrs_testing::alone!();
        let hanging = asked(|| {
            loop {
                std::thread::sleep(Duration::from_secs(60));
            }
        });
        let pid = hanging.child.pid;
        let error = hanging.wait_within(STEP, Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.to_string(), "try it: no answer within 50ms");
        assert_eq!(reap(pid), Err(Errno::ECHILD));
    }

    #[test]
    fn who_is_left_behind_with_the_pipe_is_not_waited_for() {
        nsrs_testing::alone!();
        let begun = Instant::now();
        let answer = asked(|| {
            let _ = spawn(0, || {
                // Not with what this test is heard by.
                leave_caller();
                std::thread::sleep(Duration::from_secs(20));
                0
            });
            Ok("done".into())
        });
        assert_eq!(answer.wait(STEP), Ok("done".into()));
        assert!(begun.elapsed() < Duration::from_secs(15));
    }

    #[test]
    fn a_pipe_that_is_closed_by_an_exec_is_no_answer() {
        nsrs_testing::alone!();
        let asked = asked(|| {
            let error = nix::unistd::execv(c"/bin/true", &[c"true"]);
            Err(error.at("execute", "/bin/true").unwrap_err())
        });
        assert_eq!(asked.answer.read(), Ok(None));
        assert_eq!(asked.child.wait(None), Some(Status::Exited(0)));
    }

    #[test]
    fn a_panic_ends_the_child() {
        nsrs_testing::alone!();
        let child = spawn(0, || panic!("as it is to be")).unwrap();
        assert_eq!(child.wait(None), Some(Status::Exited(PANICKED)));
    }
}
