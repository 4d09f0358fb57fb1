//! As whom the command runs: ids, capabilities, no way to more rights.

use std::fmt::Display;
use std::io::{BufRead, BufReader};

use nix::sys::prctl;
use rustix::fs::OFlags;
use rustix::process::{Gid, Uid, getgid, getuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use super::root_dir::RootDir;
use crate::plan::capability::{Capabilities, NAMES};
use crate::plan::process::{Id, Process, Rights, User};
use nsrs_base::error::{At, Code, Error, Result};
use nsrs_base::ids::maps::UserNamespace;
use nsrs_base::options::{CAP_ADD, CAP_DROP, GID_MAPS, GROUPS, OptionName, UID_MAPS, USER};

/// Who the command will be.
#[derive(Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user id, as the container sees it.
    pub uid: u32,
    gid: u32,
    /// Supplementary groups; `None` keeps the caller's.
    groups: Option<Vec<u32>>,
    /// The home directory, for `HOME`.
    pub home: Option<String>,
    /// The name, for `USER` and `LOGNAME`.
    pub name: Option<String>,
}

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";
/// The container's files in which users and groups are looked up.
pub const FILES: [&str; 2] = [PASSWD, GROUP];

/// A line longer than this is nobody's entry; files of an image may be anything.
const LONGEST_LINE: u64 = 64 * 1024;
/// Neither is what stands behind this many bytes: a sparse file costs whoever made it nothing, and its reader hours.
const LONGEST_FILE: u64 = 64 << 20;
/// A group file has no more members of a user than the kernel takes groups (`NGROUPS_MAX`).
const MOST_GROUPS: usize = 65_536;

/// Reads a colon-separated file of the container line by line, in bounded memory, until `found` has what it wants.
fn scan(root: &RootDir, path: &str, mut found: impl FnMut(&[&str]) -> bool) -> Result<()> {
    let step = "read the container's";
    let file = match root.open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY) {
        Ok(file) => std::fs::File::from(file),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(()),
        Err(errno) => return Err(Error::os(step, path, errno)),
    };
    let metadata = file.metadata().at(step, path)?;
    if !metadata.is_file() {
        return Err(Error::new(Code::SetupFailed, step, "not a regular file").on(path));
    }
    let mut reader = BufReader::with_capacity(16 * 1024, std::io::Read::take(file, LONGEST_FILE));
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = std::io::Read::take(&mut reader, LONGEST_LINE);
        if limited.read_until(b'\n', &mut line).at(step, path)? == 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') && line.len() as u64 == LONGEST_LINE {
            skip_line(&mut reader).at(step, path)?;
            continue;
        }
        let text = String::from_utf8_lossy(&line);
        let fields: Vec<&str> = text.trim_end_matches('\n').split(':').collect();
        if found(&fields) {
            return Ok(());
        }
    }
}

fn skip_line(reader: &mut impl BufRead) -> std::io::Result<()> {
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(buffer.len(), |end| end + 1);
        reader.consume(used);
        if end.is_some() {
            return Ok(());
        }
    }
}

/// An id as the container's files spell it: digits only, and no more than an id can be.
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().filter(|number| *number < u32::MAX)
}

fn unknown(option: OptionName, what: &str, name: impl Display, file: &str) -> Error {
    Error::new(Code::InvalidArgument, format!("find the {what}"), format!("{file} of the container has no such entry"))
        .on(format!("{:?}", name.to_string()))
        .about(option)
        .hint(format!("{option} takes a number too"))
}

/// The user's entry has no group that is a number. To go on as the group of root would give away rights.
fn no_group(user: &Id) -> Error {
    Error::new(
        Code::InvalidArgument,
        "find the group of the user",
        format!("its entry in {PASSWD} of the container has no valid group id"),
    )
    .on(match user {
        Id::Number(number) => number.to_string(),
        Id::Name(name) => format!("{name:?}"),
    })
    .about(USER)
    .hint(format!("mend the entry, or give {USER} a group too: USER:GROUP"))
}

fn group_id(root: &RootDir, option: OptionName, group: &Id) -> Result<u32> {
    let name = match group {
        Id::Number(number) => return Ok(*number),
        Id::Name(name) => name,
    };
    let mut id = None;
    scan(root, GROUP, |fields| {
        if fields.len() >= 3 && fields[0] == name {
            id = number(fields[2]);
        }
        id.is_some()
    })?;
    id.ok_or_else(|| unknown(option, "group", name, GROUP))
}

/// Resolves the user in the container's own files. Numbers never fail: a container needs no /etc/passwd.
///
/// # Errors
/// A name has no entry, or a file is not one.
pub fn resolve(process: &Process, root: &RootDir) -> Result<Identity> {
    let extra = process.groups.iter().map(|group| group_id(root, GROUPS, group)).collect::<Result<Vec<_>>>()?;
    let User::Given { user, group } = &process.user else {
        let groups = if extra.is_empty() { None } else { Some(current_groups(&extra)?) };
        return Ok(Identity { uid: getuid().as_raw(), gid: getgid().as_raw(), groups, home: None, name: None });
    };
    let (mut entry, mut name) = (None, None);
    scan(root, PASSWD, |fields| {
        if fields.len() < 6 {
            return false;
        }
        let Some(uid) = number(fields[2]) else { return false };
        let hit = match user {
            Id::Number(number) => uid == *number,
            Id::Name(wanted) => fields[0] == wanted,
        };
        if hit {
            name = Some(fields[0].to_owned());
            entry = Some((uid, number(fields[3]), fields[5].to_owned()));
        }
        hit
    })?;
    let (uid, own_group, home) = match (entry, user) {
        (Some((uid, gid, home)), _) => (uid, gid, Some(home).filter(|home| home.starts_with('/'))),
        (None, Id::Number(number)) => (*number, Some(0), None),
        (None, Id::Name(name)) => return Err(unknown(USER, "user", name, PASSWD)),
    };
    let gid = match (group, own_group) {
        (Some(group), _) => group_id(root, USER, group)?,
        (None, Some(gid)) => gid,
        (None, None) => return Err(no_group(user)),
    };
    // A group given with the user stands for itself; else the user is in the groups that name them.
    let mut groups = if group.is_none() { member_of(root, name.as_deref())? } else { Vec::new() };
    groups.extend(extra);
    groups.push(gid);
    groups.sort_unstable();
    groups.dedup();
    Ok(Identity { uid, gid, groups: Some(groups), home, name })
}

fn current_groups(extra: &[u32]) -> Result<Vec<u32>> {
    let own = nix::unistd::getgroups().at("read the supplementary groups", "")?;
    Ok(own.iter().map(|gid| gid.as_raw()).chain(extra.iter().copied()).collect())
}

fn member_of(root: &RootDir, name: Option<&str>) -> Result<Vec<u32>> {
    let mut groups = Vec::new();
    if let Some(name) = name {
        scan(root, GROUP, |fields| {
            if fields.len() >= 4 && fields[3].split(',').any(|member| member == name) {
                groups.extend(number(fields[2]));
            }
            groups.len() >= MOST_GROUPS
        })?;
    }
    Ok(groups)
}

fn unmapped(what: &str, id: u32, errno: impl Into<nsrs_base::error::Errno>) -> Error {
    let error = Error::os(format!("become the {what}"), id.to_string(), errno);
    match error.errno {
        Some(libc::EINVAL | libc::EPERM) => error
            .code(Code::InvalidArgument)
            .because("this id is not mapped in the container's user namespace")
            .hint(format!("map it with {UID_MAPS} and {GID_MAPS} (needs a range in /etc/subuid and /etc/subgid), or run as root inside")),
        _ => error,
    }
}

/// Becomes the user and gives up every other right, for good.
///
/// # Errors
/// An id isn't mapped in the container's user namespace.
pub fn assume(user_namespace: &UserNamespace, process: &Process, identity: &Identity) -> Result<()> {
    own_pipes(process, identity);
    let deny_groups = match user_namespace {
        UserNamespace::Private { deny_setgroups, .. } => *deny_setgroups,
        // Its maps are not ours to know, but the kernel says what they allow (user_namespaces(7)).
        UserNamespace::Joined if identity.groups.is_some() => set_thread_groups(&[]) == Err(rustix::io::Errno::PERM),
        _ => false,
    };
    match &identity.groups {
        // Where the kernel forbids setgroups the caller's groups stay; they are nobody's inside, and can't be given up.
        Some(groups) if !deny_groups => {
            let groups: Vec<Gid> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
            set_thread_groups(&groups).map_err(|errno| unmapped("groups", identity.gid, errno))?;
        }
        Some(groups) if groups.iter().any(|gid| *gid != identity.gid) && !process.groups.is_empty() => {
            return Err(Error::new(
                Code::Unsupported,
                "add supplementary groups",
                "a user namespace of one id allows none",
            )
            .on(format!("{GROUPS}"))
            .hint("give the user a range in /etc/subuid and /etc/subgid, and install newuidmap (Debian: uidmap)"));
        }
        _ => {}
    }
    // Kept over the change of user only to be cut down to the wanted set right below.
    set_keep_capabilities(true).at("keep capabilities", "")?;
    let (gid, uid) = (Gid::from_raw(identity.gid), Uid::from_raw(identity.uid));
    set_thread_res_gid(gid, gid, gid).map_err(|errno| unmapped("group", identity.gid, errno))?;
    set_thread_res_uid(uid, uid, uid).map_err(|errno| unmapped("user", identity.uid, errno))?;
    set_keep_capabilities(false).at("drop capabilities", "")
}

/// Gives the pipes that were made for the process to its user, so that it can open /dev/stdout. What the caller passes on, a
/// pipe too, stays whose it is.
fn own_pipes(process: &Process, identity: &Identity) {
    for (number, fd) in (0..).zip(nsrs_base::sys::fds::stdio()) {
        if process.own_pipes.contains(&number) && identity.uid != getuid().as_raw() {
            // A courtesy: the command can write through the descriptor in any case.
            let _ = rustix::fs::fchown(fd, Some(rustix::fs::Uid::from_raw(identity.uid)), None);
        }
    }
}

/// Takes what the command may never have out of the bounding set, in which there are `from` until now; what this process
/// has itself it keeps meanwhile.
///
/// # Errors
/// `EPERM`: not privileged to.
pub fn drop_bounding(from: Capabilities, rights: &Rights) -> Result<()> {
    for (number, name) in NAMES.iter().enumerate() {
        if !from.has(number as u32) || rights.capabilities.has(number as u32) {
            continue;
        }
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
            // An older kernel knows fewer capabilities.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(errno) => return Err(Error::os("drop the capability", *name, errno)),
        }
    }
    Ok(())
}

/// Sets all five capability sets and `no_new_privs`, the last rights the process has: those that it is to have, and no more
/// than `most`, which are those of the container's first process.
///
/// # Errors
/// `EPERM`: a wanted capability is not among those the caller, or the container, has.
pub fn limit_rights(rights: &Rights, most: &Rights, identity: &Identity) -> Result<()> {
    let permitted = capabilities(None).at("read the capabilities", "")?.permitted;
    let have = permitted & CapabilitySet::from_bits_retain(most.capabilities.0);
    let as_root = identity.uid == 0;
    let wanted = if as_root { rights.capabilities.0 } else { rights.ambient.0 };
    let wanted = CapabilitySet::from_bits_retain(wanted);
    if let Some(number) = (0..NAMES.len()).find(|number| wanted.bits() & !have.bits() & 1 << number != 0)
        && rights.ambient.has(number as u32)
    {
        let step = "give the capability";
        if !most.capabilities.has(number as u32) {
            return Err(Error::new(Code::InvalidArgument, step, "the container doesn't have it").on(NAMES[number]));
        }
        return Err(Error::new(Code::Unsupported, step, "the caller doesn't have it")
            .on(NAMES[number])
            .hint(format!("leave it out of {CAP_ADD}; beside {CAP_ADD} ALL say {CAP_DROP} {}", NAMES[number])));
    }
    let granted = wanted & have;
    let inheritable = if as_root { CapabilitySet::empty() } else { granted };
    set_capabilities(None, CapabilitySets { effective: granted, permitted: granted, inheritable })
        .at("set the capabilities", "")?;
    clear_ambient_capability_set().at("clear the ambient capabilities", "")?;
    for number in (0..NAMES.len()).filter(|number| inheritable.bits() & 1 << number != 0) {
        configure_capability_in_ambient_set(CapabilitySet::from_bits_retain(1 << number), true)
            .at("give the capability", NAMES[number])?;
    }
    if rights.no_new_privileges || most.no_new_privileges {
        prctl::set_no_new_privs().at("forbid new privileges", "")?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
