//! The second half of the recipe: the acts that are a process's own. A sandbox's first process and one that enters later
//! walk it alike.

use std::os::fd::OwnedFd;

use rustix::fs::{FileType, fstat};
use serde::{Deserialize, Serialize};

use super::channel::{Channel, FromChild};
use super::exec::Arranged;
use super::root_dir::RootDir;
use super::{exec, identity, image_root, limits, root, terminal};
use crate::plan::process::{Process, Rights};
use crate::plan::root::Root;
use crate::plan::sandbox::Sandbox;
use nsrs_base::error::{Act, At, Code, During, Error, Result};
use nsrs_base::ids::maps::UserNamespace;
use nsrs_base::sys::fds::{self, replace_stdio};
use nsrs_base::sys::process::exit_now;
use nsrs_base::sys::seccomp;

/// What a process has to know of the sandbox that it is in. It holds nothing that the container may not see: whoever traces
/// a process that enters reads it in its memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Surroundings {
    /// Its user namespace, and how the ids in it are mapped.
    pub user_namespace: UserNamespace,
    /// What its file tree was made from.
    pub tree: Tree,
    /// The rights of its first process: nobody in it has more.
    pub most: Rights,
    /// The system call filter is inherited from the supervisor.
    pub filtered: bool,
}

/// What the file tree of a sandbox was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tree {
    /// The host's own tree, in which a process is told its user's name.
    Host,
    /// A directory of the host, taken as it is.
    Directory,
    /// An image, in which a missing working directory is made.
    Image,
}

impl Tree {
    /// The tree of this root.
    #[must_use]
    pub fn of(root: &Root) -> Tree {
        match root {
            Root::Image(_) => Tree::Image,
            Root::Directory { .. } => Tree::Directory,
            Root::Host(_) | Root::Shared => Tree::Host,
        }
    }
}

impl Surroundings {
    /// What `sandbox` is to its processes, the first of which has the rights `most`.
    #[must_use]
    pub fn of(sandbox: &Sandbox, most: &Rights, filtered: bool) -> Surroundings {
        let tree = Tree::of(&sandbox.root);
        Surroundings { user_namespace: sandbox.user_namespace.clone(), tree, most: most.clone(), filtered }
    }
}

/// The names of the standard streams, for errors.
const STREAMS: [&str; 3] = ["standard input", "standard output", "standard error"];

/// Makes these the standard input, output and error of this process; `None` keeps those it has.
///
/// # Errors
/// One is a directory (`InvalidArgument`): a command could leave its root by it, with openat(2). Fails as dup2(2) does.
pub fn take_stdio(stdio: Option<[OwnedFd; 3]>) -> Result<()> {
    const STEP: &str = "take standard input and output";
    for (number, fd) in (0..).zip(stdio.into_iter().flatten()) {
        replace_stdio(fd, number).at(STEP, number)?;
    }
    for (name, fd) in STREAMS.into_iter().zip(fds::stdio()) {
        let stat = fstat(fd).at(STEP, name)?;
        if FileType::from_raw_mode(stat.st_mode).is_dir() {
            return Err(Error::new(
                Code::InvalidArgument,
                STEP,
                "a directory, by which a command could leave its root",
            )
            .on(name)
            .hint("give a file, a pipe or /dev/null"));
        }
    }
    Ok(())
}

/// A process that is complete but for its exec: who it is, and what is executed.
pub struct PreparedCommand {
    identity: identity::Identity,
    env: Vec<String>,
    image: exec::Image,
}

impl PreparedCommand {
    /// Looks the user up in the container.
    ///
    /// # Errors
    /// The user or group does not exist; a text holds a NUL byte.
    pub fn of(tree: Tree, process: &Process, root: &RootDir) -> Result<PreparedCommand> {
        let identity = identity::resolve(process, root).during(Act::User)?;
        // In another root a command is told of its user no more than docker tells.
        let name = identity.name.as_deref().filter(|_| tree == Tree::Host);
        let env = exec::with_user(&process.env, identity.home.as_deref(), name);
        let image = exec::Image::new(&process.args, &env).during(Act::Exec)?;
        Ok(PreparedCommand { identity, env, image })
    }

    /// The last act, which does not come back: if it fails, the supervisor is told. With a program, our own, that one is
    /// executed, and the command will be its child.
    pub fn exec(self, process: &Process, fds: &Arranged) -> ! {
        if let Err(error) = limits::set_open_files(&process.resources) {
            report(&fds.channel, error.during(Act::Limits))
        }
        let error = match &fds.program {
            // What an init is sent before it waits for signals stays pending until it does.
            Some(program) => exec::exec_init(program, &fds.channel, &process.args, &self.env),
            None => match exec::reset_signals() {
                Ok(()) => self.image.exec(),
                Err(error) => error,
            },
        };
        report(&fds.channel, error.during(Act::Exec))
    }
}

/// Ends this process with the reason why the command was not executed.
pub fn report(channel: &Channel, error: Error) -> ! {
    let _ = channel.send(&FromChild::Failed(error), &[]);
    // Nothing of the supervisor's, whose copy this process may be, may run on the way out.
    exit_now(125)
}

/// Becomes the process's user, with its limits and rights, in its working directory. What comes after needs no right.
///
/// # Errors
/// The first act that failed.
pub fn assume(around: &Surroundings, process: &Process) -> Result<PreparedCommand> {
    let root = root::current()?;
    // Limits may be raised only with a right that is given up next.
    limits::set(&process.resources).during(Act::Limits)?;
    if around.tree == Tree::Image {
        // Once more, for one below a mount. Where it can't be made, to enter it says why.
        let _ = image_root::make_directory(&root, &process.workdir);
    }
    let command = PreparedCommand::of(around.tree, process, &root)?;
    if !around.filtered {
        // While the process has the right to: without no_new_privs a filter takes CAP_SYS_ADMIN. It forbids nothing that
        // the acts below need.
        seccomp::install().at("install the system call filter", "").during(Act::Rights)?;
    }
    if process.tty.is_some() {
        terminal::give_to(command.identity.uid).during(Act::Terminal)?;
    }
    identity::drop_bounding(around.most.capabilities, &process.rights).during(Act::Rights)?;
    identity::assume(&around.user_namespace, process, &command.identity).during(Act::User)?;
    // As the user: a directory that is closed to them is an error here, not a surprise in the command.
    exec::enter_workdir(&process.workdir, &root).during(Act::Workdir)?;
    identity::limit_rights(&process.rights, &around.most, &command.identity).during(Act::Rights)?;
    Ok(command)
}
