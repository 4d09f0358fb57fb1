//! A try in a short-lived child. Whatever happens there, an endless wait included, the caller goes on.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, pidfd_send_signal, set_parent_process_death_signal};

use crate::plan::namespace::Kind;
use crate::steps::root::make_private;
use nsrs_base::error::{Act, At, Code, During, Error, Result};
use nsrs_base::host::Host;
use nsrs_base::ids::maps;
use nsrs_base::ids::maps::{IdMap, MapWriter, UserNamespace};
use nsrs_base::sys::clone::{Side, clone3};
use nsrs_base::sys::process::exit_now;
use nsrs_base::sys::wait::{Status, reap};

/// How long one try may take.
const LIMIT: Duration = Duration::from_secs(2);
/// The longest answer that is read; a pipe takes it whole, so that the child never waits for a reader.
const LONGEST: usize = 4096;

/// Tries `body` in a child, and hands on what it saw.
pub fn run(body: impl FnOnce() -> Result<String>) -> Result<String> {
    in_child(LIMIT, 0, body)
}

/// Tries `body` in a child with new namespaces of these kinds. For a caller without rights a user namespace is added, in
/// which the caller keeps their id. Mounts are private.
pub fn within(host: &Host, kinds: &[Kind], body: impl FnOnce() -> Result<String>) -> Result<String> {
    let user = !host.privileged || kinds.contains(&Kind::User);
    let first = if user { Kind::User.flag() } else { 0 };
    let flags = kinds.iter().fold(first, |flags, kind| flags | kind.flag());
    let own = |id: u32| vec![IdMap { inside: id, outside: id, count: 1 }];
    let map = UserNamespace::Private {
        uids: own(host.uid),
        gids: own(host.gid),
        writer: MapWriter::Process,
        deny_setgroups: true,
    };
    in_child(LIMIT, flags, || {
        if user {
            maps::write_own(&map)?;
        }
        if kinds.contains(&Kind::Mount) {
            make_private()?;
        }
        body()
    })
}

/// Ends the child however `body` ends: a panic must not unwind into what belongs to the process it was copied from.
struct Last;

impl Drop for Last {
    fn drop(&mut self) {
        exit_now(70);
    }
}

fn in_child(limit: Duration, flags: u64, body: impl FnOnce() -> Result<String>) -> Result<String> {
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).at("make a pipe", "")?;
    let kinds: Vec<&str> = Kind::ALL.iter().filter(|kind| flags & kind.flag() != 0).map(|kind| kind.file()).collect();
    let step = if kinds.is_empty() { "make a process" } else { "make the namespaces" };
    match clone3(flags).at(step, kinds.join(", ")).during(Act::Namespaces)? {
        Side::Child => {
            let _last = Last;
            drop(ours);
            let _ = set_parent_process_death_signal(Some(Signal::KILL));
            let answer = serde_json::to_vec(&body()).unwrap_or_default();
            let _ = rustix::io::write(&theirs, &answer[..answer.len().min(LONGEST)]);
            exit_now(0)
        }
        Side::Parent(pid, pidfd) => {
            drop(theirs);
            answer(limit, pid, &pidfd, &ours)
        }
    }
}

fn answer(limit: Duration, pid: Pid, pidfd: &OwnedFd, pipe: &OwnedFd) -> Result<String> {
    let failed = |why: String| Err(Error::new(Code::SetupFailed, "try it", why));
    if !ended(pidfd, limit) {
        let _ = pidfd_send_signal(pidfd, Signal::KILL);
        // A process deep in the kernel may take its time even then; it is left rather than waited for without end.
        if ended(pidfd, limit) {
            let _ = reap(pid);
        }
        return failed(format!("no answer within {limit:?}"));
    }
    let status = reap(pid).at("take the status of the try", "")?.map(|(status, _)| status);
    let mut bytes = vec![0; LONGEST];
    let length = rustix::io::read(pipe, &mut bytes).unwrap_or(0);
    match (serde_json::from_slice(&bytes[..length]), status) {
        (Ok(answer), _) => answer,
        (Err(_), Some(Status::Signaled(signal))) => failed(format!("killed by {}", name(signal))),
        (Err(_), status) => failed(format!("ended without an answer ({status:?})")),
    }
}

/// `SIGSYS` is how a seccomp filter of the surroundings ends a process.
fn name(signal: i32) -> String {
    nix::sys::signal::Signal::try_from(signal).map_or(format!("signal {signal}"), |signal| signal.to_string())
}

/// Waits until the process has ended, this long at most.
fn ended(pidfd: impl AsFd, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Err(Errno::INTR) => {}
            result => return result.is_ok_and(|ready| ready > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use nsrs_testing::alone;

    use super::*;

    #[test]
    fn a_hanging_try_is_killed_in_time() {
        alone!();
        let since = Instant::now();
        let error = in_child(Duration::from_millis(100), 0, || {
            loop {
                std::thread::sleep(Duration::from_secs(60));
            }
        });
        assert_eq!(error.unwrap_err().to_string(), "try it: no answer within 100ms");
        assert!(since.elapsed() < Duration::from_secs(30), "{:?}", since.elapsed());
        let left = rustix::process::wait(rustix::process::WaitOptions::NOHANG).map(drop);
        assert_eq!(left, Err(Errno::CHILD), "it is reaped");
    }

    #[test]
    fn an_answer_an_error_and_a_crash_come_back() {
        alone!();
        assert_eq!(run(|| Ok("seen".into())), Ok("seen".into()));
        let error = Error::os("mount", "proc", 1).hint("unmask it");
        assert_eq!(run(|| Err(error.clone())), Err(error));
        let died = run(|| exit_now(3)).unwrap_err().to_string();
        assert!(died.contains("without an answer"), "{died}");
        let killed = run(|| {
            let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
            loop {
                std::thread::sleep(Duration::from_secs(1));
            }
        });
        assert_eq!(killed.unwrap_err().reason, "killed by SIGKILL");
    }
}
