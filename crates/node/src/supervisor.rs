//! The supervisor as JavaScript sees it: one object for each thread that loaded the package.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use napi::bindgen_prelude::*;
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi_derive::napi;
use nsrs_core::error::{At, Code};
use nsrs_core::supervise::protocol::{Event, Request};
use nsrs_core::sys::fds::duplicate;
use rustix::fs::{Mode, OFlags, open};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::caller::CallerInfo;
use crate::connection::{self, Listener};
use crate::events::{Delivery, NativeEvent};
use crate::options::ContainerOptions;

/// Calls the JavaScript listener from the thread that listens to the supervisor.
type Callback = ThreadsafeFunction<Delivery, (), NativeEvent, Status, false, true>;

/// A container that was asked for.
#[napi(object)]
#[derive(Debug)]
pub struct StartedContainer {
    /// Its number in events.
    pub id: f64,
    /// The caller's ends of the pipes for standard input, output and error, the caller's to close; -1 where there is none.
    pub stdio: Vec<i32>,
}

/// File descriptors for a command.
#[napi(object)]
#[derive(Debug)]
pub struct HandedFds {
    /// Where standard input, output and error go: -1 a pipe, -2 /dev/null, else a file descriptor.
    pub stdio: Vec<i32>,
    /// Further descriptors.
    pub pass: Vec<i32>,
    /// Their numbers in the command.
    pub pass_as: Vec<i32>,
}

/// The requests one JavaScript thread may make, and its events.
#[napi]
pub struct Supervisor {
    executable: String,
    callback: Arc<Mutex<Callback>>,
    open: Arc<Mutex<HashSet<u64>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Both ends of the command's standard streams.
struct Stdio {
    theirs: Vec<OwnedFd>,
    ours: Vec<Option<OwnedFd>>,
}

/// A new pipe.
const PIPE: i32 = -1;
/// /dev/null.
const IGNORE: i32 = -2;

fn stdio(wanted: &[i32]) -> nsrs_core::error::Result<Stdio> {
    let mut stdio = Stdio { theirs: Vec::new(), ours: Vec::new() };
    for (number, wanted) in wanted.iter().enumerate() {
        let (theirs, ours) = match *wanted {
            PIPE => {
                let (read, write) = pipe_with(PipeFlags::CLOEXEC).at("make a pipe", "")?;
                if number == 0 { (read, Some(write)) } else { (write, Some(read)) }
            }
            IGNORE => (open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).at("open", "/dev/null")?, None),
            fd => (passed(fd)?, None),
        };
        stdio.theirs.push(theirs);
        stdio.ours.push(ours);
    }
    Ok(stdio)
}

/// A copy of a descriptor that the caller named.
fn passed(fd: i32) -> nsrs_core::error::Result<OwnedFd> {
    duplicate(fd).at("pass the file descriptor", fd).map_err(|error| {
        if error.errno == Some(nix::errno::Errno::EBADF as i32) {
            error.code(Code::InvalidArgument).because("it is not open")
        } else {
            error
        }
    })
}

#[napi]
impl Supervisor {
    /// Nothing is started yet: the supervisor comes with the first request.
    #[napi(constructor)]
    pub fn new(env: Env, executable: String, on_event: Function<'_, NativeEvent, ()>) -> Result<Supervisor> {
        let callback = on_event
            .build_threadsafe_function::<Delivery>()
            .weak::<true>()
            .callee_handled::<false>()
            .build_callback(|context| Ok(NativeEvent::from(context.value)))?;
        let open = Arc::new(Mutex::new(HashSet::new()));
        // A worker that is terminated takes its containers along; for the main thread the supervisor sees the socket close.
        env.add_env_cleanup_hook(Arc::clone(&open), |open| {
            if let Some(connection) = connection::running() {
                for id in lock(&open).drain() {
                    let _ = connection.tell(&Request::Kill { id, signal: Some(9) }, &[]);
                }
            }
        })?;
        Ok(Supervisor { executable, callback: Arc::new(Mutex::new(callback)), open })
    }

    /// Starts a container. Every outcome, failures too, comes as an event; with `announce` there is one when the command
    /// runs.
    #[napi]
    pub fn start(
        &self,
        args: Vec<String>,
        options: ContainerOptions,
        caller: CallerInfo,
        fds: HandedFds,
        announce: bool,
    ) -> StartedContainer {
        let HandedFds { stdio, pass, pass_as } = fds;
        let id = connection::next_id();
        let spec = Box::new(options.into_spec(args, caller.into(), pass_as));
        let ours = self.try_start(Request::Run { id, spec, announce }, id, &stdio, &pass).unwrap_or_else(|error| {
            self.listener()(Delivery { event: Event::Failed { id, errors: vec![error] }, fd: None });
            Vec::new()
        });
        let number = |fd: Option<OwnedFd>| fd.map_or(-1, IntoRawFd::into_raw_fd);
        let mut numbers: Vec<i32> = ours.into_iter().map(number).collect();
        numbers.resize(3, -1);
        StartedContainer { id: id as f64, stdio: numbers }
    }

    fn try_start(
        &self,
        request: Request,
        id: u64,
        wanted: &[i32],
        pass: &[i32],
    ) -> nsrs_core::error::Result<Vec<Option<OwnedFd>>> {
        let stdio = stdio(wanted)?;
        let passed = pass.iter().copied().map(passed).collect::<nsrs_core::error::Result<Vec<_>>>()?;
        let fds: Vec<BorrowedFd<'_>> = stdio.theirs.iter().chain(&passed).map(AsFd::as_fd).collect();
        let connection = connection::current(&self.executable)?;
        lock(&self.open).insert(id);
        connection.ask(id, &request, &fds, self.listener())?;
        Ok(stdio.ours)
    }

    /// Resolves a plan and touches nothing; the answer is an event with the returned number.
    #[napi]
    pub fn explain(&self, args: Vec<String>, options: ContainerOptions, caller: CallerInfo) -> f64 {
        let id = connection::next_id();
        let spec = Box::new(options.into_spec(args, caller.into(), Vec::new()));
        self.question(id, &Request::Explain { id, spec })
    }

    /// Finds out what the host can do; the answer is an event with the returned number.
    #[napi]
    pub fn examine(&self) -> f64 {
        let id = connection::next_id();
        self.question(id, &Request::Examine { id })
    }

    fn question(&self, id: u64, request: &Request) -> f64 {
        let asked = connection::current(&self.executable)
            .and_then(|connection| connection.ask(id, request, &[], self.listener()));
        if let Err(error) = asked {
            self.listener()(Delivery { event: Event::Failed { id, errors: vec![error] }, fd: None });
        }
        id as f64
    }

    /// Sends a signal to a container's command; without a number the one that asks it to end: its image's, or `SIGTERM`.
    #[napi]
    pub fn kill(&self, id: f64, signal: Option<i32>) {
        // A supervisor that is gone has taken the container along.
        if let Some(connection) = connection::running() {
            let _ = connection.tell(&Request::Kill { id: id as u64, signal }, &[]);
        }
    }

    fn listener(&self) -> Listener {
        let (callback, open) = (Arc::clone(&self.callback), Arc::clone(&self.open));
        Arc::new(move |delivery: Delivery| {
            if let (true, Some(id)) = (delivery.is_last(), delivery.id()) {
                lock(&open).remove(&id);
            }
            lock(&callback).call(delivery, ThreadsafeFunctionCallMode::NonBlocking);
        })
    }
}
