//! The journal of a supervisor: which processes it has, written before they can outlive it.
//!
//! The kernel ends almost everything with the supervisor: containers by their death signal, mounts and interfaces with
//! their namespaces, leases and ports with their descriptors. A hostile first process can take its death signal off, and
//! a helper program may lose it; those are written here, in fixed slots of a file that the supervisor holds locked. The
//! next nsrs command that finds the file unlocked ends what is left and removes it.

use std::fs::{self, File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::time::{ClockId, clock_gettime};

use nsrs_base::error::{At, Result};

/// One process in one line of this length: `PID NOTED [ask]\n`, padded with spaces.
const SLOT: usize = 40;
/// So long a process that is asked to end has, in milliseconds, before it is killed.
const PATIENCE_MS: i64 = if cfg!(test) { 200 } else { 2000 };
/// The kernel counts start times in hundredths of a second (`USER_HZ`).
const TICK_NS: u64 = 10_000_000;

/// What stands between the name of a journal and that of a file that goes with it.
const COMPANION: char = '.';

/// The journal of this supervisor.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    free: Vec<usize>,
    slots: usize,
}

/// How a process is ended that outlived its supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It is killed.
    Kill,
    /// It is the init of a container in a shared PID namespace, and ends its descendants when it hears of the supervisor's
    /// end: killed in the midst of that, it would leave them to nobody. It is told once more and waited for.
    Ask,
}

/// A line of the journal.
#[derive(Debug)]
pub struct Slot(usize);

/// Nanoseconds since boot.
fn now() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

impl Journal {
    /// Opens a journal of its own in the state directory.
    ///
    /// # Errors
    /// The file can't be made or locked.
    pub fn open(state: &Path) -> Result<Journal> {
        let step = "open the journal";
        let directory = state.join("supervisors");
        super::make_private(&directory, rustix::process::geteuid().as_raw())?;
        loop {
            let path = directory.join(format!("{}-{:x}", std::process::id(), now()));
            let file =
                OpenOptions::new().read(true).write(true).create_new(true).open(&path).at(step, path.display())?;
            // A lock of fcntl(2), which is the process's own: that of flock(2) lives on in the copies that processes have
            // which are just being made.
            fcntl_lock(&file, FlockOperation::LockExclusive).at(step, path.display())?;
            // Another nsrs that collects may have found it before it was locked.
            if path.exists() {
                return Ok(Journal { path, file, free: Vec::new(), slots: 0 });
            }
        }
    }

    /// A name that no other supervisor of this boot has.
    #[must_use]
    pub fn name(&self) -> String {
        self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// The path of a file that is collected with this journal.
    #[must_use]
    pub fn companion(&self, name: &str) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(format!("{COMPANION}{name}"));
        path.into()
    }

    /// Notes a process that was just made.
    ///
    /// # Errors
    /// The disk is full.
    pub fn note(&mut self, pid: Pid, end: End) -> Result<Slot> {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots += 1;
            self.slots - 1
        });
        let how = if end == End::Ask { " ask" } else { "" };
        let line = format!("{:<width$}\n", format!("{} {}{how}", pid.as_raw_nonzero(), now()), width = SLOT - 1);
        match self.file.write_all_at(line.as_bytes(), (slot * SLOT) as u64) {
            Ok(()) => Ok(Slot(slot)),
            Err(error) => {
                self.free.push(slot);
                Err(error).at("write the journal", self.path.display())
            }
        }
    }

    /// Strikes out a process that has ended.
    pub fn strike(&mut self, slot: Slot) {
        // A line that stays names a process that is gone: its start time matches nothing.
        let _ =
            self.file.write_all_at(format!("{:<width$}\n", "-", width = SLOT - 1).as_bytes(), (slot.0 * SLOT) as u64);
        self.free.push(slot.0);
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // A child that failed before its exec has a copy of this value, but not of the right to remove the file: only
        // the process that is named in it does.
        if self
            .path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(&format!("{}-", std::process::id())))
        {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// When a process was started, in ticks since boot: field 22 of /proc/PID/stat, counted after the name in parentheses.
fn started(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

/// Ends the processes of supervisors that died without cleaning up. Returns how many there were.
///
/// # Errors
/// The directory can't be read.
pub fn collect(state: &Path) -> Result<usize> {
    let mut ended = 0;
    let directory = match fs::read_dir(state.join("supervisors")) {
        Ok(directory) => directory,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error).at("read the journals in", state.display()),
    };
    let names: Vec<String> = directory.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let path = |name: &str| state.join("supervisors").join(name);
    for name in names.iter().filter(|name| !name.contains(COMPANION)) {
        let Ok(file) = File::options().read(true).write(true).open(path(name)) else { continue };
        if fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        let text = std::io::read_to_string(&file).unwrap_or_default();
        let mut asked = Vec::new();
        for line in text.lines() {
            let mut fields = line.split_whitespace();
            if let (Some(Ok(pid)), Some(Ok(noted))) = (fields.next().map(str::parse), fields.next().map(str::parse))
                && let Some(process) = find(pid, noted)
            {
                ended += 1;
                if fields.next() == Some("ask") {
                    asked.push(process);
                } else {
                    let _ = pidfd_send_signal(&process, Signal::KILL);
                }
            }
        }
        end_by_asking(&asked);
        let own = format!("{name}{COMPANION}");
        for companion in names.iter().filter(|other| other.starts_with(&own)) {
            let _ = fs::remove_file(path(companion));
        }
        let _ = fs::remove_file(path(name));
    }
    Ok(ended)
}

/// A process, if it still is the one that was noted and not another that got its number.
fn find(pid: i32, noted_ns: u64) -> Option<OwnedFd> {
    let same = || {
        started(pid).is_some_and(|ticks| {
            let started = ticks * TICK_NS;
            // It was started before it was noted, and not long before.
            started <= noted_ns + TICK_NS && noted_ns.saturating_sub(started) < 5_000_000_000
        })
    };
    // The descriptor is taken first: from here on the number can't pass to another process unnoticed.
    pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok().filter(|_| same())
}

/// Ends processes as [`End::Ask`] says: those that are told and don't end in time are killed.
fn end_by_asking(processes: &[OwnedFd]) {
    for process in processes {
        // One that was stopped could not act upon it.
        let _ = pidfd_send_signal(process, Signal::HUP).and_then(|()| pidfd_send_signal(process, Signal::CONT));
    }
    let until = now() + PATIENCE_MS as u64 * 1_000_000;
    for process in processes {
        let left = until.saturating_sub(now()) as i64;
        let timeout = Timespec { tv_sec: left / 1_000_000_000, tv_nsec: left % 1_000_000_000 };
        if poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&timeout)).unwrap_or(0) == 0 {
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("nsrs-journal-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        path
    }

    #[test]
    fn what_a_dead_supervisor_left_is_ended() {
        let state = scratch("left");
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let mut other = Command::new("sleep").arg("60").spawn().unwrap();
        let mut journal = Journal::open(&state).unwrap();
        journal.note(Pid::from_raw(child.id() as i32).unwrap(), End::Kill).unwrap();
        let struck = journal.note(Pid::from_raw(other.id() as i32).unwrap(), End::Kill).unwrap();
        journal.strike(struck);
        let stray = journal.companion("pasta-7");
        let used = state.join("supervisors/9-9.pasta-7");
        fs::write(&stray, "").unwrap();
        fs::write(&used, "").unwrap();
        let copy = fs::read(&journal.path).unwrap();
        let path = journal.path.clone();
        drop(journal);
        assert!(!path.exists());
        fs::write(&path, copy).unwrap();
        assert!(stray.exists());
        assert_eq!(collect(&state).unwrap(), 1);
        assert!(!stray.exists() && used.exists());
        assert!(!child.wait().unwrap().success());
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(!path.exists());
        fs::remove_dir_all(&state).unwrap();
    }

    #[test]
    fn an_init_is_asked_to_end_and_waited_for() {
        let state = scratch("asked");
        // The one ends what it has when it is told, the other doesn't listen.
        let trap =
            format!("trap 'sleep 0.05; echo > {}/done; exit' HUP; echo; while :; do sleep 0.01; done", state.display());
        let spawn = |script: &str| {
            let mut child = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
            // Its trap is set when it says something.
            child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
            child
        };
        let (mut polite, mut deaf) = (spawn(&trap), spawn("trap '' HUP; echo; while :; do sleep 0.01; done"));
        let mut journal = Journal::open(&state).unwrap();
        for child in [&polite, &deaf] {
            journal.note(Pid::from_raw(child.id() as i32).unwrap(), End::Ask).unwrap();
        }
        let (path, copy) = (journal.path.clone(), fs::read(&journal.path).unwrap());
        drop(journal);
        fs::write(&path, copy).unwrap();
        assert_eq!(collect(&state).unwrap(), 2);
        assert!(polite.wait().unwrap().success());
        assert!(state.join("done").exists());
        assert_eq!(deaf.wait().unwrap().signal(), Some(libc::SIGKILL));
        fs::remove_dir_all(&state).unwrap();
    }

    #[test]
    fn a_number_that_passed_to_another_process_is_left_alone() {
        let state = scratch("reused");
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        fs::create_dir(state.join("supervisors")).unwrap();
        fs::write(state.join("supervisors/1-0"), format!("{} 12345\n", child.id())).unwrap();
        assert_eq!(collect(&state).unwrap(), 0);
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        fs::remove_dir_all(&state).unwrap();
    }
}
