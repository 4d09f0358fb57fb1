//! Limits and scores of the process itself.

use std::fs::{File, OpenOptions};
use std::io::Write;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

use crate::plan::limits::Rlimit;
use crate::plan::process::Resources;
use nsrs_base::error::{At, Code, Error, Result};

fn resource(limit: &Rlimit) -> Option<Resource> {
    Some(match limit.name.as_str() {
        "as" => Resource::RLIMIT_AS,
        "core" => Resource::RLIMIT_CORE,
        "cpu" => Resource::RLIMIT_CPU,
        "data" => Resource::RLIMIT_DATA,
        "fsize" => Resource::RLIMIT_FSIZE,
        "locks" => Resource::RLIMIT_LOCKS,
        "memlock" => Resource::RLIMIT_MEMLOCK,
        "msgqueue" => Resource::RLIMIT_MSGQUEUE,
        "nice" => Resource::RLIMIT_NICE,
        "nofile" => Resource::RLIMIT_NOFILE,
        "nproc" => Resource::RLIMIT_NPROC,
        "rss" => Resource::RLIMIT_RSS,
        "rtprio" => Resource::RLIMIT_RTPRIO,
        "rttime" => Resource::RLIMIT_RTTIME,
        "sigpending" => Resource::RLIMIT_SIGPENDING,
        "stack" => Resource::RLIMIT_STACK,
        _ => return None,
    })
}

/// Sets the resource limits, while the process still has the right to raise them. That of open files is only raised here:
/// the acts that follow open some.
///
/// # Errors
/// `EPERM`: a hard limit above the caller's own.
pub fn set(resources: &Resources) -> Result<()> {
    for limit in &resources.rlimits {
        let resource = resource(limit)
            .ok_or_else(|| Error::new(Code::InvalidArgument, "set the limit", "no such resource").on(&limit.name))?;
        match resource {
            Resource::RLIMIT_NOFILE => {
                let (soft, hard) =
                    getrlimit(resource).map_err(|errno| Error::os("set the limit", &limit.name, errno))?;
                set_one(resource, limit, (soft, number(limit.hard).max(hard)))?;
            }
            _ => set_one(resource, limit, (number(limit.soft), number(limit.hard)))?,
        }
    }
    Ok(())
}

/// Sets the limit of open files, as the last act before the command is executed.
///
/// # Errors
/// None in practice: [`set`] has raised what had to be.
pub fn set_open_files(resources: &Resources) -> Result<()> {
    let is_meant = |limit: &&Rlimit| resource(limit) == Some(Resource::RLIMIT_NOFILE);
    resources
        .rlimits
        .iter()
        .filter(is_meant)
        .try_for_each(|limit| set_one(Resource::RLIMIT_NOFILE, limit, (number(limit.soft), number(limit.hard))))
}

fn number(value: Option<u64>) -> u64 {
    value.unwrap_or(RLIM_INFINITY)
}

fn set_one(resource: Resource, limit: &Rlimit, (soft, hard): (u64, u64)) -> Result<()> {
    setrlimit(resource, soft, hard).map_err(|errno| {
        let error = Error::os("set the limit", &limit.name, errno);
        match errno {
            nix::errno::Errno::EPERM => {
                error.hint("only root may raise a hard limit; ask for at most the caller's (ulimit -H)")
            }
            _ => error,
        }
    })
}

/// Sets the out-of-memory score through the host's /proc, before it is left.
///
/// # Errors
/// `EACCES`: a score below the caller's own, without the right.
pub fn set_oom_score(resources: &Resources) -> Result<()> {
    match resources.oom_score_adj {
        Some(score) => OomScore::open()?.set(Some(score)),
        None => Ok(()),
    }
}

/// The way to this process's own out-of-memory score (proc_pid_oom_score_adj(5)), which stays when the host's /proc is left.
pub struct OomScore(File);

const OOM_SCORE: &str = "set the out-of-memory score";

impl OomScore {
    /// Opens the file in the /proc that is mounted now.
    ///
    /// # Errors
    /// /proc is not mounted.
    pub fn open() -> Result<OomScore> {
        let path = "/proc/self/oom_score_adj";
        OpenOptions::new().write(true).open(path).at(OOM_SCORE, path).map(OomScore)
    }

    /// Sets the score; `None` keeps it.
    ///
    /// # Errors
    /// `EACCES`: a score below the caller's own, without the right.
    pub fn set(&mut self, score: Option<i32>) -> Result<()> {
        let Some(score) = score else { return Ok(()) };
        self.0.write_all(score.to_string().as_bytes()).at(OOM_SCORE, score).map_err(|error| match error.errno {
            Some(libc::EACCES) => error.hint("only root may go below the caller's own score"),
            _ => error,
        })
    }
}
