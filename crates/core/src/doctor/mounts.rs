//! The file systems a container is made of, each really mounted, detached, in a namespace that goes with the try.

use rustix::fs::{FileType, Mode, makedev, mknodat};
use rustix::mount::MountAttrFlags;
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities};

use super::{Examination, Finding, Verdict, probe};
use crate::plan::namespace::Kind;
use crate::plan::{self, Plan};
use crate::spec::{Caller, NetworkSpec, Spec};
use crate::steps::Writes;
use crate::steps::etc::Files;
use crate::steps::mount_api::{FsContext, RESTRICTED, tmpfs};
use crate::steps::root;
use crate::steps::scratch::Scratch;
use nsrs_base::error::{Act, At, During, Error, Result};
use nsrs_base::host::tree::HostTree;
use nsrs_base::options::ROOTFS;

/// One check: its name, the namespaces it needs beside the mount namespace, what is done, the remedy of its own.
type Check<'a> = (&'a str, Option<Kind>, fn(bool) -> Result<String>, fn(&Error) -> Option<&'static str>);

pub fn examine(examination: &Examination<'_>) -> Vec<Finding> {
    let in_user_namespace = !examination.host.privileged;
    let none: fn(&Error) -> Option<&'static str> = |_| None;
    let checks: [Check<'_>; 7] = [
        ("fresh /proc", Some(Kind::Pid), fresh_proc, masked_proc),
        ("fresh /sys", Some(Kind::Network), fresh_sys, masked_sys),
        ("tmpfs", None, memory, none),
        ("devpts", None, terminals, |error| missing(error, "use a kernel with CONFIG_UNIX98_PTYS")),
        ("mqueue", Some(Kind::Ipc), queues, |error| missing(error, "use a kernel with CONFIG_POSIX_MQUEUE")),
        ("overlay", None, overlay, overlay_missing),
        ("device nodes", None, nodes, no_right_to_nodes),
    ];
    // Device nodes are made by root only; in a user namespace they are bound.
    let wanted = checks.into_iter().filter(|(name, ..)| !in_user_namespace || *name != "device nodes");
    let examine = |(name, kind, body, own): Check<'_>| {
        let kinds: Vec<Kind> = std::iter::once(Kind::Mount).chain(kind).collect();
        let tried = probe::within(examination.host, &kinds, || body(in_user_namespace));
        Finding::of(name, tried, Verdict::Failure, |error| {
            own(error).map_or_else(|| examination.around.remedy(examination.host, error), ToOwned::to_owned)
        })
    };
    wanted.map(examine).chain([host_tree(examination)]).collect()
}

fn missing(error: &Error, fix: &'static str) -> Option<&'static str> {
    (error.errno == Some(libc::ENODEV)).then_some(fix)
}

fn fresh_proc(_: bool) -> Result<String> {
    FsContext::new("proc")?.mount(RESTRICTED).during(Act::Pseudo)?;
    Ok("mounted in a new pid namespace".into())
}

/// `mount_too_revealing` of the kernel: no fuller view than the one there is. It says so at the mount, not before.
fn too_revealing(error: &Error) -> bool {
    error.errno == Some(libc::EPERM) && error.id == Some(Act::Pseudo)
}

fn masked_proc(error: &Error) -> Option<&'static str> {
    too_revealing(error).then_some(
        "parts of /proc are masked by an outer container: start that with --security-opt systempaths=unconfined (docker) \
         or unmask=ALL (podman), or use --pid host",
    )
}

fn fresh_sys(_: bool) -> Result<String> {
    FsContext::new("sysfs")?.mount(RESTRICTED | MountAttrFlags::MOUNT_ATTR_RDONLY).during(Act::Pseudo)?;
    Ok("mounted in a new network namespace".into())
}

fn masked_sys(error: &Error) -> Option<&'static str> {
    too_revealing(error).then_some(
        "/sys isn't mounted here, or parts of it are masked by an outer container: start that with --security-opt \
         systempaths=unconfined (docker) or unmask=ALL (podman), or use --network host",
    )
}

fn memory(_: bool) -> Result<String> {
    tmpfs(0o755, None, MountAttrFlags::empty())?;
    Ok("mounted".into())
}

fn terminals(_: bool) -> Result<String> {
    FsContext::new("devpts")?
        .set("ptmxmode", "0666")?
        .mount(MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC)?;
    Ok("a new instance, mounted".into())
}

fn queues(_: bool) -> Result<String> {
    FsContext::new("mqueue")?.mount(RESTRICTED)?;
    Ok("mounted in a new ipc namespace".into())
}

/// By the very code that puts the host's tree together, over a directory that every host has.
fn overlay(in_user_namespace: bool) -> Result<String> {
    Scratch::new(in_user_namespace, None)?.overlay("/usr", "/usr", MountAttrFlags::empty())?;
    Ok("/usr, copy-on-write in memory".into())
}

/// The root that containers have by default: planned, put together and entered as for a container.
fn host_tree(examination: &Examination<'_>) -> Finding {
    let caller = Caller { cwd: "/".into(), ..Caller::default() };
    let network = NetworkSpec { kind: Some("none".into()), ..NetworkSpec::default() };
    let spec = Spec { args: vec!["true".into()], caller, network, ..Spec::default() };
    let planned = HostTree::read().and_then(|tree| {
        let (plan, problems) = plan::resolve(&spec, examination.host, &tree, None);
        problems.finish(plan).map_err(|mut errors| errors.swap_remove(0))
    });
    let tried = planned.and_then(|plan| {
        probe::within(examination.host, &[Kind::Mount], || {
            let Plan { sandbox, process } = &plan;
            let mut scratch = Scratch::for_sandbox(sandbox, None)?;
            let (files, notes) = (Files::default(), &mut Vec::new());
            root::enter(sandbox, &process.workdir, &files, scratch.as_mut(), None, notes, Writes::MountPoints)?;
            Ok("put together copy-on-write, and entered".into())
        })
    });
    Finding::of("the host's tree", tried, Verdict::Failure, |error| match error.hint.as_str() {
        _ if examination.around.is_false_root(examination.host) => examination.around.remedy(examination.host, error),
        "" => examination.around.remedy(examination.host, error),
        hint => format!("{hint}, or use {ROOTFS} with a directory"),
    })
}

fn overlay_missing(error: &Error) -> Option<&'static str> {
    match error.errno {
        Some(libc::ENODEV) => Some("as root: modprobe overlay"),
        _ => None,
    }
}

fn no_right_to_nodes(error: &Error) -> Option<&'static str> {
    let lacks = |sets: CapabilitySets| !sets.effective.contains(CapabilitySet::MKNOD);
    let refused = error.errno == Some(libc::EPERM) && capabilities(None).is_ok_and(lacks);
    refused.then_some("start the outer container with --cap-add MKNOD (docker, podman, nsrs)")
}

fn nodes(_: bool) -> Result<String> {
    let dev = tmpfs(0o755, None, MountAttrFlags::empty())?;
    mknodat(&dev, "null", FileType::CharacterDevice, Mode::from(0o666), makedev(1, 3)).at("make the device", "null")?;
    rustix::fs::openat(&dev, "null", rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC, Mode::empty())
        .at("open the device", "null")?;
    Ok("made and opened".into())
}
