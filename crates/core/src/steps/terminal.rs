//! The container's own terminal: made in its own devpts, so that its name is true inside (pty(7), ioctl_tty(2)).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags, Uid, fchown, fstat, fstatfs, openat, openat2};
use rustix::io::Errno;
use rustix::process::ioctl_tiocsctty;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::channel::{Channel, FromChild};
use super::mount_api::{attach, clone_tree};
use super::pseudo::Mounted;
use super::root_dir::RootDir;
use crate::spec::TerminalSize;
use nsrs_base::error::{At, Code, Error, Result};
use nsrs_base::sys::fds::{replace_stdio, stdio};

/// Sets the size that programs on a terminal see.
///
/// # Errors
/// The descriptor is no terminal.
pub fn resize(master: impl AsFd, size: TerminalSize) -> Result<()> {
    let size = Winsize { ws_col: size.cols, ws_row: size.rows, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(master, size).at("set the terminal's size", "")
}

/// Makes the terminal of the sandbox's first process, which leads a session already.
///
/// # Errors
/// The kernel refuses; the supervisor is gone.
pub fn open(size: TerminalSize, mounted: &Mounted, channel: &Channel) -> Result<()> {
    let slave = make_pair(size, mounted.pts.as_fd(), channel)?;
    bind_console(&slave, mounted)?;
    become_stdio(&slave)?;
    make_controlling()
}

/// Makes a terminal for a process that enters, in the devpts that the container has by now. The process itself has to make it
/// control its session ([`make_controlling`]).
///
/// # Errors
/// The container has no devpts; as [`open`].
pub fn open_inside(size: TerminalSize, root: &RootDir, channel: &Channel) -> Result<()> {
    let path = "/dev/pts";
    let pts = root.open(path, OFlags::PATH | OFlags::DIRECTORY).at(STEP, path)?;
    // Whatever else the container has put there: to open it could do anything.
    if fstatfs(&pts).at(STEP, path)?.f_type != DEVPTS_SUPER_MAGIC {
        return Err(Error::new(Code::SetupFailed, STEP, "the container has no devpts there").on(path));
    }
    become_stdio(&make_pair(size, pts.as_fd(), channel)?)
}

const STEP: &str = "make the terminal";

/// Magic number of devpts (linux/magic.h).
const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;

/// Makes a terminal and hands its master to the supervisor. Of a devpts nothing is opened but its own file: it lets nobody
/// make others, and what is mounted onto it is refused.
fn make_pair(size: TerminalSize, pts: BorrowedFd<'_>, channel: &Channel) -> Result<OwnedFd> {
    let master = openat2(
        pts,
        "ptmx",
        OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV,
    )
    .at(STEP, "/dev/pts/ptmx")?;
    unlockpt(&master).at(STEP, "")?;
    // The slave is opened through its master: no name in /dev is looked up.
    let slave =
        ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).at(STEP, "")?;
    resize(&master, size)?;
    channel.send(&FromChild::Terminal, &[master.as_fd()])?;
    Ok(slave)
}

/// The terminal, which is this process's standard input, becomes its user's, who may then open it by its name too.
///
/// # Errors
/// Fails as fchown(2) does.
pub fn give_to(uid: u32) -> Result<()> {
    let terminal = stdio()[0];
    if fstat(terminal).at(STEP, "")?.st_uid == uid {
        return Ok(());
    }
    match fchown(terminal, Some(Uid::from_raw(uid)), None) {
        // An id that isn't mapped is told when the process becomes that user. Without CAP_CHOWN only the name is closed.
        Ok(()) | Err(Errno::INVAL | Errno::PERM) => Ok(()),
        Err(errno) => Err(Error::os("give the terminal to the user", uid.to_string(), errno)),
    }
}

/// The terminal becomes standard input, output and error.
fn become_stdio(slave: &OwnedFd) -> Result<()> {
    for number in 0..=2 {
        replace_stdio(slave.try_clone().at(STEP, "")?, number).at(STEP, number)?;
    }
    Ok(())
}

/// The terminal on standard input becomes the one that controls the session, which this process leads.
///
/// # Errors
/// It controls another session.
pub fn make_controlling() -> Result<()> {
    ioctl_tiocsctty(stdio()[0]).at("make it the controlling terminal", "")
}

/// /dev/console is the terminal, as a container's programs expect.
fn bind_console(slave: &OwnedFd, mounted: &Mounted) -> Result<()> {
    let step = "make the console";
    let file = openat(
        &mounted.dev,
        "console",
        OFlags::CREATE | OFlags::EXCL | OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::from(0o600),
    )
    .at(step, "/dev/console")?;
    let copy = clone_tree(slave, "", false).at(step, "/dev/console")?;
    attach(copy, file, "/dev/console")
}
