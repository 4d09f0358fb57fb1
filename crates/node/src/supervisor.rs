//! The supervisor as JavaScript sees it: one object for each thread that loaded the package.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use napi::bindgen_prelude::*;
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi_derive::napi;
use nsrs_base::error::{Act, At, Code, During};
use nsrs_base::options::FDS;
use nsrs_base::sys::fds::duplicate;
use nsrs_base::sys::message::MOST_FDS;
use nsrs_core::supervise::protocol::{Event, ProcessAddress, Request};
use rustix::fs::{Mode, OFlags, open};
use rustix::pipe::{PipeFlags, pipe_with};
use serde_json::value::RawValue;

use crate::connection::{self, Listener};
use crate::events::{Delivery, NativeEvent};

/// Calls the JavaScript listener from the thread that listens to the supervisor.
type Callback = ThreadsafeFunction<Delivery, (), NativeEvent, Status, false, true>;

/// A container that was asked for.
#[napi(object)]
#[derive(Debug)]
pub struct StartedContainer {
    /// Its number in events.
    pub id: f64,
    /// The caller's ends of the pipes for standard input, output and error; -1 where there is none. They are closed with the
    /// thread, until they are taken.
    pub stdio: Vec<i32>,
}

/// The requests one JavaScript thread may make, and its events.
#[napi]
pub struct Supervisor {
    executable: String,
    callback: Arc<Mutex<Callback>>,
    open: Arc<Mutex<HashMap<u64, ProcessAddress>>>,
    /// Ends of pipes that nobody has taken yet, by number.
    ends: Arc<Mutex<HashMap<RawFd, OwnedFd>>>,
    in_loop: bool,
}

/// How many threads have loaded the package, ever.
static THREADS: AtomicUsize = AtomicUsize::new(0);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where the streams of a command lead, as JavaScript numbers them.
struct Streams {
    /// Standard input, output and error: [`PIPE`], [`IGNORE`], or a file descriptor.
    stdio: Vec<i32>,
    /// Further descriptors.
    pass: Vec<i32>,
    /// Tell when the command runs.
    announce: bool,
}

/// A spec, which passes through as it is: whoever resolves it reads it.
fn as_json(spec: String) -> nsrs_base::error::Result<Box<RawValue>> {
    RawValue::from_string(spec)
        .map_err(|error| nsrs_base::error::Error::new(Code::InvalidArgument, "read the call", error.to_string()))
}

/// Both ends of the command's standard streams.
struct Stdio {
    theirs: Vec<Rc<OwnedFd>>,
    ours: Vec<Option<OwnedFd>>,
}

/// A new pipe.
const PIPE: i32 = -1;
/// /dev/null.
const IGNORE: i32 = -2;

fn stdio(wanted: &[i32]) -> nsrs_base::error::Result<Stdio> {
    let mut stdio = Stdio { theirs: Vec::new(), ours: Vec::new() };
    // Opened once for the three, as a shell's `2>&1` does: an open is as long as the rest of the streams' work.
    let mut null = None;
    for (number, wanted) in wanted.iter().enumerate() {
        let (theirs, ours) = match *wanted {
            PIPE => {
                let (read, write) = pipe_with(PipeFlags::CLOEXEC).at("make a pipe", "")?;
                let (theirs, ours) = if number == 0 { (read, write) } else { (write, read) };
                (Rc::new(theirs), Some(ours))
            }
            IGNORE => match &null {
                Some(null) => (Rc::clone(null), None),
                None => {
                    let opened = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
                    (Rc::clone(null.insert(Rc::new(opened.at("open", "/dev/null")?))), None)
                }
            },
            fd => (Rc::new(passed(fd)?), None),
        };
        stdio.theirs.push(theirs);
        stdio.ours.push(ours);
    }
    Ok(stdio)
}

/// Descriptors go to the supervisor with one message, which takes so many beside the three streams.
fn check_count(passed: usize) -> nsrs_base::error::Result<()> {
    let most = MOST_FDS - 3;
    if passed <= most {
        return Ok(());
    }
    let why = format!("the kernel passes {most} file descriptors beside standard input, output and error (SCM_MAX_FD)");
    Err(nsrs_base::error::Error::new(Code::InvalidArgument, format!("pass {FDS}"), why)
        .on(format!("with {passed}"))
        .about(FDS)
        .during(Act::Descriptors))
}

/// A copy of a descriptor that the caller named.
fn passed(fd: i32) -> nsrs_base::error::Result<OwnedFd> {
    duplicate(fd).at("pass the file descriptor", fd).during(Act::Descriptors).map_err(|error| {
        if error.errno == Some(nix::errno::Errno::EBADF as i32) {
            error.code(Code::InvalidArgument).about(FDS).because("it is not open")
        } else {
            error
        }
    })
}

#[napi]
impl Supervisor {
    /// Nothing is started yet: the supervisor comes with the first request. `in_loop`: this is the main thread of Node
    /// itself, whose event loop may listen.
    #[napi(constructor)]
    pub fn new(
        env: Env,
        executable: String,
        on_event: Function<'_, NativeEvent, ()>,
        in_loop: bool,
    ) -> Result<Supervisor> {
        let callback = on_event
            .build_threadsafe_function::<Delivery>()
            .weak::<true>()
            .callee_handled::<false>()
            .build_callback(|context| Ok(NativeEvent::from(context.value)))?;
        let open: Arc<Mutex<HashMap<u64, ProcessAddress>>> = Arc::default();
        // A worker that is terminated takes its containers along; for the main thread the supervisor sees the socket close.
        let ends: Arc<Mutex<HashMap<RawFd, OwnedFd>>> = Arc::default();
        env.add_env_cleanup_hook((Arc::clone(&open), Arc::clone(&ends)), |(open, ends)| {
            lock(&ends).clear();
            if let Some(connection) = connection::running() {
                for (_, address) in lock(&open).drain() {
                    let _ = connection.tell(&Request::Kill { address, signal: Some(9) }, &[]);
                }
            }
        })?;
        if THREADS.fetch_add(1, Ordering::AcqRel) > 0
            && let Some(connection) = connection::running()
        {
            connection.listen_in_thread().map_err(|error| Error::from_reason(error.to_string()))?;
        }
        Ok(Supervisor { executable, callback: Arc::new(Mutex::new(callback)), open, ends, in_loop })
    }

    /// Starts a container: `spec` is the JSON of a `Spec`, `stdio` tells where standard input, output and error go (-1 a
    /// pipe, -2 /dev/null, else a file descriptor), `pass` are further descriptors that the command gets, and `announce` asks
    /// to tell when the command runs. Every outcome, failures too, comes as an event.
    #[napi]
    pub fn start(&self, env: Env, spec: String, stdio: Vec<i32>, pass: Vec<i32>, announce: bool) -> StartedContainer {
        let id = connection::next_id();
        let started = self.try_start(&env, id, spec, &Streams { stdio, pass, announce });
        self.started(id, started)
    }

    /// Starts a process in the container of this number, of the JSON of an `EnterSpec`. The rest is as for
    /// [`Supervisor::start`].
    #[napi]
    pub fn enter(
        &self,
        env: Env,
        container: f64,
        spec: String,
        stdio: Vec<i32>,
        pass: Vec<i32>,
        announce: bool,
    ) -> StartedContainer {
        let id = connection::next_id();
        let address = ProcessAddress { container: container as u64, process: id };
        let started = self.try_enter(&env, address, spec, &Streams { stdio, pass, announce });
        self.started(id, started)
    }

    fn started(&self, id: u64, ours: nsrs_base::error::Result<Vec<Option<OwnedFd>>>) -> StartedContainer {
        let ours = ours.unwrap_or_else(|error| {
            self.fail(id, error);
            Vec::new()
        });
        let mut ends = lock(&self.ends);
        let mut keep = |fd: OwnedFd| {
            let number = fd.as_raw_fd();
            ends.insert(number, fd);
            number
        };
        let mut numbers: Vec<i32> = ours.into_iter().map(|fd| fd.map_or(-1, &mut keep)).collect();
        numbers.resize(3, -1);
        StartedContainer { id: id as f64, stdio: numbers }
    }

    /// Takes an end of a pipe that [`Supervisor::start`] has made: it is the caller's to close from here on.
    #[napi]
    pub fn take(&self, fd: i32) {
        lock(&self.ends).remove(&fd).map(IntoRawFd::into_raw_fd);
    }

    fn try_start(
        &self,
        env: &Env,
        id: u64,
        spec: String,
        streams: &Streams,
    ) -> nsrs_base::error::Result<Vec<Option<OwnedFd>>> {
        let request = Request::Run { id, spec: as_json(spec)?, announce: streams.announce };
        self.ask_with_streams(env, ProcessAddress::of_container(id), &request, streams)
    }

    fn try_enter(
        &self,
        env: &Env,
        address: ProcessAddress,
        spec: String,
        streams: &Streams,
    ) -> nsrs_base::error::Result<Vec<Option<OwnedFd>>> {
        let request = Request::Enter { address, spec: as_json(spec)?, announce: streams.announce };
        self.ask_with_streams(env, address, &request, streams)
    }

    /// Sends a request with the command's streams and further descriptors, and returns the caller's ends of pipes.
    fn ask_with_streams(
        &self,
        env: &Env,
        address: ProcessAddress,
        request: &Request,
        streams: &Streams,
    ) -> nsrs_base::error::Result<Vec<Option<OwnedFd>>> {
        let Streams { stdio: wanted, pass, .. } = streams;
        check_count(pass.len())?;
        let stdio = stdio(wanted).during(Act::Descriptors)?;
        let passed = pass.iter().copied().map(passed).collect::<nsrs_base::error::Result<Vec<_>>>()?;
        let theirs = stdio.theirs.iter().map(AsFd::as_fd);
        let fds: Vec<BorrowedFd<'_>> = theirs.chain(passed.iter().map(AsFd::as_fd)).collect();
        lock(&self.open).insert(address.process, address);
        self.ask(env, address.process, request, &fds)?;
        Ok(stdio.ours)
    }

    /// Finds out what the host can do; the answer is an event with the returned number.
    #[napi]
    pub fn examine(&self, env: Env) -> f64 {
        let id = connection::next_id();
        if let Err(error) = self.ask(&env, id, &Request::Examine { id }, &[]) {
            self.fail(id, error);
        }
        id as f64
    }

    fn ask(&self, env: &Env, id: u64, request: &Request, fds: &[BorrowedFd<'_>]) -> nsrs_base::error::Result<()> {
        let alone = self.in_loop && THREADS.load(Ordering::Acquire) == 1;
        connection::ask(&self.executable, alone.then_some(env), id, request, fds, self.listener())
    }

    fn fail(&self, id: u64, error: nsrs_base::error::Error) {
        self.listener()(Delivery {
            event: Event::Failed {
                address: ProcessAddress::of_container(id),
                errors: vec![error.during(Act::Supervisor)],
            },
            fd: None,
        });
    }

    /// Sends a signal to a process by the number it was given; without a signal the one that asks it to end: that of its
    /// container's image, or `SIGTERM`.
    #[napi]
    pub fn kill(&self, id: f64, signal: Option<i32>) {
        let address = lock(&self.open).get(&(id as u64)).copied();
        // A supervisor that is gone has taken the container along.
        if let (Some(address), Some(connection)) = (address, connection::running()) {
            let _ = connection.tell(&Request::Kill { address, signal }, &[]);
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
