//! What is taken from the host's tree before it is left: copies of the mounts that go into the container, by descriptor.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::mount_api::{FsContext, RESTRICTED, clone_tree, make_read_only};
use super::scratch::Scratch;
use super::search_permission::with_unsearchable;
use crate::plan::mount::{Mount, MountSource};
use crate::plan::pseudo::{Nodes, Proc, Pseudo, Sys};
use crate::plan::sandbox::Sandbox;
use nsrs_base::error::{Act, Code, During, Error, Result};
use nsrs_base::options::PID;

/// Names of the device nodes every container has, with their numbers (`mem(4)`, `tty(4)`).
pub const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Detached copies of mounts of the host.
#[derive(Default)]
pub struct Sources {
    /// For each mount of the plan: the copied tree of a bind mount, the lower directory of an overlay.
    pub mounts: Vec<Option<OwnedFd>>,
    /// The host's device nodes, in the order of [`NODES`], where they are bound.
    pub nodes: Vec<OwnedFd>,
    /// The container's /proc, where it has one; taken when it is mounted.
    pub proc: Option<OwnedFd>,
    /// The container's /sys, where it has one.
    pub sys: Option<OwnedFd>,
}

fn host(step: &str, path: &str, result: rustix::io::Result<OwnedFd>) -> Result<OwnedFd> {
    result.map_err(|errno| Error::os(step, path, errno))
}

fn open_source(mount: &Mount) -> Result<Option<OwnedFd>> {
    let missing = |path: &str, errno: Errno| {
        let error = Error::os("open the mount source", path, errno)
            .because(format!("wanted by {}", mount.option))
            .about(mount.option.name);
        match errno {
            Errno::NOENT => {
                error.code(Code::InvalidArgument).hint("make it first: nsrs makes no directories on the host")
            }
            _ => Path::new(path).parent().map_or(error.clone(), |above| with_unsearchable(error, above)),
        }
    };
    match &mount.source {
        MountSource::Tmpfs { .. } => Ok(None),
        MountSource::Bind { path, recursive } => {
            let tree = clone_tree(CWD, path, *recursive).map_err(|errno| {
                let error = missing(path, errno);
                if errno == Errno::INVAL && !recursive {
                    error.hint("it holds mounts that are locked together: bind it recursively")
                } else {
                    error
                }
            });
            tree.map(Some)
        }
        MountSource::Overlay { lower } => {
            match open(lower.as_str(), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
                // The overlay itself is made once the mounts are private.
                Ok(_) => Ok(None),
                Err(errno) => Err(missing(lower, errno)),
            }
        }
    }
}

impl Sources {
    /// Makes the overlays among the caller's mounts.
    ///
    /// # Errors
    /// A directory can't be the lower layer of an overlay.
    pub fn overlay(&mut self, sandbox: &Sandbox, scratch: Option<&mut Scratch>) -> Result<()> {
        let Some(scratch) = scratch else { return Ok(()) };
        for (mount, source) in sandbox.mounts.iter().zip(&mut self.mounts) {
            if let MountSource::Overlay { lower } = &mount.source {
                *source = Some(scratch.overlay(&mount.target, lower, MountAttrFlags::empty())?);
            }
        }
        Ok(())
    }
}

/// Copies everything the plan takes from the host. Done before the mounts are made private, so that a bind mount that
/// asks for `rslave` or `rshared` still hears of the host's mounts.
///
/// # Errors
/// A source is missing or may not be used.
pub fn collect(sandbox: &Sandbox) -> Result<Sources> {
    let mounts = sandbox.mounts.iter().map(open_source).collect::<Result<_>>().during(Act::Mounts)?;
    let mut sources = Sources { mounts, ..Sources::default() };
    if let Some(pseudo) = &sandbox.pseudo {
        sources.collect_pseudo(pseudo).during(Act::Pseudo)?;
    }
    Ok(sources)
}

impl Sources {
    /// Has /proc and /sys made, and copies the device nodes.
    fn collect_pseudo(&mut self, pseudo: &Pseudo) -> Result<()> {
        // Made before the host's tree is left: in a user namespace the kernel gives a new procfs or sysfs only to those who
        // see a full one already.
        self.proc = Some(match pseudo.proc {
            Proc::Fresh => fresh_proc()?,
            Proc::Host => host("open the host's", "/proc", clone_tree(CWD, "/proc", true))?,
        });
        if pseudo.sys == Sys::Fresh {
            self.sys = Some(FsContext::new("sysfs")?.mount(RESTRICTED | MountAttrFlags::MOUNT_ATTR_RDONLY)?);
        }
        if pseudo.nodes == Nodes::Bound {
            for (name, major, minor) in NODES {
                let path = format!("/dev/{name}");
                let node = host("open the host's", &path, clone_tree(CWD, &path, false))?;
                let stat = rustix::fs::fstat(&node).map_err(|errno| Error::os("look at the host's", &path, errno))?;
                if stat.st_rdev != rustix::fs::makedev(major, minor) {
                    return Err(
                        Error::new(Code::SetupFailed, "use the host's", "it is not the device it should be").on(path)
                    );
                }
                // A device is written to all the same; its inode, which is the host's, can't be changed.
                make_read_only(&node, false, &path)?;
                self.nodes.push(node);
            }
        }
        Ok(())
    }
}

/// A procfs of the process's own PID namespace, mounted nowhere.
///
/// # Errors
/// The kernel gives none to us.
pub fn fresh_proc() -> Result<OwnedFd> {
    FsContext::new("proc")?.mount(RESTRICTED).map_err(|error| match error.errno {
        Some(libc::EPERM) => error.code(Code::Unsupported).hint(format!(
            "parts of /proc are masked where nsrs runs (an outer container), and the kernel gives no fuller view; start the \
             outer container with its masks off (docker: --security-opt systempaths=unconfined), or use {PID} host",
        )),
        _ => error,
    })
}
