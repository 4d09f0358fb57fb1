//! From a plan to a process.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::process::{PidfdFlags, getpid, pidfd_open};

use super::container::Process;
use crate::net::inside::Address;
use crate::plan::Plan;
use crate::plan::sandbox::Sandbox;
use crate::steps::channel::{Channel, FromChild, ToChild};
use crate::steps::{self, Inputs, etc, stage};
use nsrs_base::error::{At, Code, Error, Result};
use nsrs_base::host::Host;
use nsrs_base::ids::maps;
use nsrs_base::ids::maps::{MapWriter, UserNamespace};
use nsrs_base::sys::clone::{Side, clone3};
use nsrs_base::sys::process::exit_now;

/// What goes into the new process.
pub struct Files {
    /// Standard input, output and error; `None` keeps the supervisor's own.
    pub stdio: Option<[OwnedFd; 3]>,
    /// Further descriptors.
    pub fds: Vec<OwnedFd>,
    /// Our executable in sealed memory.
    pub program: OwnedFd,
    /// The container's addresses.
    pub addresses: Vec<Address>,
    /// Its files in /etc.
    pub etc: etc::Files,
    /// The directory for the writable layers of its overlays; `None` keeps them in memory.
    pub disk: Option<PathBuf>,
    /// The directory in which its changes are kept.
    pub kept: Option<OwnedFd>,
}

/// What came of it.
pub struct Launched {
    /// The new process: the container's first, or the stage that will make it.
    pub process: Process,
    /// Is it the stage?
    pub is_stage: bool,
    /// The way to it.
    pub channel: Channel,
}

/// Makes the first process of a container, or its stage; `ahead` of its command if that comes later.
///
/// # Errors
/// The kernel refuses a process or a namespace.
pub fn start(plan: &Plan, host: &Host, files: Files, ahead: bool) -> Result<Launched> {
    let (ours, theirs) = Channel::pair()?;
    let supervisor = pidfd_open(getpid(), PidfdFlags::empty()).at("hold the supervisor", "")?;
    let is_stage = stage::needed(&plan.sandbox);
    let flags = if is_stage { 0 } else { plan.sandbox.namespaces.flags() };
    match clone3(flags).map_err(|errno| refused(&plan.sandbox, host, errno))? {
        Side::Parent(pid, pidfd) => {
            Ok(Launched { process: Process { pid, pidfd, slot: None }, is_stage, channel: ours })
        }
        Side::Child => {
            drop(ours);
            let Files { stdio, fds, program, addresses, etc, disk, kept } = files;
            let inputs = Inputs {
                stdio,
                fds,
                program,
                channel: theirs,
                supervisor,
                addresses,
                files: etc,
                filtered: host.privileged,
                mapped: false,
                disk,
                kept,
            };
            match (is_stage, ahead) {
                (true, _) => run_stage(plan, host, inputs),
                (false, true) => steps::run_ahead(plan, inputs),
                (false, false) => steps::run(plan, inputs),
            }
        }
    }
}

/// The stage: prepares, makes the container as its own sibling, tells the supervisor, ends.
fn run_stage(plan: &Plan, host: &Host, mut inputs: Inputs) -> ! {
    let result = stage::prepare(&plan.sandbox, &inputs.channel).and_then(|flags| {
        inputs.mapped = plan.sandbox.user_namespace.is_private() && plan.sandbox.namespaces.clock.is_some();
        match clone3(flags | libc::CLONE_PARENT as u64).map_err(|errno| refused(&plan.sandbox, host, errno))? {
            Side::Parent(pid, pidfd) => {
                let born = FromChild::Born(pid.as_raw_nonzero().get());
                inputs.channel.send(&born, &[std::os::fd::AsFd::as_fd(&pidfd)])
            }
            Side::Child => steps::run_taken_over(plan, inputs_of(&mut inputs)),
        }
    });
    if let Err(error) = result {
        let _ = inputs.channel.send(&FromChild::Failed(error), &[]);
    }
    exit_now(0)
}

/// Takes the inputs out of a borrowed value; the process that does so never comes back to it.
fn inputs_of(inputs: &mut Inputs) -> Inputs {
    Inputs {
        stdio: inputs.stdio.take(),
        fds: std::mem::take(&mut inputs.fds),
        program: inputs.program.try_clone().unwrap_or_else(|_| exit_now(125)),
        channel: inputs.channel.try_clone().unwrap_or_else(|_| exit_now(125)),
        supervisor: inputs.supervisor.try_clone().unwrap_or_else(|_| exit_now(125)),
        addresses: std::mem::take(&mut inputs.addresses),
        files: std::mem::take(&mut inputs.files),
        filtered: inputs.filtered,
        mapped: inputs.mapped,
        disk: inputs.disk.take(),
        kept: inputs.kept.take(),
    }
}

/// A refused clone3 with the reasons that are known for it.
fn refused(sandbox: &Sandbox, host: &Host, errno: nix::errno::Errno) -> Error {
    let kinds: Vec<&str> = sandbox.namespaces.private.iter().map(|kind| kind.file()).collect();
    let error = Error::os("make the namespaces", kinds.join(", "), errno);
    let user = sandbox.user_namespace.is_private();
    match errno {
        nix::errno::Errno::EPERM if user && host.apparmor_restricts_user_namespaces => error.code(Code::Unsupported).hint(
            "AppArmor restricts user namespaces (Ubuntu 23.10 and later): sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, \
             or a profile for nsrs-runtime with 'userns,'",
        ),
        nix::errno::Errno::EPERM if user => error.code(Code::Unsupported).hint(
            "something forbids user namespaces: the seccomp profile of an outer container (docker: --security-opt \
             seccomp=unconfined), a chroot, or kernel.unprivileged_userns_clone",
        ),
        nix::errno::Errno::EPERM => error.code(Code::Unsupported).hint("run it as root, or in a user namespace with --userns private"),
        nix::errno::Errno::ENOSPC => error.hint("the limit of namespaces is reached (user.max_*_namespaces), or they are nested 32 deep"),
        nix::errno::Errno::EUSERS => error.hint("user namespaces are nested 32 deep"),
        nix::errno::Errno::EAGAIN => error.hint("the limit of processes is reached (ulimit -u, pids cgroup)"),
        nix::errno::Errno::ENOSYS => error.hint("nsrs needs Linux 5.12 or newer, and a seccomp profile around it that allows clone3"),
        _ => error,
    }
}

/// Writes the id maps of a new process, if that is the supervisor's part, and tells it.
///
/// # Errors
/// The kernel or a helper refuses a map.
pub fn map_ids(sandbox: &Sandbox, pid: rustix::process::Pid, channel: &Channel) -> Result<()> {
    let UserNamespace::Private { uids, gids, writer, deny_setgroups } = &sandbox.user_namespace else { return Ok(()) };
    let process = pid.as_raw_nonzero().to_string();
    match writer {
        MapWriter::Process => return Ok(()),
        MapWriter::Supervisor => maps::write(&process, uids, gids, *deny_setgroups)?,
        MapWriter::Helpers => {
            maps::run_helper("newuidmap", &process, uids)?;
            maps::run_helper("newgidmap", &process, gids)?;
        }
    }
    // A process that is gone by now says why on its own channel.
    let _ = channel.send(&ToChild::Mapped, &[]);
    Ok(())
}
