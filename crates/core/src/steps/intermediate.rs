//! The intermediate process of a container that joins namespaces or sets clocks.
//!
//! A namespace is joined by a process, and its children live in it; a clock offset must be written before the first
//! process enters the new time namespace. So a short-lived process does both and then makes the container as its own
//! sibling (`CLONE_PARENT`): the supervisor is the parent of both.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;

use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::{Mode, OFlags, open};

use super::channel::{Channel, FromChild, ToChild};
use crate::plan::namespace::{ClockOffsets, Join, Kind};
use crate::plan::sandbox::Sandbox;
use nsrs_base::error::{Act, At, Code, During, Error, Result};
use nsrs_base::ids::maps;
use nsrs_base::ids::maps::MapWriter;
use nsrs_base::ids::maps::UserNamespace;
use nsrs_base::sys::namespace;

/// Whether a container needs an intermediate process: it joins namespaces or sets clocks.
#[must_use]
pub fn is_needed(sandbox: &Sandbox) -> bool {
    !sandbox.namespaces.joined.is_empty() || sandbox.namespaces.clock.is_some()
}

/// Opens a namespace and makes sure of its kind.
fn open_namespace(join: &Join) -> Result<File> {
    let step = format!("open the {} namespace", join.kind.file());
    let fd =
        open(join.path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY, Mode::empty())
            .map_err(|errno| {
            let error = Error::os(&step, &join.path, errno).because(format!("wanted by {}", join.kind.option())).about(join.kind.option());
            match errno {
                rustix::io::Errno::NOENT => error.code(Code::InvalidArgument),
                rustix::io::Errno::ACCESS | rustix::io::Errno::PERM => {
                    error.hint("it takes the rights to trace that process (ptrace(2)): be its user, or root, and let no security module forbid it")
                }
                _ => error,
            }
        })?;
    match namespace::kind(&fd) {
        Ok(flag) if flag == join.kind.flag() => Ok(File::from(fd)),
        Ok(_) => Err(Error::new(Code::InvalidArgument, step, "a namespace of another kind").on(&join.path)),
        Err(_) => Err(Error::new(Code::InvalidArgument, step, "not a namespace").on(&join.path)),
    }
}

/// Joins namespaces, sets clocks, and returns the `CLONE_NEW*` flags that remain for the container itself.
///
/// # Errors
/// A namespace can't be joined, or an offset is refused.
pub fn prepare(sandbox: &Sandbox, channel: &Channel) -> Result<u64> {
    let namespaces = &sandbox.namespaces;
    let mut flags = namespaces.flags();
    let mut offsets = match namespaces.clock {
        // Opened now: a joined mount namespace may have another /proc.
        Some(clock) => Some((
            clock,
            OpenOptions::new().write(true).open("/proc/self/timens_offsets").at("set the clock offsets", "")?,
        )),
        None => None,
    };
    // All are opened before the first is joined, for a joined mount namespace has other paths.
    let files = namespaces.joined.iter().map(|join| Ok((join, open_namespace(join)?))).collect::<Result<Vec<_>>>()?;
    if !files.is_empty() {
        // From here on a hostile process may be in the same namespaces: it must not look into this one.
        nix::sys::prctl::set_dumpable(false).at("hide from other processes", "")?;
    }
    for (join, file) in &files {
        setns(file, CloneFlags::from_bits_retain(join.kind.flag() as i32)).map_err(|errno| {
            let error = Error::os(format!("join the {} namespace", join.kind.file()), &join.path, errno);
            match errno {
                nix::errno::Errno::EPERM => error
                    .hint("joining takes rights over the user namespace that owns it: join that one too, or be root"),
                _ => error,
            }
        })?;
    }
    if namespaces.joins(Kind::User) {
        maps::become_root_of_joined();
    }
    if let Some((clock, file)) = &mut offsets {
        if let UserNamespace::Private { writer, .. } = &sandbox.user_namespace {
            unshare(CloneFlags::CLONE_NEWUSER).at("make the user namespace", "")?;
            flags &= !Kind::User.flag();
            if *writer == MapWriter::Process {
                maps::write_own(&sandbox.user_namespace).during(Act::IdMaps)?;
            } else {
                channel.send(&FromChild::NeedMaps, &[])?;
                match channel.receive::<ToChild>()? {
                    Some((ToChild::Mapped, _)) => {}
                    _ => {
                        return Err(Error::new(Code::SupervisorLost, "wait for the id maps", "the supervisor is gone"));
                    }
                }
            }
        }
        unshare(CloneFlags::from_bits_retain(Kind::Time.flag() as i32)).at("make the time namespace", "")?;
        flags &= !Kind::Time.flag();
        write_offsets(*clock, file)?;
    }
    Ok(flags)
}

fn write_offsets(clock: ClockOffsets, file: &mut File) -> Result<()> {
    let mut text = String::new();
    for (name, seconds) in [("monotonic", clock.monotonic), ("boottime", clock.boottime)] {
        let _ = writeln!(text, "{name} {seconds} 0");
    }
    file.write_all(text.as_bytes()).map_err(|error| {
        let record = Error::os(
            "set the clock offsets",
            format!("monotonic {}, boottime {}", clock.monotonic, clock.boottime),
            &error,
        );
        match record.errno {
            Some(libc::ERANGE) => {
                record.code(Code::InvalidArgument).because("a clock can't show a time before zero or after 146 years")
            }
            _ => record,
        }
    })
}
