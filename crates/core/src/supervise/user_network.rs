//! pasta beside a container: started when the container's namespaces stand, watched until it is ready, ended with the
//! container.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::error::{At, Code, Error, Result};
use crate::net::pasta::{Pasta, PastaPlan, argv};
use crate::net::publish::Publish;
use crate::plan::network::INTERFACE;
use crate::state::journal::Slot;

/// A pasta of ours.
#[derive(Debug)]
pub struct UserNetwork {
    child: Child,
    fifo: PathBuf,
    /// Readable when it has ended.
    pub pidfd: OwnedFd,
    /// Readable when the network is up.
    pub ready: OwnedFd,
    /// Its line in the journal.
    pub slot: Option<Slot>,
}

impl UserNetwork {
    /// Starts pasta for the container whose first process this is.
    ///
    /// # Errors
    /// It can't be started, or is too old.
    pub fn start(pasta: &Pasta, pid: i32, userns: bool, publish: &[Publish], state: &Path) -> Result<UserNetwork> {
        let step = "start pasta";
        let fifo = state.join(format!("pasta-{pid}"));
        let _ = std::fs::remove_file(&fifo);
        mknodat(CWD, &fifo, FileType::Fifo, Mode::from(0o600), 0).at("make the pipe", fifo.display())?;
        let ready = open(&fifo, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
            .at("open the pipe", fifo.display())?;
        let ready_path = fifo.to_string_lossy();
        let args =
            argv(&PastaPlan { pasta, pid: pid as u32, userns, interface: INTERFACE, publish, ready: &ready_path });
        let child = Command::new(&pasta.path)
            .args(&args[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .at(step, pasta.path.display())?;
        let number = Pid::from_raw(child.id() as i32).ok_or_else(|| Error::os(step, "", libc::ESRCH))?;
        let pidfd = pidfd_open(number, PidfdFlags::empty()).at(step, "")?;
        Ok(UserNetwork { child, fifo, pidfd, ready, slot: None })
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> Option<Pid> {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Ends it.
    pub fn end(&mut self) {
        let _ = self.child.kill();
    }

    /// Takes its end, and why it came.
    pub fn reap(mut self) -> Error {
        let _ = self.child.wait();
        let mut said = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            // Whoever it left behind may hold the pipe open: only what is there.
            let _ = rustix::io::ioctl_fionbio(stderr.as_fd(), true);
            let mut text = [0; 4096];
            let count = stderr.read(&mut text).unwrap_or(0);
            said = String::from_utf8_lossy(&text[..count]).trim().to_owned();
        }
        let last = said.lines().last().unwrap_or("it ended without a word").to_owned();
        Error::new(Code::SetupFailed, "connect the container by pasta", last)
            .hint("pasta needs a /dev/net/tun that this user may open, and ports that this user may take; or use --network none")
    }
}

impl Drop for UserNetwork {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.fifo);
    }
}
