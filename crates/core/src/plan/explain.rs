//! A plan for people: what `nsrs run --explain` prints, in the order in which it will happen.
//!
//! Everything is taken apart without a rest pattern: what joins the plan must be explained here too.

mod network;
mod sheet;
#[cfg(test)]
mod tests;

use std::fmt::{self, Formatter, Result};

use self::sheet::{Sheet, count, quoted, size};
use super::Plan;
use super::capability::Capabilities;
use super::changes::Changes;
use super::image::{ImageRoot, Upper};
use super::limits::Rlimit;
use super::mount::{Mount, MountSource, Propagation};
use super::namespace::{ClockOffsets, Kind, Namespaces};
use super::process::{Id, Process, Resources, Rights, User};
use super::pseudo::{Nodes, Proc, Pseudo, Sys};
use super::root::{HostRoot, Root};
use super::sandbox::Sandbox;
use super::sysctl::Sysctl;
use crate::spec::Form;
use crate::spec::TerminalSize;
use nsrs_base::host::tree::Attributes;
use nsrs_base::ids::maps::{IdMap, MapWriter, UserNamespace};

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Plan { sandbox, process } = self;
        let Sandbox {
            namespaces: kinds,
            user_namespace,
            root,
            pseudo,
            changes,
            mounts,
            network,
            names,
            hostname,
            domainname,
            sysctls,
            init,
        } = sandbox;
        let Process {
            args,
            env,
            workdir,
            user,
            groups,
            umask,
            tty,
            preserve_fds,
            own_pipes: _,
            timeout_ms,
            rights: own_rights,
            resources,
        } = process;
        let sheet = &mut Sheet::new(f);
        sheet.shell("command", args.iter().map(|arg| quoted(arg)))?;
        who(sheet, user, groups)?;
        sheet.list("workdir", [quoted(workdir)])?;
        sheet.gap()?;
        namespaces(sheet, kinds)?;
        ids(sheet, user_namespace)?;
        sheet.gap()?;
        tree(sheet, root, changes.is_some())?;
        changes.as_ref().map_or(Ok(()), |changes| kept_changes(sheet, changes))?;
        pseudo.as_ref().map_or(Ok(()), |pseudo| kernel_views(sheet, pseudo))?;
        network::name_files(sheet, names)?;
        mounts.iter().try_for_each(|mount| one_mount(sheet, mount))?;
        sheet.gap()?;
        host_names(sheet, kinds, hostname.as_deref(), domainname.as_deref())?;
        network.kind().explain(sheet)?;
        sysctls.iter().try_for_each(|sysctl| parameter(sheet, sysctl))?;
        pseudo.as_ref().map_or(Ok(()), |pseudo| masks(sheet, pseudo))?;
        sheet.gap()?;
        limits(sheet, resources)?;
        umask.map_or(Ok(()), |mask| sheet.prose("umask", &format!("{mask:04o}")))?;
        rights(sheet, own_rights)?;
        given(sheet, env, preserve_fds)?;
        if *init {
            sheet.prose("init", "a small init is the first process; it reaps orphans and forwards signals")?;
        }
        if let Some(TerminalSize { cols, rows }) = tty {
            sheet.prose("terminal", &format!("its own, {cols} columns, {rows} rows"))?;
        }
        timeout_ms.map_or(Ok(()), |limit| sheet.prose("timeout", &format!("killed after {limit} ms")))
    }
}

fn id(id: &Id) -> String {
    match id {
        Id::Number(number) => number.to_string(),
        Id::Name(name) => quoted(name).into_owned(),
    }
}

fn who(sheet: &mut Sheet<'_, '_>, user: &User, groups: &[Id]) -> Result {
    let mut text = match user {
        User::Caller => "the caller's ids".to_owned(),
        User::Given { user, group: Some(group) } => format!("{}, group {}", id(user), id(group)),
        User::Given { user, group: None } => format!("{}, with the groups of the container's /etc/passwd", id(user)),
    };
    if !groups.is_empty() {
        let groups: Vec<String> = groups.iter().map(id).collect();
        text += &format!("; also in {}", groups.join(", "));
    }
    sheet.prose("user", &text)
}

/// A kind in words, and what it means that the container shares it with the caller.
fn describe(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::User => ("user", "ids are the host's; what holds root back is its capabilities"),
        Kind::Mount => ("mount", "the command works on the host's files and mounts themselves"),
        Kind::Pid => ("pid", "the command sees the host's processes, and may signal those of its user"),
        Kind::Network => ("network", "the command has the host's interfaces, ports and services on its loopback"),
        Kind::Uts => ("uts", "the host name is the host's"),
        Kind::Ipc => ("ipc", "System V IPC and message queues are the host's"),
        Kind::Cgroup => ("cgroup", "the command sees the host's cgroup paths"),
        Kind::Time => ("time", "the clocks are the host's"),
    }
}

fn namespaces(sheet: &mut Sheet<'_, '_>, namespaces: &Namespaces) -> Result {
    let Namespaces { private, joined, clock } = namespaces;
    if !private.is_empty() {
        sheet.list("new", private.iter().map(|kind| describe(*kind).0))?;
    }
    for join in joined {
        sheet.list("joined", [format!("{}: {}", describe(join.kind).0, quoted(&join.path))])?;
    }
    for kind in Kind::ALL.into_iter().filter(|kind| !namespaces.makes(*kind) && !namespaces.joins(*kind)) {
        let (word, meaning) = describe(kind);
        sheet.prose("not isolated", &format!("{word}: {meaning}"))?;
    }
    if let Some(ClockOffsets { monotonic, boottime }) = clock {
        sheet.prose("clocks", &format!("monotonic {monotonic:+} s, boot time {boottime:+} s"))?;
    }
    Ok(())
}

fn map(map: &IdMap) -> String {
    let range = |first: u32| match map.count {
        1 => first.to_string(),
        count => format!("{first}-{}", first + (count - 1)),
    };
    format!("{} = host {}", range(map.inside), range(map.outside))
}

fn ids(sheet: &mut Sheet<'_, '_>, user: &UserNamespace) -> Result {
    let UserNamespace::Private { uids, gids, writer, deny_setgroups } = user else { return Ok(()) };
    sheet.list("user ids", uids.iter().map(map))?;
    sheet.list("group ids", gids.iter().map(map))?;
    let by = match writer {
        MapWriter::Process => "written by the new process itself",
        MapWriter::Supervisor => "written by the supervisor, with its CAP_SETUID and CAP_SETGID",
        MapWriter::Helpers => "written by newuidmap and newgidmap, from /etc/subuid and /etc/subgid",
    };
    let groups = if *deny_setgroups { "; setgroups is refused inside" } else { "" };
    sheet.prose("id maps", &format!("{by}{groups}"))
}

fn kept_changes(sheet: &mut Sheet<'_, '_>, Changes { list, upper }: &Changes) -> Result {
    let form = list.map(|form| match form {
        Form::Text => "listed at the end".to_owned(),
        Form::Json => "listed at the end, as JSON".to_owned(),
    });
    let place =
        upper.as_ref().map_or("in memory, and thrown away".to_owned(), |path| format!("kept in {}", quoted(path)));
    sheet.list("changes", form.into_iter().chain([place]))
}

fn tree(sheet: &mut Sheet<'_, '_>, root: &Root, copied: bool) -> Result {
    match root {
        Root::Shared => sheet.prose("root", "the tree of the mount namespace it is in, as it is"),
        Root::Directory { path, read_only: true } => sheet.list("root", [format!("{}, read-only", quoted(path))]),
        Root::Directory { path, read_only: false } if copied => {
            sheet.list("root", [format!("{}, copy-on-write", quoted(path))])
        }
        Root::Directory { path, read_only: false } => {
            sheet.list("root", [format!("{}, writable: changes stay there", quoted(path))])
        }
        Root::Host(tree) => host_tree(sheet, tree),
        Root::Image(image) => image_tree(sheet, image),
    }
}

fn image_tree(sheet: &mut Sheet<'_, '_>, image: &ImageRoot) -> Result {
    let ImageRoot {
        name,
        digest,
        id,
        platform,
        store,
        layers,
        user_xattrs,
        xattr_whiteouts,
        upper,
        read_only,
        volumes,
        stop_signal,
        ignored,
        labels,
    } = image;
    let changes = match (read_only, upper) {
        (true, _) => "read-only",
        (false, Upper::Disk) => "copy-on-write: changes lie in the store and go with the container",
        (false, Upper::Memory) => "copy-on-write: changes live in memory and die with the container",
    };
    sheet.list("root", [format!("the image {}, {changes}", quoted(name))])?;
    sheet.list("  manifest", [digest])?;
    sheet.list("  image id", [id])?;
    sheet.list("  platform", [quoted(platform)])?;
    sheet.list("  store", [quoted(store)])?;
    sheet.list("  layers", layers.iter().map(|layer| quoted(layer)))?;
    if *user_xattrs {
        sheet.prose("", "(overlaid with userxattr, as an ordinary user may)")?;
    }
    if *xattr_whiteouts {
        sheet.prose("", "(copied before Linux 6.7, which doesn't know its whiteouts)")?;
    }
    if !volumes.is_empty() {
        sheet.list("  volumes", volumes.iter().map(|path| quoted(path)))?;
        sheet.prose("", "(writable, and gone with the container)")?;
    }
    if let Some(signal) = stop_signal {
        sheet.list("  stop signal", [signal.to_string()])?;
    }
    if !ignored.is_empty() {
        sheet.list("  not followed", ignored.iter().map(|what| quoted(what)))?;
    }
    if !labels.is_empty() {
        sheet.list("  labels", labels.iter().map(|(name, value)| quoted(&format!("{name}={value}")).into_owned()))?;
        sheet.prose("", "(shown only: no label changes what is done)")?;
    }
    Ok(())
}

fn host_tree(sheet: &mut Sheet<'_, '_>, tree: &HostRoot) -> Result {
    let HostRoot { overlays, split, mount_points, files, fresh, hidden, hidden_by_caller, reveal, read_only } = tree;
    sheet.prose(
        "root",
        if *read_only {
            "the host's tree, read-only"
        } else {
            "the host's tree, copy-on-write: changes live in memory and die with the container"
        },
    )?;
    let overlaid = overlays.iter().map(|overlay| match flags(overlay.attributes).join(" ") {
        restrictions if restrictions.is_empty() => quoted(&overlay.path).into_owned(),
        restrictions => format!("{} ({restrictions})", quoted(&overlay.path)),
    });
    sheet.list("  overlaid", overlaid)?;
    if !split.is_empty() {
        sheet.list("  entry-wise", split.iter().map(|path| quoted(path)))?;
        let points = count(mount_points.len(), "mount point");
        sheet.prose("", &format!("(they hold some of the host's {points}; those not overlaid stay empty)"))?;
    }
    if !files.is_empty() {
        sheet.list("  files", files.iter().map(|path| format!("{} (read-only)", quoted(path))))?;
    }
    sheet.list("  fresh", fresh.iter().map(|path| quoted(path)))?;
    let secrets = count(hidden.len(), "place");
    sheet.prose(
        "  hidden",
        &format!("{secrets} of home directories that keep keys, tokens and histories, where they exist"),
    )?;
    if !hidden_by_caller.is_empty() {
        sheet.list("  hidden too", hidden_by_caller.iter().map(|path| quoted(path)))?;
    }
    match reveal {
        Some(path) => sheet.list("  revealed", [format!("{}, the caller's working directory", quoted(path))]),
        None => Ok(()),
    }
}

fn kernel_views(sheet: &mut Sheet<'_, '_>, pseudo: &Pseudo) -> Result {
    let Pseudo { proc, sys, nodes, shm_size, mqueue, tty_group, masked: _, read_only: _ } = pseudo;
    sheet.prose(
        "/proc",
        match proc {
            Proc::Fresh => "new",
            Proc::Host => "the host's: it shows the processes of the host",
        },
    )?;
    sheet.prose(
        "/sys",
        match sys {
            Sys::Fresh => "new, read-only",
            Sys::Absent => "none: the network namespace isn't the container's own",
        },
    )?;
    let how = match nodes {
        Nodes::Made => "made",
        Nodes::Bound => "bound from the host",
    };
    let group = tty_group.map_or(String::new(), |group| format!(" of group {group}"));
    let queues = if *mqueue { ", own mqueue" } else { "" };
    let nodes = format!("null, zero, full, random, urandom, tty ({how})");
    sheet.prose(
        "/dev",
        &format!("{nodes}, own pts{group}, shm of {}{queues}; nodes elsewhere open nothing", size(*shm_size)),
    )
}

/// Where masks lie; the paths themselves are in the plan's JSON.
fn masks(sheet: &mut Sheet<'_, '_>, pseudo: &Pseudo) -> Result {
    let hidden = count(pseudo.masked.len(), "path");
    let fixed = count(pseudo.read_only.len(), "path");
    sheet.prose("masked", &format!("{hidden} of /proc and /sys that tell of the host; {fixed} read-only"))
}

fn flags(attributes: Attributes) -> Vec<&'static str> {
    let Attributes { read_only, nosuid, nodev, noexec, nosymfollow } = attributes;
    let all = [
        (read_only, "read-only"),
        (nosuid, "nosuid"),
        (nodev, "nodev"),
        (noexec, "noexec"),
        (nosymfollow, "nosymfollow"),
    ];
    all.into_iter().filter(|(set, _)| *set).map(|(_, word)| word).collect()
}

fn one_mount(sheet: &mut Sheet<'_, '_>, mount: &Mount) -> Result {
    let Mount { target, source, attributes, propagation, option: _ } = mount;
    let what = match source {
        MountSource::Bind { path, recursive } => {
            let below = if *recursive { "" } else { " without the mounts below" };
            format!("{} of the host{below}", quoted(path))
        }
        MountSource::Tmpfs { size: limit, mode, uid, gid } => {
            let limit = limit.map_or("half of the host's memory".to_owned(), size);
            let owner = if (*uid, *gid) == (0, 0) { String::new() } else { format!(", owner {uid}:{gid}") };
            format!("tmpfs, at most {limit}, mode {mode:o}{owner}")
        }
        MountSource::Overlay { lower } => format!("{} of the host, copy-on-write in memory", quoted(lower)),
    };
    let spread = match propagation {
        Propagation::Private => None,
        Propagation::Slave => Some("slave"),
        Propagation::Shared => Some("shared"),
        Propagation::Unbindable => Some("unbindable"),
    };
    let options = flags(*attributes).into_iter().chain(spread).map(ToOwned::to_owned);
    sheet.list("mount", std::iter::once(format!("{}: {what}", quoted(target))).chain(options))
}

fn host_names(sheet: &mut Sheet<'_, '_>, kinds: &Namespaces, host: Option<&str>, domain: Option<&str>) -> Result {
    match host {
        Some(name) => sheet.list("hostname", [name])?,
        None if kinds.makes(Kind::Uts) => sheet.prose("hostname", "the host's, copied")?,
        None => {}
    }
    domain.map_or(Ok(()), |name| sheet.list("domainname", [name]))
}

fn parameter(sheet: &mut Sheet<'_, '_>, sysctl: &Sysctl) -> Result {
    let Sysctl { path, value } = sysctl;
    // sysctl(8) writes a dot of a name as a slash.
    let name: String = path
        .chars()
        .map(|c| {
            if c == '/' {
                '.'
            } else if c == '.' {
                '/'
            } else {
                c
            }
        })
        .collect();
    sheet.list("sysctl", [format!("{} = {}", quoted(&name), quoted(value))])
}

fn set(capabilities: Capabilities) -> Vec<String> {
    if capabilities == Capabilities::ALL {
        return vec!["ALL of them".into()];
    }
    let names: Vec<String> =
        capabilities.names().iter().map(|name| name.trim_start_matches("CAP_").to_owned()).collect();
    if names.is_empty() { vec!["none".into()] } else { names }
}

fn rights(sheet: &mut Sheet<'_, '_>, rights: &Rights) -> Result {
    let Rights { capabilities, ambient, no_new_privileges } = rights;
    // The filter of `sys::seccomp`, which every container gets.
    sheet.prose("system calls", "no AF_VSOCK or AF_ALG sockets, no typing into terminals (TIOCSTI, TIOCLINUX)")?;
    sheet.list("capabilities", set(*capabilities))?;
    // Who isn't root in the container keeps only what the caller added by name.
    sheet.list("  if not root", set(*ambient))?;
    let privileges = match no_new_privileges {
        true => "none: set-user-ID programs and file capabilities give nothing (no_new_privs)",
        false => "ALLOWED by set-user-ID programs and file capabilities (no_new_privs is off)",
    };
    sheet.prose("new rights", privileges)
}

fn limits(sheet: &mut Sheet<'_, '_>, resources: &Resources) -> Result {
    let Resources { rlimits, oom_score_adj } = resources;
    let value = |value: &Option<u64>| value.map_or("unlimited".to_owned(), |value| value.to_string());
    let limit = |Rlimit { name, soft, hard }: &Rlimit| match soft == hard {
        true => format!("{name} {}", value(soft)),
        false => format!("{name} {}:{}", value(soft), value(hard)),
    };
    if !rlimits.is_empty() {
        sheet.list("limits", rlimits.iter().map(limit))?;
    }
    oom_score_adj.map_or(Ok(()), |score| sheet.prose("oom score", &score.to_string()))
}

/// What the process is handed.
fn given(sheet: &mut Sheet<'_, '_>, env: &[String], preserve_fds: &[i32]) -> Result {
    // Names only: values are where secrets are.
    let names = env.iter().map(|pair| quoted(pair.split_once('=').map_or(pair.as_str(), |(name, _)| name)));
    sheet.list("environment", names)?;
    if preserve_fds.is_empty() {
        return Ok(());
    }
    sheet.list("descriptors", preserve_fds.iter().map(ToString::to_string))
}
