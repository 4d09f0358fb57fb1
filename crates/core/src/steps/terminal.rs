//! The container's own terminal: made in its own devpts, so that its name is true inside (pty(7), ioctl_tty(2)).

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, openat};
use rustix::process::ioctl_tiocsctty;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::channel::{Channel, FromChild};
use super::mount_api::{attach, clone_tree};
use super::pseudo::Mounted;
use crate::spec::TerminalSize;
use nsrs_base::error::{At, Result};
use nsrs_base::sys::fds::place;

/// Sets the size that programs on a terminal see.
///
/// # Errors
/// The descriptor is no terminal.
pub fn resize(master: impl AsFd, size: TerminalSize) -> Result<()> {
    let size = Winsize { ws_col: size.cols, ws_row: size.rows, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(master, size).at("set the terminal's size", "")
}

/// Makes the terminal, hands its master to the supervisor, and makes it the command's input, output and controlling
/// terminal. The process leads a session already.
///
/// # Errors
/// The kernel refuses; the supervisor is gone.
pub fn open(size: TerminalSize, mounted: &Mounted, channel: &Channel) -> Result<()> {
    let step = "make the terminal";
    let master = openat(&mounted.pts, "ptmx", OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())
        .at(step, "/dev/pts/ptmx")?;
    unlockpt(&master).at(step, "")?;
    // The slave is opened through its master: no name in /dev is looked up.
    let slave =
        ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).at(step, "")?;
    resize(&master, size)?;
    console(&slave, mounted)?;
    ioctl_tiocsctty(&slave).at("make it the controlling terminal", "")?;
    channel.send(&FromChild::Terminal, &[master.as_fd()])?;
    for number in 0..=2 {
        let copy: OwnedFd = slave.try_clone().at(step, "")?;
        place(copy, number).at(step, number)?;
    }
    Ok(())
}

/// /dev/console is the terminal, as a container's programs expect.
fn console(slave: &OwnedFd, mounted: &Mounted) -> Result<()> {
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
