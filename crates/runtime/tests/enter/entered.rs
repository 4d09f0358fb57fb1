//! The supervisor's side of entering, as far as a test needs it.

use std::cell::OnceCell;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use nsrs_base::error::{Code, Error};
use nsrs_base::sys::sealed;
use nsrs_core::plan::process::Process;
use nsrs_core::steps::channel::{Channel, FromChild, FromEntrance, ToChild, ToEntrance};
use nsrs_core::steps::enter::{self, Destination, EntranceProcess};
use rustix::pipe::{PipeFlags, pipe_with};

use super::target::Target;

/// A supervisor's entrance to its containers.
pub struct Door {
    entrance: EntranceProcess,
}

/// A process that has been asked for.
pub struct Newcomer {
    /// The intermediate process.
    pub intermediate: Pid,
    channel: Channel,
    /// That of the process which the intermediate one makes.
    mailbox: OnceCell<Channel>,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended: a code as the shell counts; `None` if it never was.
    pub code: Option<i32>,
    /// What it wrote.
    pub stdout: String,
    /// Why it couldn't be executed.
    pub error: Option<Error>,
    /// What its init said.
    pub init: Vec<String>,
}

impl Door {
    /// Opens one.
    pub fn open() -> Door {
        let program = sealed::copy_of(env!("CARGO_BIN_EXE_nsrs-runtime").as_ref()).unwrap();
        Door { entrance: enter::start(&program).unwrap() }
    }

    /// Has an intermediate process made, which is told of no container yet.
    pub fn prepare(&self) -> Newcomer {
        self.entrance.channel.send(&ToEntrance::Prepare(1), &[]).unwrap();
        let (answer, fds) = self.entrance.channel.receive().unwrap().expect("the entrance is there");
        let FromEntrance::Made { pid, .. } = answer else { panic!("{answer:?}") };
        let [_pidfd, channel] = <[OwnedFd; 2]>::try_from(fds).unwrap();
        Newcomer { intermediate: Pid::from_raw(pid), channel: Channel::from_fd(channel), mailbox: OnceCell::new() }
    }

    /// Enters and runs a command.
    pub fn run(&self, target: &Target, process: &Process) -> Outcome {
        self.run_in(&target.destination(), target, process)
    }

    /// As [`Door::run`], with other facts.
    pub fn run_in(&self, destination: &Destination, target: &Target, process: &Process) -> Outcome {
        let newcomer = self.prepare();
        match newcomer.enter(destination, target.pidfd.as_fd()) {
            Ok(()) => newcomer.run(process, &[]),
            Err(error) => newcomer.failed(error),
        }
    }

    /// The number of the entrance.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.entrance.pid.as_raw_nonzero().get())
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(self.pid(), nix::sys::signal::Signal::SIGKILL);
        let _ = waitpid(self.pid(), None);
    }
}

impl Newcomer {
    /// Has it enter.
    pub fn enter(&self, destination: &Destination, first: BorrowedFd<'_>) -> Result<(), Error> {
        self.channel.send_any_size(&ToChild::Enter(Box::new(destination.clone())), &[first]).unwrap();
        match self.channel.receive().unwrap() {
            Some((FromChild::Ready, fds)) => {
                self.mailbox.set(Channel::of_supervisor(fds).unwrap()).unwrap();
                Ok(())
            }
            Some((FromChild::Failed(error), _)) => Err(error),
            other => panic!("{other:?}"),
        }
    }

    fn failed(self, error: Error) -> Outcome {
        waitpid(self.intermediate, None).unwrap();
        Outcome { code: None, stdout: String::new(), error: Some(error), init: Vec::new() }
    }

    /// Has it run a command, with `fds` as those of `preserve_fds`.
    pub fn run(self, process: &Process, fds: &[BorrowedFd<'_>]) -> Outcome {
        let null = File::open("/dev/null").unwrap();
        let (out, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let own = [null.as_fd(), write.as_fd(), write.as_fd()];
        let own = if process.tty.is_some() { &own[..0] } else { &own[..] };
        let all: Vec<_> = own.iter().chain(fds).copied().collect();
        self.channel.send_any_size(&ToChild::Process(Box::new(process.clone())), &all).unwrap();
        drop(write);
        let mut outcome = Outcome { code: None, stdout: String::new(), error: None, init: Vec::new() };
        let (mut born, mut master) = (None, None);
        let mailbox = self.mailbox.get().expect("it has entered");
        while let Some((message, fds)) = self.channel.receive().unwrap().or_else(|| mailbox.receive().unwrap()) {
            match message {
                FromChild::Failed(error) => outcome.error = Some(error),
                FromChild::ProcessMade(pid) => born = Some(Pid::from_raw(pid)),
                FromChild::Terminal => master = fds.into_iter().next(),
                FromChild::InCharge => {
                    outcome.init.push("InCharge".into());
                    mailbox.send(&ToChild::Start, &[]).unwrap();
                }
                other => outcome.init.push(format!("{other:?}")),
            }
        }
        outcome.stdout = read_all(master.unwrap_or(out));
        if let Some(pid) = born {
            outcome.code = Some(match waitpid(pid, None).unwrap() {
                WaitStatus::Exited(_, code) => code,
                WaitStatus::Signaled(_, signal, _) => 128 + signal as i32,
                other => panic!("{other:?}"),
            });
        }
        waitpid(self.intermediate, None).unwrap();
        outcome
    }
}

/// All that is written; a terminal's end is EIO.
fn read_all(fd: OwnedFd) -> String {
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    let mut file = File::from(fd);
    while let Ok(length @ 1..) = file.read(&mut buffer) {
        text.extend_from_slice(&buffer[..length]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

impl Outcome {
    /// What a command wrote that was executed and ended well.
    #[track_caller]
    pub fn good(self) -> String {
        assert_eq!((self.code, &self.error), (Some(0), &None), "{}", self.stdout);
        self.stdout
    }

    /// The error of a command that was not executed.
    #[track_caller]
    pub fn refused(self) -> (Code, Error) {
        let error = self.error.unwrap_or_else(|| panic!("executed, with {:?}: {}", self.code, self.stdout));
        (error.code, error)
    }
}
