//! Spec and facts in, plan or every problem out.

use super::namespace::{ClockOffsets, Kind, Namespaces, Use};
use super::sandbox::Sandbox;
use super::{Plan, Problems, changes, idmap, image, mount, namespace, network, process, pseudo, root, size, sysctl};
use crate::spec::Spec;
use nsrs_base::error::{Code, Error};
use nsrs_base::host::Host;
use nsrs_base::host::tree::HostTree;
use nsrs_base::ids::maps::UserNamespace;
use nsrs_base::options::{
    BOOTTIME, DOMAINNAME, ENTRYPOINT, HIDE, HOSTNAME, MONOTONIC, OptionName, PLATFORM, PUBLISH_ALL, ROOTFS,
    ROOTFS_TMPFS, SHM_SIZE, TIMENS, UTS, WORKDIR, each,
};
use nsrs_store::image_facts::ImageFacts;

/// Turns a request into a plan and tells every problem of the call, not only the first. Where there is a problem, the plan has
/// a stand-in: it is good for finding more, and for nothing else.
#[must_use]
pub fn resolve(spec: &Spec, host: &Host, tree: &HostTree, facts: Option<&ImageFacts>) -> (Plan, Problems) {
    let mut problems = Problems::default();
    let problems_ref = &mut problems;
    let facts = facts.filter(|_| spec.root.image().is_some());
    refuse_what_is_of_images(spec, problems_ref);
    let with_ports = facts.filter(|_| spec.image.publish_all).map(|facts| {
        let mut with_ports = spec.clone();
        with_ports.network.publish.extend(image::published(spec, facts, problems_ref));
        with_ports
    });
    let spec = with_ports.as_ref().unwrap_or(spec);

    let user_use = user_use(spec, host, problems_ref);
    let user_namespace = idmap::resolve(spec, &user_use, spec.is_on_host_tree(), host, problems_ref);
    let mut namespaces = namespaces(spec, user_use, problems_ref);
    let network = network::resolve(spec, host, &mut namespaces, problems_ref);
    namespaces.joined.sort_by_key(|join| join.kind);
    namespaces.private.sort();

    let root = root::resolve(spec, &namespaces, host, tree, facts, problems_ref);
    let host_tree = root.is_host_tree();
    let (hostname, domainname) = host_names(spec, &namespaces, host_tree, problems_ref);
    let own_mounts = namespaces.makes(Kind::Mount);
    let names = network::names(spec, network.kind(), host_tree, own_mounts, hostname.as_deref(), problems_ref);
    let shm_size = match &spec.root.shm_size {
        Some(text) => problems_ref
            .take(size::parse(text).map_err(|why| Error::invalid(SHM_SIZE, text, why)))
            .unwrap_or(pseudo::SHM_SIZE),
        None => pseudo::SHM_SIZE,
    };
    let tty_mapped = match &user_namespace {
        UserNamespace::Private { gids, .. } => gids.iter().any(|map| (map.inside..map.inside + map.count).contains(&5)),
        UserNamespace::Host => true,
        // Nobody knows its maps before it is joined; the kernel refuses a group that it lacks.
        UserNamespace::Joined => false,
    };
    let sandbox = Sandbox {
        pseudo: pseudo::resolve(&namespaces, user_namespace.is_private(), host, shm_size, tty_mapped),
        changes: changes::resolve(spec, &root, host, problems_ref),
        mounts: mounts(spec, host, problems_ref),
        sysctls: sysctl::resolve(&spec.namespaces.sysctls, &namespaces, &user_namespace, problems_ref),
        // Outside a PID namespace of its own somebody must end what the command leaves behind.
        init: spec.init || spec.only_waits() || !namespaces.makes(Kind::Pid),
        namespaces,
        user_namespace,
        root,
        network,
        names,
        hostname,
        domainname,
    };
    let (namespaces, hostname) = (&sandbox.namespaces, sandbox.hostname.as_deref());
    let config = facts.map(|facts| &facts.config);
    let process = process::resolve(spec, namespaces, host_tree, config, hostname, problems_ref);
    let plan = Plan { sandbox, process };
    refuse_without_directory(spec, host, &plan, &mut problems);
    (plan, problems)
}

/// What is relative to the caller's directory, where that was removed.
fn refuse_without_directory(spec: &Spec, host: &Host, plan: &Plan, problems: &mut Problems) {
    if !spec.caller.cwd.is_empty() {
        return;
    }
    let home = spec.caller.env.get("HOME").map(String::as_str).or(host.home.as_deref());
    let is_relative = |path: &str| !mount::absolute(path, "", home).starts_with('/');
    let why = "it is relative to the current directory, which was removed";
    let hint = "go to a directory that exists, or give an absolute path";
    if let root::Root::Directory { path, .. } = &plan.sandbox.root
        && is_relative(path)
    {
        problems.push(Error::invalid(ROOTFS, path, why).hint(hint));
    }
    for path in spec.root.hide.iter().filter(|path| is_relative(path)) {
        problems.push(Error::invalid(HIDE, path, why).hint(hint));
    }
    for mount in &plan.sandbox.mounts {
        let (mount::MountSource::Bind { path, .. } | mount::MountSource::Overlay { lower: path }) = &mount.source
        else {
            continue;
        };
        if is_relative(path) {
            problems.push(mount.option.invalid(format!("{path}: {why}")).hint(hint));
        }
    }
    if spec.process.workdir.is_none() && plan.process.workdir.is_empty() && plan.sandbox.root.is_host_tree() {
        problems.push(
            Error::new(Code::InvalidArgument, "enter the working directory", "the current directory was removed")
                .about(WORKDIR)
                .hint(format!("go to a directory that exists, or choose one with {WORKDIR}")),
        );
    }
}

/// Options that say something about an image, without one.
fn refuse_what_is_of_images(spec: &Spec, problems: &mut Problems) {
    if spec.root.image().is_some() {
        return;
    }
    let given = [
        (PLATFORM, spec.image.platform.is_some()),
        (ENTRYPOINT, spec.image.entrypoint.is_some()),
        (PUBLISH_ALL, spec.image.publish_all),
        (ROOTFS_TMPFS, spec.root.rootfs_tmpfs),
    ];
    for (option, _) in given.into_iter().filter(|(_, given)| *given) {
        problems.push(
            Error::new(
                Code::InvalidArgument,
                format!("use {option}"),
                "it is about an image, and none is the root here",
            )
            .about(option)
            .hint(each(
                "give rootfs: { image: NAME }",
                "nsrs run [options] IMAGE [COMMAND…], without -- before the image",
            )),
        );
    }
}

/// A new user namespace is automatic where nothing else would give the right to the other namespaces.
fn user_use(spec: &Spec, host: &Host, problems: &mut Problems) -> Use {
    match &spec.namespaces.user {
        Some(text) => problems.take(namespace::parse(Kind::User, text)).unwrap_or(Use::Host),
        None if !host.privileged || !spec.namespaces.uid_maps.is_empty() || !spec.namespaces.gid_maps.is_empty() => {
            Use::Private
        }
        None => Use::Host,
    }
}

fn namespaces(spec: &Spec, user: Use, problems: &mut Problems) -> Namespaces {
    let wanted = &spec.namespaces;
    let mut namespaces = Namespaces::default();
    namespaces.add(Kind::User, user);
    for (kind, text) in [
        (Kind::Mount, &wanted.mount),
        (Kind::Pid, &wanted.pid),
        (Kind::Uts, &wanted.uts),
        (Kind::Ipc, &wanted.ipc),
        (Kind::Cgroup, &wanted.cgroup),
    ] {
        let how = text.as_deref().map_or(Ok(Use::Private), |text| namespace::parse(kind, text));
        namespaces.add(kind, problems.take(how).unwrap_or(Use::Private));
    }
    time(spec, &mut namespaces, problems);
    namespaces
}

fn time(spec: &Spec, namespaces: &mut Namespaces, problems: &mut Problems) {
    let offsets = spec.namespaces.monotonic_offset.is_some() || spec.namespaces.boottime_offset.is_some();
    let how = match &spec.namespaces.time {
        Some(text) => problems.take(namespace::parse(Kind::Time, text)).unwrap_or(Use::Host),
        None if offsets => Use::Private,
        None => Use::Host,
    };
    if offsets && how != Use::Private {
        problems.push(
            Error::conflict(
                if spec.namespaces.monotonic_offset.is_some() { MONOTONIC } else { BOOTTIME },
                "only a new time namespace takes offsets",
            )
            .on(format!("with {TIMENS}"))
            .hint(format!("use {TIMENS} private, or leave the offsets out")),
        );
    }
    if offsets {
        namespaces.clock = Some(ClockOffsets {
            monotonic: spec.namespaces.monotonic_offset.unwrap_or(0),
            boottime: spec.namespaces.boottime_offset.unwrap_or(0),
        });
    }
    namespaces.add(Kind::Time, how);
}

/// The kernel's limit for host and domain name (`__NEW_UTS_LEN`, uname(2)).
const LONGEST_NAME: usize = 64;

fn check_host_name(option: OptionName, name: &str) -> Result<(), Error> {
    let bad = |why: &str| Err(Error::invalid(option, name, why));
    if name.is_empty() || name.len() > LONGEST_NAME {
        return bad("a name has 1 to 64 bytes");
    }
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if !name.bytes().all(good) || name.starts_with(['-', '.']) || name.contains("..") {
        return bad("a name has letters, digits, hyphens and dots");
    }
    Ok(())
}

fn host_names(
    spec: &Spec,
    namespaces: &Namespaces,
    host_tree: bool,
    problems: &mut Problems,
) -> (Option<String>, Option<String>) {
    for (option, name) in [(HOSTNAME, &spec.namespaces.hostname), (DOMAINNAME, &spec.namespaces.domainname)] {
        let Some(name) = name else { continue };
        problems.take(check_host_name(option, name));
        if !namespaces.makes(Kind::Uts) {
            problems.push(
                Error::invalid(option, name, "the container has no host name of its own")
                    .hint(format!("leave {UTS} private")),
            );
        }
    }
    // A program on the host's tree finds the host's name; a root of its own gets a name of its own.
    let default = (namespaces.makes(Kind::Uts) && !host_tree).then(|| "nsrs".to_owned());
    (spec.namespaces.hostname.clone().or(default), spec.namespaces.domainname.clone())
}

fn mounts(spec: &Spec, host: &Host, problems: &mut Problems) -> Vec<mount::Mount> {
    let cwd = spec.caller.cwd.as_str();
    let home = spec.caller.env.get("HOME").map(String::as_str).or(host.home.as_deref());
    let volumes = spec.root.volumes.iter().map(|text| mount::parse_volume(text, cwd, home));
    let mounts = spec.root.mounts.iter().map(|text| mount::parse_mount(text, cwd, home));
    let tmpfs = spec.root.tmpfs.iter().map(|text| mount::parse_tmpfs(text));
    let mut all = problems.all(volumes.chain(mounts).chain(tmpfs));
    // Parents first, or a mount would cover one made before it.
    all.sort_by_key(|mount| mount.target.split('/').filter(|part| !part.is_empty()).count());
    for (index, second) in all.iter().enumerate() {
        let path = |mount: &mount::Mount| mount.target.trim_end_matches('/').to_owned();
        if all[..index].iter().any(|first| path(first) == path(second)) {
            problems.push(
                Error::new(Code::InvalidArgument, "mount twice", "two mounts have the same target")
                    .on(format!("{:?}", second.target)),
            );
        }
    }
    all
}
