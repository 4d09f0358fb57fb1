//! The program that connects a container, beside it: started when the container's namespaces stand, watched until it is ready,
//! ended with the container. Which program that is, its kind of network says.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
use rustix::process::Pid;

use super::container::child::Child;
use crate::net::kinds::NetworkProgram;
use crate::state::journal::{Journal, JournalEntry, Termination};
use crate::steps::exec::{Image, reset_signals};
use nsrs_base::error::{At, Code, Error, Result, show};
use nsrs_base::sys::child::spawn_apart;
use nsrs_base::sys::fds::{replace_stdio, stdio};
use nsrs_base::sys::process::send_signal;
use nsrs_base::sys::wait::reap;

/// A running network program (pasta, for example) of one container.
#[derive(Debug)]
pub struct UserNetwork {
    /// Its process; the pidfd is readable when it has ended.
    pub process: Child,
    /// The reading end of its standard error, for the reason of a failure.
    stderr: OwnedFd,
    fifo: PathBuf,
    /// Readable when the network is up.
    pub ready: OwnedFd,
    name: &'static str,
    hint: String,
}

/// The program's ends of the pipes.
struct ProgramInputs {
    /// A byte comes when the process is recorded in the journal.
    recorded: OwnedFd,
    stdio: [OwnedFd; 3],
}

impl UserNetwork {
    /// Starts the program that is named for a process and the path of a FIFO, if one is, for the container whose first process this
    /// is. Returns the ports that it publishes, too.
    ///
    /// # Errors
    /// It can't be started, or is too old.
    pub fn start(
        container: Pid,
        journal: &mut Journal,
        program: impl FnOnce(i32, &str) -> Result<Option<NetworkProgram>>,
    ) -> Result<Option<(UserNetwork, Vec<String>)>> {
        let pid = container.as_raw_nonzero().get();
        let fifo = journal.companion(&format!("network-{pid}"));
        let Some(NetworkProgram { name, args, ports, hint }) = program(pid, text(&fifo)?)? else {
            return Ok(None);
        };
        let step = format!("start {name}");
        let _ = std::fs::remove_file(&fifo);
        mknodat(CWD, &fifo, FileType::Fifo, Mode::from(0o600), 0).at("make the pipe", fifo.display())?;
        let ready = open(&fifo, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
            .at("open the pipe", fifo.display())?;
        // Such a program looks for no variable that is not UTF-8.
        let env = std::env::vars_os()
            .filter_map(|(name, value)| Some(format!("{}={}", name.into_string().ok()?, value.into_string().ok()?)));
        let env: Vec<String> = env.collect();
        let image = Image::new(&args, &env)?;
        let (recorded, notify) = pipe2(OFlag::O_CLOEXEC).at(&step, "")?;
        let (stderr, stderr_writer) = pipe2(OFlag::O_CLOEXEC).at(&step, "")?;
        let null = || open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).at("open", "/dev/null");
        let inputs = ProgramInputs { recorded, stdio: [null()?, null()?, stderr_writer] };
        let (child, notify) = spawn_apart(0, notify, || become_program(inputs, &image)).at(&step, &args[0])?;
        let mut process = Child::new(child.pid, child.pidfd);
        // A program that is not in the journal must not run: it clears its death signal, and would be left behind.
        match journal.note(JournalEntry::process(process.pid, Termination::Kill)) {
            Ok(slot) => process.slot = Some(slot),
            Err(error) => {
                process.end_now();
                let _ = std::fs::remove_file(&fifo);
                return Err(error);
            }
        }
        // The child waits for this byte before it executes the program.
        let _ = rustix::io::write(&notify, &[0]);
        Ok(Some((UserNetwork { process, stderr, fifo, ready, name, hint }, ports)))
    }

    /// Kills the program. Its end comes as an event.
    pub fn end(&mut self) {
        send_signal(&self.process.pidfd, libc::SIGKILL);
    }

    /// Reaps the program, and returns the last line that it wrote to standard error as an error.
    pub fn reap(self) -> Error {
        let _ = reap(self.process.pid);
        // A process that it left behind may hold the pipe open: read only what is there.
        let _ = rustix::io::ioctl_fionbio(self.stderr.as_fd(), true);
        let mut text = [0; 4096];
        let count = rustix::io::read(&self.stderr, &mut text).unwrap_or(0);
        let said = String::from_utf8_lossy(&text[..count]).trim().to_owned();
        let last = said.lines().last().unwrap_or("it ended without a message").to_owned();
        Error::new(Code::SetupFailed, format!("connect the container by {}", self.name), last).hint(&self.hint)
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| {
        Error::new(Code::Unsupported, "make the pipe", "the path is not UTF-8").on(show(path.as_os_str().as_bytes()))
    })
}

/// Runs in the new process. If the supervisor dies before it has recorded the process, the pipe ends and so does this process.
fn become_program(inputs: ProgramInputs, image: &Image) -> i32 {
    if rustix::io::read(&inputs.recorded, &mut [0; 1]) != Ok(1) {
        return 0;
    }
    let placed = (0..).zip(inputs.stdio).try_for_each(|(number, fd)| replace_stdio(fd, number));
    let error = match placed.at("take standard input and output", "").and_then(|()| reset_signals()) {
        Ok(()) => image.exec(),
        Err(error) => error,
    };
    let _ = rustix::io::write(stdio()[2], error.to_string().as_bytes());
    127
}

impl Drop for UserNetwork {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.fifo);
    }
}
