//! Kernel parameters that belong to a namespace of the container's own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Problems;
use super::namespace::{Kind, Namespaces};
use nsrs_base::error::{Error, Result};
use nsrs_base::ids::maps::UserNamespace;
use nsrs_base::options::{DOMAINNAME, HOSTNAME, SYSCTLS};

/// A parameter and its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sysctl {
    /// Its path below /proc/sys, like `net/ipv4/ip_forward`.
    pub path: String,
    /// What is written there.
    pub value: String,
}

/// The parameters of the IPC namespace (ipc_namespaces(7)); `fs.mqueue.*` belongs to it too.
const IPC: [&str; 9] =
    ["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced", "auto_msgmni"];

/// Directories of /proc/sys (proc_sys(5)) whose parameters are the whole host's, but for those of the IPC and UTS namespaces.
const OF_THE_HOST: [&str; 9] = ["abi", "crypto", "debug", "dev", "fs", "kernel", "sunrpc", "user", "vm"];

/// The namespace a parameter belongs to; `None` is the whole host.
fn owner(path: &str) -> Option<Kind> {
    let mut parts = path.splitn(2, '/');
    match (parts.next()?, parts.next()?) {
        ("net", _) => Some(Kind::Network),
        ("fs", rest) if rest.starts_with("mqueue/") => Some(Kind::Ipc),
        ("kernel", name) if IPC.contains(&name) => Some(Kind::Ipc),
        ("kernel", "domainname" | "hostname") => Some(Kind::Uts),
        _ => None,
    }
}

fn check(name: &str, value: &str, namespaces: &Namespaces) -> Result<Sysctl> {
    let bad = |why: String| Error::invalid(SYSCTLS, format!("{name}={value}"), why);
    // Dots separate, as with sysctl(8); a name that holds a slash has slashes as separators and may keep its dots
    // (net/ipv4/conf/eth0.5/forwarding).
    let path = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    let odd = |part: &str| part.is_empty() || part == "." || part == "..";
    if path.split('/').any(odd) || path.contains('\0') || path.contains(char::is_whitespace) {
        return Err(bad("that is no name of a kernel parameter".into()));
    }
    if value.contains('\0') || value.contains('\n') {
        return Err(bad("a value is one line".into()));
    }
    let Some(kind) = owner(&path) else {
        let group = path.split('/').next().unwrap_or_default();
        if !OF_THE_HOST.contains(&group) {
            return Err(
                bad(format!("no kernel parameter begins with {group:?}")).hint("sysctl -a lists those there are")
            );
        }
        return Err(bad("this parameter belongs to the whole host".into())
            .hint("set it on the host with sysctl(8); a container can have net.*, fs.mqueue.*, kernel.msg*, kernel.sem, kernel.shm*"));
    };
    if !namespaces.makes(kind) {
        return Err(bad(format!("the container has no {} namespace of its own", kind.file()))
            .hint(format!("{} private, or none of this parameter", kind.option())));
    }
    if kind == Kind::Uts {
        return Err(
            bad("the host name has an option of its own".into()).hint(format!("use {HOSTNAME} or {DOMAINNAME}"))
        );
    }
    Ok(Sysctl { path, value: value.to_owned() })
}

/// What docker sets in a network namespace of a container's own, so that ports below 1024 and ping take no capability.
/// `groups` are the group ids of the container's user namespace that ping may have.
fn defaults(groups: (u32, u32)) -> [Sysctl; 2] {
    let sysctl = |path: &str, value: String| Sysctl { path: path.into(), value };
    [
        sysctl("net/ipv4/ip_unprivileged_port_start", "0".into()),
        sysctl("net/ipv4/ping_group_range", format!("{} {}", groups.0, groups.1)),
    ]
}

/// The defaults of a network namespace, then every wanted parameter, checked against the container's own namespaces.
pub fn resolve(
    wanted: &BTreeMap<String, String>,
    namespaces: &Namespaces,
    user: &UserNamespace,
    problems: &mut Problems,
) -> Vec<Sysctl> {
    // The kernel takes only group ids that are mapped.
    let groups = match user {
        UserNamespace::Private { gids, .. } => {
            gids.first().map(|map| (map.inside, (map.inside + (map.count - 1)).min(i32::MAX as u32)))
        }
        _ => Some((0, i32::MAX as u32)),
    };
    let own = groups
        .filter(|_| namespaces.makes(Kind::Network) && namespaces.makes(Kind::Mount) && !namespaces.joins(Kind::User));
    let mut all: Vec<Sysctl> = own.map(defaults).into_iter().flatten().collect();
    for (name, value) in wanted {
        if let Some(sysctl) = problems.take(check(name, value, namespaces)) {
            all.retain(|earlier| earlier.path != sysctl.path);
            all.push(sysctl);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(kinds: &[Kind]) -> Namespaces {
        Namespaces { private: kinds.to_vec(), ..Namespaces::default() }
    }

    #[test]
    fn parameters_of_own_namespaces_are_paths() {
        let sysctl = check("net.core.somaxconn", "128", &own(&[Kind::Network])).unwrap();
        assert_eq!(sysctl.path, "net/core/somaxconn");
        assert!(check("kernel.msgmax", "1", &own(&[Kind::Ipc])).is_ok());
        assert!(check("net/ipv4/conf/eth0.5/forwarding", "1", &own(&[Kind::Network])).is_ok());
    }

    #[test]
    fn a_parameter_of_the_host_is_refused() {
        for name in ["kernel.core_pattern", "vm.swappiness", "kernel.sysrq", "fs.file-max", "kernel"] {
            assert!(check(name, "1", &own(&Kind::ALL)).unwrap_err().to_string().contains("whole host"), "{name}");
        }
    }

    #[test]
    fn what_is_no_parameter_is_not_called_one_of_the_host() {
        let error = check("foo.bar", "1", &own(&Kind::ALL)).unwrap_err().to_string();
        assert!(error.contains("no kernel parameter begins with \"foo\""), "{error}");
    }

    #[test]
    fn a_parameter_of_a_shared_namespace_is_refused() {
        let error = check("net.ipv4.ip_forward", "1", &own(&[Kind::Ipc])).unwrap_err();
        assert!(error.to_string().contains("no net namespace of its own"), "{error}");
    }

    #[test]
    fn a_name_never_climbs() {
        for name in ["net/../kernel/core_pattern", "net//x", "../x", "net/", "", "net..x", "net/./x", "net x"] {
            assert!(check(name, "1", &own(&Kind::ALL)).is_err(), "{name}");
        }
        assert!(check("net.core.somaxconn", "1\n2", &own(&Kind::ALL)).is_err());
    }
}
