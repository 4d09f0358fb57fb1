//! The one supervisor of this process, which workers share.
//!
//! Its events are heard in Node's own event loop where the main thread of Node is alone with it, else by a thread: a worker
//! must not wait for a main thread that is busy.

use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use napi::Env;
use nix::libc;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, posix_spawn};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use nsrs_base::error::{Act, At, Code, Error, Result};
use nsrs_base::sys::poll;
use nsrs_base::version::VERSION;
use nsrs_core::supervise::protocol::{
    self, Event, Filled, FrameDescriptors, FrameReader, LostDescriptors, ProcessAddress, Request,
};
use rustix::event::{PollFd, PollFlags};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair};

use crate::event_loop;
use crate::events::Delivery;
use crate::executable::{check, not_started};

/// Who hears the events of a request.
pub type Listener = Arc<dyn Fn(Delivery) + Send + Sync>;

/// The supervisor of this process.
pub struct Connection {
    /// Never blocks.
    socket: OwnedFd,
    pid: Pid,
    reader: Mutex<FrameReader>,
    has_thread: AtomicBool,
    /// Frames of two threads must not mix.
    sending: Mutex<()>,
    listeners: Mutex<HashMap<u64, Listener>>,
    alive: AtomicBool,
}

/// Started lazily, once; started again after it was lost.
static CURRENT: Mutex<Option<Arc<Connection>>> = Mutex::new(None);
static NEXT: AtomicU64 = AtomicU64::new(1);

/// A panic elsewhere leaves these maps as good as they were.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a thread of ours.
fn thread(run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name("nsrs".into()).stack_size(256 * 1024).spawn(run).map(drop)
}

/// A number for a request, unique in this process.
pub fn next_id() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Sends a request whose events go to a listener, until its last. The supervisor is started if there is none; its events are
/// heard in the loop of `env`, if that is given.
pub fn ask(
    executable: &str,
    env: Option<&Env>,
    id: u64,
    request: &Request,
    fds: &[BorrowedFd<'_>],
    listener: Listener,
) -> Result<()> {
    let (connection, is_new) = current(executable, env)?;
    match connection.ask(id, request, fds, Arc::clone(&listener)) {
        // It is gone, which a busy event loop has not heard yet. One that ends at once is not tried again.
        Err(error) if !is_new && matches!(error.errno, Some(libc::EPIPE | libc::ECONNRESET)) => {
            while connection.hear() {}
            current(executable, env)?.0.ask(id, request, fds, listener)
        }
        asked => asked,
    }
}

/// The supervisor, and whether it was started just now.
fn current(executable: &str, env: Option<&Env>) -> Result<(Arc<Connection>, bool)> {
    let mut current = lock(&CURRENT);
    match &*current {
        Some(connection) if connection.alive.load(Ordering::Acquire) => Ok((Arc::clone(connection), false)),
        _ => {
            let connection = Connection::start(executable, env)?;
            *current = Some(Arc::clone(&connection));
            Ok((connection, true))
        }
    }
}

/// The supervisor, if it runs.
pub fn running() -> Option<Arc<Connection>> {
    lock(&CURRENT).clone()
}

fn spawn(executable: &str, socket: &OwnedFd) -> std::result::Result<Pid, nix::errno::Errno> {
    let program = CString::new(executable).map_err(|_| nix::errno::Errno::EINVAL)?;
    let version = CString::new(VERSION).map_err(|_| nix::errno::Errno::EINVAL)?;
    let mut actions = PosixSpawnFileActions::init()?;
    // A socket that stands at 3 already would lose nothing but its close-on-exec flag by a dup2 onto itself, which
    // posix_spawn does for us.
    actions.add_dup2(socket.as_raw_fd(), 3)?;
    for number in [0, 1] {
        actions.add_open(number, c"/dev/null", nix::fcntl::OFlag::O_RDWR, nix::sys::stat::Mode::empty())?;
    }
    let env: Vec<CString> = std::env::vars_os()
        .filter_map(|(name, value)| {
            use std::os::unix::ffi::OsStrExt;
            CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok()
        })
        .collect();
    posix_spawn(
        program.as_c_str(),
        &actions,
        &PosixSpawnAttr::init()?,
        &[program.as_c_str(), c"supervise", version.as_c_str()],
        &env,
    )
}

impl Connection {
    fn start(executable: &str, env: Option<&Env>) -> Result<Arc<Connection>> {
        let step = "start the supervisor";
        let lost = |error: Error| error.code(Code::SupervisorLost);
        check(step, executable)?;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .at(step, "")
            .map_err(lost)?;
        let pid = spawn(executable, &theirs).map_err(|errno| not_started(step, executable, errno))?;
        drop(theirs);
        rustix::io::ioctl_fionbio(&ours, true).at(step, "").map_err(lost)?;
        let connection = Arc::new(Connection {
            socket: ours,
            pid,
            reader: Mutex::default(),
            has_thread: AtomicBool::new(false),
            sending: Mutex::new(()),
            listeners: Mutex::new(HashMap::new()),
            alive: AtomicBool::new(true),
        });
        let listening = Arc::clone(&connection);
        let in_loop =
            env.is_some_and(|env| event_loop::watch(env, connection.socket.as_fd(), move || listening.hear()));
        if !in_loop {
            connection.listen_in_thread().map_err(lost)?;
        }
        Ok(connection)
    }

    /// Has a thread hear the events from now on, beside the event loop if that does so already.
    pub fn listen_in_thread(self: &Arc<Self>) -> Result<()> {
        if self.has_thread.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let connection = Arc::clone(self);
        let listen = move || {
            while {
                connection.wait_for(PollFlags::IN);
                connection.hear()
            } {}
        };
        thread(listen).at("listen to the supervisor", "")
    }

    fn wait_for(&self, event: PollFlags) {
        let _ = poll::wait(&mut [PollFd::new(&self.socket, event)], None);
    }

    fn ask(&self, id: u64, request: &Request, fds: &[BorrowedFd<'_>], listener: Listener) -> Result<()> {
        lock(&self.listeners).insert(id, listener);
        let sent = self.tell(request, fds);
        if sent.is_err() {
            lock(&self.listeners).remove(&id);
        }
        sent
    }

    /// Sends a request that has no answer.
    pub fn tell(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<()> {
        let _one = lock(&self.sending);
        // The supervisor reads whatever else it does, so this wait is short.
        protocol::send(self.socket.as_fd(), request, fds, || self.wait_for(PollFlags::OUT))
    }

    /// Hands out what has arrived; `false` once the supervisor is gone, which everybody who still waits is told.
    fn hear(self: &Arc<Self>) -> bool {
        let mut reader = lock(&self.reader);
        let end = match self.hand_out(&mut reader) {
            Ok(true) => return true,
            Ok(false) => None,
            Err(error) => Some(error),
        };
        if self.alive.swap(false, Ordering::AcqRel) {
            let connection = Arc::clone(self);
            let reason = end.clone();
            // It may take a moment to end, and this may be the JavaScript thread. Where no thread can be had (ulimit -u), that
            // moment is waited for: nobody else would tell.
            if thread(move || connection.bury(reason)).is_err() {
                self.bury(end);
            }
        }
        false
    }

    /// Tells everybody who still waits why the conversation ended; without a reason it was the supervisor's end.
    fn bury(&self, reason: Option<Error>) {
        // It ends when nobody talks to it any more, and nothing can be asked from here on that nobody would answer.
        let _ = shutdown(&self.socket, Shutdown::Both);
        let status = waitpid(self.pid, None);
        let reason = reason.unwrap_or_else(|| {
            let how = match status {
                Ok(nix::sys::wait::WaitStatus::Signaled(_, signal, _)) => format!("it was killed by {signal}"),
                Ok(nix::sys::wait::WaitStatus::Exited(_, code)) => format!("it ended with code {code}"),
                _ => "it is gone".into(),
            };
            Error::new(Code::SupervisorLost, "talk to the supervisor", how)
                .hint("its containers ended with it; the next call starts a new one")
        });
        let listeners = std::mem::take(&mut *lock(&self.listeners));
        for (id, listener) in listeners {
            listener(Delivery {
                event: Event::Failed {
                    address: ProcessAddress::of_container(id),
                    errors: vec![reason.clone().during(Act::Supervisor)],
                },
                fd: None,
            });
        }
    }

    /// `false` at the other side's end.
    fn hand_out(&self, reader: &mut FrameReader) -> Result<bool> {
        if reader.fill(self.socket.as_fd())? == Filled::End {
            return Ok(false);
        }
        while let Some((event, fds)) = reader.take::<Event>()? {
            match event {
                Event::Hello { version } if version != VERSION => {
                    return Err(Error::new(
                        Code::SupervisorLost,
                        "talk to the supervisor",
                        format!("it is of version {version}, this addon of {VERSION}"),
                    )
                    .hint("install nsrs again, so that both come from one package"));
                }
                event => self.deliver_with(event, fds),
            }
        }
        Ok(true)
    }

    /// Hands out an event with its descriptor. If that was lost, what needed it has failed, and nothing else.
    fn deliver_with(&self, event: Event, fds: FrameDescriptors) {
        match (event, fds.map(|mut fds| fds.pop())) {
            (Event::Terminal { address }, Ok(None) | Err(_)) => self.end_without_terminal(address),
            (Event::Exited { address, .. }, Err(lost)) => {
                let error = lost.error("take the list of changes", "this process").during(Act::Changes);
                self.deliver(Delivery { event: Event::Failed { address, errors: vec![error] }, fd: None });
            }
            (event, fds) => self.deliver(Delivery { event, fd: fds.ok().flatten() }),
        }
    }

    /// Ends a process whose terminal never came, and tells of that at its end.
    fn end_without_terminal(&self, address: ProcessAddress) {
        let mut listeners = lock(&self.listeners);
        let Some(listener) = listeners.remove(&address.process) else { return };
        let fail: Listener = Arc::new(move |delivery: Delivery| {
            if delivery.is_last() {
                let event = match delivery.event {
                    Event::Failed { .. } => delivery.event,
                    _ => {
                        let lost = LostDescriptors.error("take the terminal", "this process or its supervisor");
                        Event::Failed { address, errors: vec![lost.during(Act::Terminal)] }
                    }
                };
                listener(Delivery { event, fd: None });
            }
        });
        listeners.insert(address.process, fail);
        drop(listeners);
        // If it is gone, so is the process.
        let _ = self.tell(&Request::Kill { address, signal: Some(9) }, &[]);
    }

    fn deliver(&self, delivery: Delivery) {
        let Some(id) = delivery.id() else { return };
        let listener = {
            let mut listeners = lock(&self.listeners);
            if delivery.is_last() { listeners.remove(&id) } else { listeners.get(&id).cloned() }
        };
        if let Some(listener) = listener {
            listener(delivery);
        }
    }
}
