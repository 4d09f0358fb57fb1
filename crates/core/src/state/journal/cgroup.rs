//! Removing a cgroup with what runs in it (cgroups(7)).

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use nsrs_base::error::{At, Result};

/// So long the kernel has to take killed processes down.
const PATIENCE: Duration = Duration::from_secs(2);

/// Kills what runs in a cgroup and below it, and removes all of these. A cgroup that is already gone is not an error.
///
/// # Errors
/// Those of rmdir(2); `EBUSY`: a process could not be killed in time.
pub fn remove(path: &Path) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        match try_remove(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < until => {
                sleep(Duration::from_millis(2));
            }
            other => return other.at("remove the cgroup", path.display()),
        }
    }
}

fn try_remove(path: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(path)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            try_remove(&entry.path())?;
        }
    }
    // All at once since Linux 5.14 in version 2; else one by one, as often as it takes.
    if fs::write(path.join("cgroup.kill"), "1").is_err() {
        for line in fs::read_to_string(path.join("cgroup.procs"))?.lines() {
            if let Some(pid) = line.parse().ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
    fs::remove_dir(path)
}
