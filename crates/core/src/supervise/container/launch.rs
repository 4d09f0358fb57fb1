//! From a plan to a process.

use nsrs_base::error::{Act, Code, During, Error, Result};
use nsrs_base::host::Host;
use nsrs_base::ids::maps::{self, MapWriter, UserNamespace};
use nsrs_base::options::USERNS;
use nsrs_base::sys::child::{spawn, spawn_apart};
use nsrs_base::sys::process::exit_now;

use super::child::Child;
use crate::plan::Plan;
use crate::plan::sandbox::Sandbox;
use crate::steps::channel::{Channel, FromChild, ToChild};
use crate::steps::{self, Inputs, Waiting, complete, intermediate};

/// The process that the supervisor made for a new container.
#[derive(Debug)]
pub enum Launched {
    /// The container's first process.
    First(Child),
    /// The intermediate process that will make it.
    Intermediate(Child),
}

impl Launched {
    /// The new process, whichever of the two it is.
    #[must_use]
    pub fn child(&self) -> &Child {
        let (Launched::First(child) | Launched::Intermediate(child)) = self;
        child
    }

    /// It will make the container's first process.
    #[must_use]
    pub fn is_intermediate(&self) -> bool {
        matches!(self, Launched::Intermediate(_))
    }

    /// The same, after something was done to the process.
    ///
    /// # Errors
    /// The error of `act`.
    pub fn try_map(self, act: impl FnOnce(bool, Child) -> Result<Child>) -> Result<Launched> {
        match self {
            Launched::First(child) => act(false, child).map(Launched::First),
            Launched::Intermediate(child) => act(true, child).map(Launched::Intermediate),
        }
    }
}

/// Makes the first process of a container, or the intermediate one before it; which may wait for its command.
///
/// `ours` is the supervisor's end of the channel to it, which comes back: the copy that the new process has must be closed
/// there, or it would never see the supervisor's end.
///
/// # Errors
/// The kernel refuses a process or a namespace.
pub fn start(plan: &Plan, host: &Host, inputs: Inputs, ours: Channel, waiting: Waiting) -> Result<(Launched, Channel)> {
    let needs_intermediate = intermediate::is_needed(&plan.sandbox);
    let flags = if needs_intermediate { 0 } else { plan.sandbox.namespaces.flags() };
    let body = || {
        if needs_intermediate {
            run_intermediate(plan, host, inputs, waiting)
        } else {
            steps::run(plan, inputs, waiting)
        }
    };
    let (new, ours) =
        spawn_apart(flags, ours, body).map_err(|errno| refused(plan, host, errno)).during(Act::Namespaces)?;
    let child = Child::new(new.pid, new.pidfd);
    Ok((if needs_intermediate { Launched::Intermediate(child) } else { Launched::First(child) }, ours))
}

/// The intermediate process: prepares, makes the container as its own sibling, tells the supervisor, ends.
fn run_intermediate(plan: &Plan, host: &Host, mut inputs: Inputs, waiting: Waiting) -> ! {
    let channel = inputs.channel.try_clone().unwrap_or_else(|error| complete::report(&inputs.channel, error));
    let result = intermediate::prepare(&plan.sandbox, &inputs.channel).and_then(|flags| {
        inputs.mapped = plan.sandbox.user_namespace.is_private() && plan.sandbox.namespaces.clock.is_some();
        let body = || steps::run_taken_over(plan, inputs, waiting);
        let new = spawn(flags | libc::CLONE_PARENT as u64, body).map_err(|errno| refused(plan, host, errno))?;
        channel.send(&FromChild::ProcessMade(new.pid.as_raw_nonzero().get()), &[])
    });
    if let Err(error) = result {
        let _ = channel.send(&FromChild::Failed(error.during(Act::Namespaces)), &[]);
    }
    exit_now(0)
}

/// A refused clone3 with the reasons that are known for it.
fn refused(plan: &Plan, host: &Host, errno: nix::errno::Errno) -> Error {
    let kinds: Vec<&str> = plan.sandbox.namespaces.private.iter().map(|kind| kind.file()).collect();
    let error = Error::os("make the namespaces", kinds.join(", "), errno);
    let user = plan.sandbox.user_namespace.is_private();
    match errno {
        nix::errno::Errno::EPERM if user && host.apparmor_restricts_user_namespaces => error.code(Code::Unsupported).hint(
            "AppArmor restricts user namespaces (Ubuntu 23.10 and later): sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, \
             or a profile for nsrs-runtime with 'userns,'",
        ),
        nix::errno::Errno::EPERM if user => error.code(Code::Unsupported).hint(
            "something forbids user namespaces: the seccomp profile of an outer container (docker: --security-opt \
             seccomp=unconfined), a chroot, or kernel.unprivileged_userns_clone",
        ),
        nix::errno::Errno::EPERM => error.code(Code::Unsupported).hint(format!("run it as root, or in a user namespace with {USERNS} private")),
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
