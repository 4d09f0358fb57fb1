//! The one supervisor of this process and the thread that listens to it. Workers share it.

use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, posix_spawn};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use nsrs_core::error::{At, Code, Error, Result};
use nsrs_core::supervise::protocol::{self, Event, Filled, Reader, Request, VERSION};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::events::Delivery;

/// Who hears the events of a request.
pub type Listener = Arc<dyn Fn(Delivery) + Send + Sync>;

/// The supervisor of this process.
pub struct Connection {
    socket: OwnedFd,
    /// Frames of two threads must not mix.
    sending: Mutex<()>,
    listeners: Mutex<HashMap<u64, Listener>>,
    alive: Mutex<bool>,
}

/// Started lazily, once; started again after it was lost.
static CURRENT: Mutex<Option<Arc<Connection>>> = Mutex::new(None);
static NEXT: AtomicU64 = AtomicU64::new(1);

/// A panic elsewhere leaves these maps as good as they were.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A number for a request, unique in this process.
pub fn next_id() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The supervisor, started if there is none.
pub fn current(executable: &str) -> Result<Arc<Connection>> {
    let mut current = lock(&CURRENT);
    match &*current {
        Some(connection) if *lock(&connection.alive) => Ok(Arc::clone(connection)),
        _ => {
            let connection = Connection::start(executable)?;
            *current = Some(Arc::clone(&connection));
            Ok(connection)
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
    fn start(executable: &str) -> Result<Arc<Connection>> {
        let step = "start the supervisor";
        let lost = |error: Error| {
            let missing = error.errno == Some(nix::errno::Errno::ENOENT as i32);
            let error = error.code(Code::SupervisorLost);
            if missing {
                error.hint("reinstall nsrs: its package for this platform brings the executable; from a checkout run npm run build")
            } else {
                error
            }
        };
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .at(step, "")
            .map_err(lost)?;
        let pid = spawn(executable, &theirs).at(step, executable).map_err(lost)?;
        drop(theirs);
        let connection = Arc::new(Connection {
            socket: ours,
            sending: Mutex::new(()),
            listeners: Mutex::new(HashMap::new()),
            alive: Mutex::new(true),
        });
        let listening = Arc::clone(&connection);
        std::thread::Builder::new()
            .name("nsrs".into())
            .stack_size(256 * 1024)
            .spawn(move || listening.listen(pid))
            .at(step, "")
            .map_err(lost)?;
        Ok(connection)
    }

    /// Sends a request whose events go to a listener, until its last.
    pub fn ask(&self, id: u64, request: &Request, fds: &[BorrowedFd<'_>], listener: Listener) -> Result<()> {
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
        protocol::send(self.socket.as_fd(), request, fds)
    }

    /// Hands out events until the supervisor is gone, then tells everybody who still waits.
    fn listen(&self, pid: Pid) {
        let reason = self.hand_out();
        *lock(&self.alive) = false;
        let status = waitpid(pid, None);
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
            listener(Delivery { event: Event::Failed { id, errors: vec![reason.clone()] }, fd: None });
        }
    }

    /// Returns why the conversation ended, if it was not the other side's end.
    fn hand_out(&self) -> Option<Error> {
        let mut reader = Reader::default();
        loop {
            match reader.fill(self.socket.as_fd()) {
                Ok(Filled::End) => return None,
                Ok(_) => {}
                Err(error) => return Some(error),
            }
            loop {
                match reader.take::<Event>() {
                    Ok(None) => break,
                    Err(error) => return Some(error),
                    Ok(Some((Event::Hello { version }, _))) if version != VERSION => {
                        return Some(
                            Error::new(
                                Code::SupervisorLost,
                                "talk to the supervisor",
                                format!("it is of version {version}, this addon of {VERSION}"),
                            )
                            .hint("install nsrs again, so that both come from one package"),
                        );
                    }
                    Ok(Some((event, mut fds))) => self.deliver(Delivery { event, fd: fds.pop() }),
                }
            }
        }
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
