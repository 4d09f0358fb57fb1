//! What happens inside the new process, one file per act.
//!
//! [`prepare`] and [`complete`](mod@complete) are the order of acts; the reason for each place stands beside it, and so does
//! the [`Act`] that an error is of. [`run`] does both in one go, or waits between them until somebody asks for the process
//! ([`Waiting`]).

pub mod channel;
pub mod complete;
pub mod enter;
pub mod etc;
pub mod exec;
mod existing_paths;
mod host_root;
mod host_split;
mod identity;
mod image_root;
pub mod intermediate;
mod layers;
mod limits;
pub(crate) mod mount_api;
mod mounts;
mod names;
mod pseudo;
pub(crate) mod root;
mod root_dir;
pub(crate) mod scratch;
mod search_permission;
mod sources;
pub mod terminal;

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags, openat};
use rustix::process::{Signal, setsid, umask};

use self::channel::{Channel, FromChild, ToChild};
use self::complete::{PreparedCommand, Surroundings, Tree};
use self::etc::Files;
use crate::net::inside::InterfaceAddress;
use crate::net::kinds::{ContainerSide, ProcRoot};
use crate::plan::Plan;
use crate::plan::capability::Capabilities;
use crate::plan::namespace::Kind;
use crate::plan::process::Process;
use crate::plan::sandbox::Sandbox;
use nsrs_base::error::{Act, At, Code, During, Error, Result};
use nsrs_base::ids::maps::{self, MapWriter, UserNamespace};
use nsrs_base::sys::fds::close_others;
use nsrs_base::sys::poll;
use nsrs_base::sys::process::exit_now;

/// What the supervisor hands to the new process beside the plan.
pub struct Inputs {
    /// Standard input, output and error; `None` leaves the process those it has.
    pub stdio: Option<[OwnedFd; 3]>,
    /// Further descriptors, in the order of the plan's `preserve_fds`.
    pub fds: Vec<OwnedFd>,
    /// Our own executable in sealed memory, for the init.
    pub program: OwnedFd,
    /// The process's end of the channel to the supervisor.
    pub channel: Channel,
    /// A pidfd of the supervisor, readable when that has ended.
    pub supervisor: OwnedFd,
    /// The container's addresses on its interface.
    pub addresses: Vec<InterfaceAddress>,
    /// The contents of the container's /etc/hosts, /etc/hostname and /etc/resolv.conf.
    pub files: Files,
    /// The supervisor has installed the system call filter, for itself and all its children.
    pub filtered: bool,
    /// The user namespace was made, and mapped, by the intermediate process.
    pub mapped: bool,
    /// The directory for the writable layers of its overlays; `None` keeps them in memory.
    pub disk: Option<PathBuf>,
    /// The directory in which the changes are kept, where they are.
    pub kept: Option<OwnedFd>,
}

/// When the process of a recipe is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// From the start: the plan's.
    Never,
    /// Only when somebody asks for it: the recipe waits before its second half, and the plan's process is a stand-in.
    ForProcess,
}

/// Turns the new process into the container's command. Does not come back: if a step failed, the supervisor was told.
pub fn run(plan: &Plan, inputs: Inputs, waiting: Waiting) -> ! {
    finish_with(inputs, waiting, |inputs| walk(plan, inputs, waiting))
}

/// As [`run`], in a process that an intermediate process made. It does nothing before the supervisor has taken it over: if
/// the intermediate process ended without a message, nobody would ever end it.
pub fn run_taken_over(plan: &Plan, inputs: Inputs, waiting: Waiting) -> ! {
    finish_with(inputs, waiting, |inputs| {
        wait_for(&inputs.channel, "wait to be taken over", |message| matches!(message, ToChild::Known))?;
        walk(plan, inputs, waiting)
    })
}

/// The recipe, with its one waiting point.
fn walk(plan: &Plan, mut inputs: Inputs, waiting: Waiting) -> Result<Infallible> {
    let Plan { sandbox, process } = plan;
    match waiting {
        Waiting::Never => {
            let prepared = prepare(plan, &mut inputs, Writes::MountPoints)?;
            complete_first(sandbox, process, prepared, inputs)
        }
        Waiting::ForProcess => {
            // For whoever looks at the host's processes and wonders; gone with the exec.
            rustix::thread::set_name(c"nsrs-prewarmed").at("name the process", "")?;
            let prepared = prepare(plan, &mut inputs, Writes::Not)?;
            rehearse(plan)?;
            die_with_supervisor(&inputs.supervisor)?;
            let mounts = own_mounts(sandbox, &prepared)?;
            inputs.channel.send(&FromChild::Ready, mounts.as_ref().map(AsFd::as_fd).as_slice())?;
            drop(mounts);
            let process = wait_for_process(&mut inputs)?;
            complete_first(sandbox, &process, prepared, inputs)
        }
    }
}

/// Waits for the process that somebody asks for, with its streams and descriptors.
fn wait_for_process(inputs: &mut Inputs) -> Result<Process> {
    let (process, mut stdio) = match inputs.channel.receive::<ToChild>()? {
        Some((ToChild::Process(process), fds)) => (*process, fds),
        // The supervisor is gone, so nobody will.
        _ => exit_now(0),
    };
    inputs.fds = stdio.split_off(stdio.len().min(3));
    inputs.stdio = <[OwnedFd; 3]>::try_from(stdio).ok();
    Ok(process)
}

/// Does what a request is answered with, for the command by which its kind was first known, up to where it would show. In a
/// new overlay the first look at a name goes through every layer; and each page of this program that is touched for the first
/// time in this process costs a fault, some ten of them before the command.
fn rehearse(plan: &Plan) -> Result<()> {
    let Plan { sandbox, process } = plan;
    let root = root::current()?;
    // Errors are told at the request.
    let _ = channel::encode(&ToChild::Process(Box::new(process.clone())))
        .and_then(|bytes| channel::decode::<ToChild>(&bytes))
        .and_then(|_| PreparedCommand::of(Tree::of(&sandbox.root), process, &root));
    let found = |path: &str| root.open(path, OFlags::PATH).is_ok();
    let _ = identity::FILES.map(found);
    let _ = exec::candidates(&process.args, &process.env).iter().any(|path| path.starts_with('/') && found(path));
    Ok(())
}

/// The mount namespace, to be held by the supervisor for a moment longer than by the container. Not where the caller may
/// be waiting for what is mounted there.
fn own_mounts(sandbox: &Sandbox, prepared: &PreparedSandbox) -> Result<Option<OwnedFd>> {
    let Some(mounted) = prepared.mounted.as_ref().filter(|_| sandbox.mounts.is_empty()) else { return Ok(None) };
    let own = openat(&mounted.proc, "self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    own.map(Some).at("hold the mount namespace", "/proc/self/ns/mnt")
}

fn finish_with(inputs: Inputs, waiting: Waiting, steps: impl FnOnce(Inputs) -> Result<Infallible>) -> ! {
    // One that waits lives on beside others: what is the supervisor's, above all its connection to Node, must end with the
    // supervisor alone. Before anything is opened here.
    let closed = match waiting {
        Waiting::Never => Ok(()),
        Waiting::ForProcess => {
            let channel = inputs.channel.fds();
            close_others(&[channel, vec![inputs.program.as_fd(), inputs.supervisor.as_fd()]].concat())
        }
    };
    let reporter = inputs.channel.try_clone();
    let Err(error) = closed.at("close all other file descriptors", "").and_then(|()| steps(inputs));
    match reporter {
        Ok(channel) => complete::report(&channel, error.during(Act::Supervisor)),
        Err(_) => exit_now(125),
    }
}

/// May mount points that are missing be made in the root?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writes {
    /// Yes, as part of what was asked for.
    MountPoints,
    /// Nobody has asked for anything: the caller may be removing the root at this moment.
    Not,
}

/// A sandbox that is made, with what its first process still needs of its making.
struct PreparedSandbox {
    mounted: Option<pseudo::Mounted>,
    callers_mask: Mode,
}

/// The acts that make the sandbox. What they take from the process besides is named in [`Plan::serves`].
fn prepare(plan: &Plan, inputs: &mut Inputs, writes: Writes) -> Result<PreparedSandbox> {
    let Plan { sandbox, process } = plan;
    // A session of its own: no signal of the caller's terminal reaches it, and TIOCSTI can't type into that terminal.
    setsid().at("start a session", "").during(Act::Terminal)?;
    // What is made below gets exactly the mode it is made with.
    let callers_mask = umask(Mode::empty());
    limits::set_oom_score(&process.resources).during(Act::Limits)?;
    // Sources are the caller's own paths: opened while this process still is the caller.
    let mut sources = sources::collect(sandbox)?;
    let kept = layers::open(sandbox, inputs).during(Act::Changes)?;
    enter_user_namespace(sandbox, inputs).during(Act::IdMaps)?;

    let mounted = if sandbox.namespaces.makes(Kind::Mount) {
        root::make_private().during(Act::Root)?;
        // Opened here: what is to be mounted must be of this mount namespace.
        let disk = inputs.disk.as_deref().map(scratch::open_disk).transpose().during(Act::Changes)?;
        let on_disk = kept.as_ref().map(|kept| &kept.layers).or(disk.as_ref());
        let mut scratch = scratch::Scratch::for_sandbox(sandbox, on_disk).during(Act::Changes)?;
        // In a copy nothing could be told from what was there before.
        let for_copy = disk.as_ref().filter(|_| sandbox.changes.is_none());
        sources.overlay(sandbox, scratch.as_mut()).during(Act::Mounts)?;
        let mut notes = Vec::new();
        let root =
            root::enter(sandbox, &process.workdir, &inputs.files, scratch.as_mut(), for_copy, &mut notes, writes)
                .during(Act::Root)?;
        for note in notes {
            inputs.channel.send(&FromChild::Note(note), &[])?;
        }
        let mounted = match &sandbox.pseudo {
            Some(pseudo) => Some(pseudo::mount(pseudo, &mut sources, &root).during(Act::Pseudo)?),
            None => None,
        };
        if let Some(mounted) = &mounted {
            etc::bind(&inputs.files, &root, mounted).during(Act::Files)?;
        }
        mounts::make(sandbox, &mut sources, &root).during(Act::Mounts)?;
        if let (Some(scratch), Some(mounted)) = (&scratch, &mounted) {
            layers::send_to_supervisor(plan, scratch, kept, &mounted.proc, &inputs.channel).during(Act::Changes)?;
        }
        if writes == Writes::Not {
            root::allow_writes(sandbox).during(Act::Root)?;
        }
        mounted
    } else {
        None
    };
    drop(sources);
    names::set(sandbox).during(Act::Names)?;
    let connecting = Connecting { sandbox, inputs, mounted: mounted.as_ref() };
    sandbox.network.kind().inside(&connecting).during(Act::Network)?;
    if let (Some(mounted), Some(pseudo)) = (&mounted, &sandbox.pseudo) {
        names::set_sysctls(sandbox, mounted).during(Act::Sysctls)?;
        // After the last write of ours to /proc/sys.
        pseudo::restrict(pseudo, mounted).during(Act::Pseudo)?;
    }
    // Thirty calls, which take no right from the acts to come.
    identity::drop_bounding(Capabilities::ALL, &process.rights).during(Act::Rights)?;
    Ok(PreparedSandbox { mounted, callers_mask })
}

/// The acts that are the first process's own.
fn complete_first(
    sandbox: &Sandbox,
    process: &Process,
    prepared: PreparedSandbox,
    mut inputs: Inputs,
) -> Result<Infallible> {
    // For an init, which keeps it while the command runs, when it is in reach of the container. Made here, and not by the
    // supervisor: a socket leads whoever has it to the process that made its pair (`SO_PEERPIDFD`, Linux 6.5), and the right to
    // trace leads from there to all descriptors of that one (pidfd_getfd(2)). And before any limit of the command's.
    let own = if sandbox.init { Some(Channel::mailbox().during(Act::Descriptors)?) } else { None };
    complete::take_stdio(inputs.stdio.take()).during(Act::Descriptors)?;
    if let (Some(mounted), Some(size)) = (&prepared.mounted, process.tty) {
        terminal::open(size, mounted, &inputs.channel).during(Act::Terminal)?;
    }
    drop(prepared.mounted);
    umask(process.umask.map_or(prepared.callers_mask, Mode::from_raw_mode));
    let around = Surroundings::of(sandbox, &process.rights, inputs.filtered);
    let command = complete::assume(&around, process)?;
    // The signal at the supervisor's death is lost with every change of credentials, so it comes after the last one.
    die_with_supervisor(&inputs.supervisor)?;
    let program = sandbox.init.then_some(&inputs.program);
    let channel = match own {
        Some((theirs, own)) => {
            inputs.channel.send(&FromChild::Channel, &theirs.fds()).during(Act::Descriptors)?;
            own
        }
        None => inputs.channel,
    };
    let fds = exec::arrange_fds(&process.preserve_fds, inputs.fds, &channel, program).during(Act::Descriptors)?;
    command.exec(process, &fds)
}

fn enter_user_namespace(sandbox: &Sandbox, inputs: &Inputs) -> Result<()> {
    let UserNamespace::Private { writer, .. } = &sandbox.user_namespace else { return Ok(()) };
    if !inputs.mapped {
        if *writer == MapWriter::Process {
            maps::write_own(&sandbox.user_namespace)?;
        } else {
            wait_for(&inputs.channel, "wait for the id maps", |message| matches!(message, ToChild::Mapped))?;
        }
    }
    maps::become_mapped(&sandbox.user_namespace)
}

fn wait_for(channel: &Channel, step: &str, wanted: impl Fn(&ToChild) -> bool) -> Result<()> {
    match channel.receive::<ToChild>()? {
        Some((message, _)) if wanted(&message) => Ok(()),
        _ => Err(Error::new(Code::SupervisorLost, step, "the supervisor is gone")),
    }
}

/// The container's side of its network.
struct Connecting<'a> {
    sandbox: &'a Sandbox,
    inputs: &'a Inputs,
    mounted: Option<&'a pseudo::Mounted>,
}

impl ContainerSide for Connecting<'_> {
    fn wait(&self) -> Result<()> {
        wait_for(&self.inputs.channel, "wait for the network", |message| matches!(message, ToChild::Connected))
    }

    fn ask_for_program(&self) -> Result<()> {
        // It opens this process's namespaces, as the caller; one that has taken other ids is hidden until its exec.
        nix::sys::prctl::set_dumpable(true).at("let the network's program in", "")?;
        self.inputs.channel.send(&FromChild::NeedNetwork, &[])
    }

    fn addresses(&self) -> &[InterfaceAddress] {
        &self.inputs.addresses
    }

    fn proc(&self) -> Result<ProcRoot<'_>> {
        match self.mounted {
            Some(mounted) => Ok(ProcRoot::Mounted(mounted.proc.as_fd())),
            // What a joined one shows of the network's settings may be read-only.
            None if self.sandbox.namespaces.joins(Kind::Mount) => Ok(ProcRoot::Opened(sources::fresh_proc()?)),
            // Without a mount namespace of its own the container has the host's /proc, and so have we.
            None => Ok(ProcRoot::Opened(std::fs::File::open("/proc").at("open", "/proc")?.into())),
        }
    }
}

fn die_with_supervisor(supervisor: &OwnedFd) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).at("die with the supervisor", "")?;
    // The supervisor may have died before the line above. Its end of the channel would not tell: containers that are just
    // being made have copies of it.
    let mut end = [PollFd::new(supervisor, PollFlags::IN)];
    if poll::wait(&mut end, Some(Duration::ZERO)).at("look for the supervisor", "")? {
        return Err(Error::new(Code::SupervisorLost, "look for the supervisor", "it is gone"));
    }
    Ok(())
}
