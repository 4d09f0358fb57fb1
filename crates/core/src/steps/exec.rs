//! The last step: the command takes the place of our program.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::unistd::{execve, execveat};
use rustix::fs::{Mode, OFlags};

use super::channel::Channel;
use super::complete;
use super::root_dir::RootDir;
use crate::plan::capability::NAMES;
use nsrs_base::error::{At, Code, Error, Result};
use nsrs_base::options::{CAP_ADD, WORKDIR};
use nsrs_base::sys::fds::{close_others, duplicate_above, keep_on_exec, place};
use nsrs_base::sys::signal::set_default;

/// The strings of an execve(2), made while the heap is ours.
pub struct Image {
    candidates: Vec<CString>,
    args: Vec<CString>,
    env: Vec<CString>,
}

fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| {
        Error::new(Code::InvalidArgument, "run the command", "a text holds a NUL byte").on(format!("{text:?}"))
    })
}

/// Where the program may be: a name without a slash in every directory of the command's `PATH`.
pub fn candidates(args: &[String], env: &[String]) -> Vec<String> {
    let program = args.first().map_or("", String::as_str);
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    let path = env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or("");
    let directories = path.split(':').map(|directory| if directory.is_empty() { "." } else { directory });
    directories.map(|directory| format!("{directory}/{program}")).collect()
}

impl Image {
    /// Makes the C strings for execve(2), for every place in which `PATH` lets the program be.
    ///
    /// # Errors
    /// A text holds a NUL byte.
    pub fn new(args: &[String], env: &[String]) -> Result<Image> {
        let all = |texts: &[String]| texts.iter().map(|text| c_string(text)).collect::<Result<Vec<_>>>();
        Ok(Image { candidates: all(&candidates(args, env))?, args: all(args)?, env: all(env)? })
    }

    /// Executes the command; returns only the reason why it could not.
    #[must_use]
    pub fn exec(&self) -> Error {
        let name = self.args.first().map(|arg| arg.to_string_lossy().into_owned()).unwrap_or_default();
        let mut denied = None;
        for candidate in &self.candidates {
            let Err(errno) = execve(candidate, &self.args, &self.env);
            match errno {
                Errno::ENOENT | Errno::ENOTDIR
                    if std::path::Path::new(&*candidate.to_string_lossy()).symlink_metadata().is_err() => {}
                Errno::EACCES => denied = denied.or(Some(candidate)),
                _ => return refused(&candidate.to_string_lossy(), errno),
            }
        }
        match denied {
            Some(candidate) => refused(&candidate.to_string_lossy(), Errno::EACCES),
            None if name.contains('/') => Error::os("run the command", name, Errno::ENOENT)
                .code(Code::CommandNotFound)
                .because("it is not in the container"),
            None => {
                Error::new(Code::CommandNotFound, "run the command", "it is in no directory of the container's PATH")
                    .on(name)
            }
        }
    }
}

/// Why the kernel would not execute a file that exists.
fn refused(path: &str, errno: Errno) -> Error {
    let error = Error::os("run the command", path, errno).code(Code::CommandNotExecutable);
    match errno {
        Errno::EACCES if std::path::Path::new(path).is_dir() => error.because("it is a directory"),
        Errno::EACCES => error.because("it is not executable for this user, or lies on a mount with noexec"),
        Errno::ENOEXEC => error
            .because("not a program for this machine")
            .hint("a script needs a first line such as #!/bin/sh; a program must be of this processor"),
        Errno::ENOENT => error.because(match interpreter(path) {
            Some(interpreter) => format!("the interpreter it names, {interpreter}, is missing in the container"),
            None => "the interpreter or loader it names is missing in the container".into(),
        }),
        Errno::E2BIG => error
            .because("arguments and environment are too long")
            .hint("pass large data by a file or by standard input"),
        Errno::EPERM => match withheld_capabilities(path) {
            names if names.is_empty() => error,
            names => error
                .because(format!("it demands capabilities that the container lacks ({})", names.join(", ")))
                .hint(names.iter().map(|name| format!("{CAP_ADD} {name}")).collect::<Vec<_>>().join(" ")),
        },
        _ => error,
    }
}

/// The capabilities that a file insists on and the bounding set lacks: the kernel executes it with all or not at all
/// (capabilities(7), "File capabilities").
fn withheld_capabilities(path: &str) -> Vec<&'static str> {
    let mut attribute = [0; 24];
    let Ok(length) = rustix::fs::getxattr(path, c"security.capability", &mut attribute[..]) else { return Vec::new() };
    let demanded = demanded_capabilities(&attribute[..length]);
    let lacks = |number: usize| {
        let set = rustix::thread::CapabilitySet::from_bits_retain(1 << number);
        rustix::thread::capability_is_in_bounding_set(set) == Ok(false)
    };
    let all = NAMES.iter().enumerate();
    all.filter(|(number, _)| demanded & 1 << number != 0 && lacks(*number)).map(|(_, name)| *name).collect()
}

/// The permitted set of a `vfs_cap_data` (linux/capability.h) whose effective bit is set: without it nothing is demanded.
fn demanded_capabilities(attribute: &[u8]) -> u64 {
    let word = |index: usize| {
        attribute.get(4 * index..4 * index + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
    };
    if word(0) & 1 == 0 { 0 } else { u64::from(word(1)) | u64::from(word(3)) << 32 }
}

/// What the first line of a script names.
fn interpreter(path: &str) -> Option<String> {
    let mut start = [0; 256];
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty()).ok()?;
    let length = rustix::io::read(&file, &mut start).ok()?;
    let text = String::from_utf8_lossy(&start[..length]).into_owned();
    text.strip_prefix("#!")?.lines().next()?.split_whitespace().next().map(ToOwned::to_owned)
}

/// Enters the working directory and makes sure that it lies inside the root: a descriptor that slipped through could
/// lead elsewhere.
///
/// # Errors
/// It is missing, not a directory, closed to the user, or outside.
pub fn enter_workdir(path: &str, root: &RootDir) -> Result<()> {
    let step = "enter the working directory";
    let fd = root.open(path, OFlags::PATH | OFlags::DIRECTORY).map_err(|errno| {
        let error = Error::os(step, path, errno);
        match errno {
            rustix::io::Errno::NOENT if ["/proc/", "/sys/", "/dev/"].iter().any(|own| path.starts_with(own)) => error
                .code(Code::InvalidArgument)
                .because("the container has a /proc, /sys and /dev of its own")
                .hint(format!("go to another directory, or choose one with {WORKDIR}")),
            rustix::io::Errno::NOENT => error
                .code(Code::InvalidArgument)
                .hint(format!("make it in the root file system, or choose another with {WORKDIR}")),
            rustix::io::Errno::LOOP => error.code(Code::InvalidArgument).because("it leads through a link of /proc"),
            _ => error,
        }
    })?;
    rustix::process::fchdir(&fd).at(step, path)?;
    // The kernel writes "(unreachable)" before a path that the root doesn't lead to.
    match rustix::process::getcwd(Vec::new()) {
        Ok(cwd) if cwd.as_bytes().starts_with(b"/") => Ok(()),
        _ => Err(Error::new(Code::SetupFailed, step, "it lies outside the root file system").on(path)),
    }
}

/// Gives signals back their default action and unblocks all: the command starts as from a shell. An exec does that for
/// handlers by itself; what our own program ignores is `SIGPIPE` alone, and in the foreground what its caller does (see
/// [`forget_ignored_signals`]).
///
/// # Errors
/// Never in practice.
pub fn reset_signals() -> Result<()> {
    set_default(Signal::SIGPIPE).at("reset the signal", Signal::SIGPIPE)?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).at("unblock signals", "")
}

/// At the start of a supervisor: what the caller of Node had ignored is not for the commands.
///
/// # Errors
/// Never in practice.
pub fn forget_ignored_signals() -> Result<()> {
    let fixed = [Signal::SIGKILL, Signal::SIGSTOP, Signal::SIGPIPE, Signal::SIGSEGV, Signal::SIGBUS];
    for signal in Signal::iterator().filter(|signal| !fixed.contains(signal)) {
        set_default(signal).at("reset the signal", signal)?;
    }
    Ok(())
}

/// What a process has open beside its standard streams and the passed descriptors, which stand at their numbers.
pub struct Arranged {
    /// The way back to the supervisor.
    pub channel: Channel,
    /// Our own executable, for a process that becomes an init first.
    pub program: Option<OwnedFd>,
}

/// Puts the passed descriptors at their numbers, and closes every other from 3 on but copies of the channel and the program.
/// The values that own the others are not to be used or dropped any more.
///
/// # Errors
/// No descriptors are left.
pub fn arrange_fds(
    numbers: &[i32],
    fds: Vec<OwnedFd>,
    channel: &Channel,
    program: Option<&OwnedFd>,
) -> Result<Arranged> {
    let step = "pass the file descriptor";
    let above = numbers.iter().max().map_or(3, |most| most + 1);
    // First out of the way of each other, then each to its place.
    let aside = |fd: BorrowedFd<'_>| duplicate_above(fd, above).at(step, "");
    let channel = Channel::of_process(channel.fds().into_iter().map(aside).collect::<Result<_>>()?)?;
    let program = program.map(|program| aside(program.as_fd())).transpose()?;
    // The originals are closed here: one of them may have the number that another is to get.
    let moved = fds.into_iter().map(|fd| aside(fd.as_fd())).collect::<Result<Vec<_>>>()?;
    let kept = moved.iter().map(AsFd::as_fd).chain(program.as_ref().map(AsFd::as_fd)).chain(channel.fds());
    close_others(&kept.collect::<Vec<_>>()).at("close all other file descriptors", "")?;
    for (number, fd) in numbers.iter().zip(moved) {
        // The caller's channel is closed.
        place(fd, *number).at(step, number).unwrap_or_else(|error| complete::report(&channel, error));
    }
    Ok(Arranged { channel, program })
}

/// The command's environment with what the container's /etc/passwd says of its user, if nothing else was said: the home
/// directory, and the name, where it is to be told.
#[must_use]
pub fn with_user(env: &[String], home: Option<&str>, name: Option<&str>) -> Vec<String> {
    let values = [("HOME", Some(home.unwrap_or("/"))), ("USER", name), ("LOGNAME", name)];
    let is_said = |name: &str| env.iter().any(|entry| entry.split('=').next() == Some(name));
    let added = values.into_iter().filter(|(name, _)| !is_said(name));
    let added = added.filter_map(|(name, value)| value.map(|value| format!("{name}={value}")));
    env.iter().cloned().chain(added).collect()
}

/// Executes our own program as the container's init, from sealed memory: no path of the container is involved, and
/// nothing inside can write to it. The init gets the channel and, behind its numbers, the command.
#[must_use]
pub fn exec_init(program: &OwnedFd, channel: &Channel, args: &[String], env: &[String]) -> Error {
    let step = "hand the channel to the init";
    let numbers: Vec<i32> = channel.fds().iter().map(AsRawFd::as_raw_fd).collect();
    let words: Vec<String> = numbers.iter().map(i32::to_string).collect();
    let mut own = vec!["nsrs-runtime".to_owned(), "init".to_owned(), words.join(",")];
    own.extend_from_slice(args);
    let all = |texts: &[String]| texts.iter().map(|text| c_string(text)).collect::<Result<Vec<_>>>();
    let (args, env) = match (all(&own), all(env)) {
        (Ok(args), Ok(env)) => (args, env),
        (Err(error), _) | (_, Err(error)) => return error,
    };
    // Itself, and no copies: the container's limit may allow no more of them.
    if let Err(errno) = numbers.into_iter().try_for_each(keep_on_exec) {
        return Error::os(step, "", errno);
    }
    let Err(errno) = execveat(program, c"", &args, &env, AtFlags::AT_EMPTY_PATH);
    Error::os("run the init", "", errno)
}

#[cfg(test)]
mod tests {
    use super::demanded_capabilities;

    #[test]
    fn a_file_demands_its_permitted_capabilities_if_they_are_effective() {
        let attribute = |magic: u32, low: u32, high: u32| [magic, low, 0, high, 0].map(u32::to_le_bytes).concat();
        assert_eq!(demanded_capabilities(&attribute(0x0200_0001, 1 << 13, 1)), 1 << 13 | 1 << 32);
        assert_eq!(demanded_capabilities(&attribute(0x0200_0000, 1 << 13, 1)), 0);
        assert_eq!(demanded_capabilities(&attribute(0x0100_0001, 1 << 13, 0)[..12]), 1 << 13);
        assert_eq!(demanded_capabilities(&[]), 0);
    }
}
