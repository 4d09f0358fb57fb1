//! What the host offers: who we are on it, and which of its doors are open.
//!
//! The facts here are cheap to read and are read once by a supervisor.

pub mod boot;
pub mod mountinfo;
pub mod tree;

use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Code, Errno, Error, Result};
use crate::ids::subordinate::{passwd_entry, subordinate_ranges};

/// The facts a plan rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Host {
    /// Effective user id of the caller.
    pub uid: u32,
    /// Effective group id of the caller.
    pub gid: u32,
    /// Effective user id as the user namespace around this one has it; the same where there is none, or where it has none.
    pub outer_uid: u32,
    /// The caller's home directory, from /etc/passwd.
    pub home: Option<String>,
    /// `CAP_SYS_ADMIN`, `CAP_SETUID` and `CAP_SETGID` are effective in the initial user namespace: containers need no user
    /// namespace.
    pub privileged: bool,
    /// `CAP_NET_ADMIN` is effective: interfaces of the host can be made.
    pub net_admin: bool,
    /// `CAP_MKNOD` is effective: device nodes can be made.
    pub mknod: bool,
    /// Ranges of /etc/subuid for this user: first id, count.
    pub subuids: Vec<(u32, u32)>,
    /// Ranges of /etc/subgid for this user: first id, count.
    pub subgids: Vec<(u32, u32)>,
    /// newuidmap and newgidmap are in `PATH`.
    pub id_helpers: bool,
    /// Limit of user namespaces (`user.max_user_namespaces`); 0 switches them off.
    pub max_user_namespaces: u64,
    /// Debian's sysctl `kernel.unprivileged_userns_clone` allows user namespaces, or is not there.
    pub unprivileged_user_namespaces: bool,
    /// Ubuntu's sysctl `kernel.apparmor_restrict_unprivileged_userns` is set.
    pub apparmor_restricts_user_namespaces: bool,
    /// Where pasta is, for a network without rights, or why it can't work here.
    pub pasta: std::result::Result<String, PastaMissing>,
    /// A default route leads out of here: without one there is nothing that pasta could connect to. The one fact that may
    /// well change while a process lives.
    pub leads_outside: bool,
}

fn read_trimmed(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// Effective capabilities of this process (proc_pid_status(5)).
fn effective_capabilities() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    field.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}

/// Rights in a user namespace that somebody else made (an outer container, `unshare -r`) make no devices and mount no
/// overlay as the host's own do: there nsrs works as for an ordinary user.
fn in_initial_user_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// An id of a user namespace with this map (user_namespaces(7)) as the one around it has it.
fn outside(map: &str, id: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut numbers = line.split_whitespace().map(|number| number.parse::<u32>().ok());
        let (inside, outside, count) = (numbers.next()??, numbers.next()??, numbers.next()??);
        id.checked_sub(inside).filter(|offset| *offset < count).and_then(|offset| outside.checked_add(offset))
    })
}

/// Finds an executable file in `PATH`.
#[must_use]
pub fn find_program(name: &str, path: &str) -> Option<PathBuf> {
    path.split(':')
        .filter(|directory| directory.starts_with('/'))
        .map(|directory| Path::new(directory).join(name))
        .find(|candidate| candidate.is_file() && rustix::fs::access(candidate, rustix::fs::Access::EXEC_OK).is_ok())
}

/// Why pasta can't be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PastaMissing {
    /// It was not looked for: root has the bridge.
    NotNeeded,
    /// It is in no directory of `PATH`.
    NotInstalled,
    /// /dev/net/tun doesn't let this user in; the error number.
    NoTun(i32),
}

impl fmt::Display for PastaMissing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PastaMissing::NotNeeded => f.write_str("it is for callers without rights"),
            PastaMissing::NotInstalled => f.write_str("it is in no directory of PATH"),
            PastaMissing::NoTun(errno) => write!(f, "/dev/net/tun: {}", Errno(*errno)),
        }
    }
}

/// Where pasta is, or why it can't work: it opens a tun device as this user.
fn usable_pasta(path: &str) -> std::result::Result<String, PastaMissing> {
    let program = find_program("pasta", path).ok_or(PastaMissing::NotInstalled)?;
    let tun = rustix::fs::access("/dev/net/tun", rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK);
    tun.map_err(|errno| PastaMissing::NoTun(errno.raw_os_error()))?;
    Ok(program.to_string_lossy().into_owned())
}

impl Host {
    /// Reads the facts of this host and process.
    #[must_use]
    pub fn probe() -> Host {
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        let caps = effective_capabilities();
        let has = |number: u32| caps & 1 << number != 0;
        let (setgid, setuid, net_admin, sys_admin, mknod) = (has(6), has(7), has(12), has(21), has(27));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = String::from_utf8_lossy(path.as_bytes());
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let entry = passwd_entry(&passwd, uid);
        let name = entry.as_ref().map(|(name, _)| name.as_str());
        let privileged = setgid && setuid && sys_admin && in_initial_user_namespace();
        let ranges = |file: &str| match privileged {
            true => Vec::new(),
            false => subordinate_ranges(&fs::read_to_string(file).unwrap_or_default(), name, uid),
        };
        let pasta = if privileged { Err(PastaMissing::NotNeeded) } else { usable_pasta(&path) };
        let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        Host {
            uid,
            gid,
            outer_uid: outside(&map, uid).unwrap_or(uid),
            subuids: ranges("/etc/subuid"),
            subgids: ranges("/etc/subgid"),
            home: entry.map(|(_, home)| home).filter(|home| home.starts_with('/')),
            privileged,
            net_admin,
            mknod,
            id_helpers: !privileged
                && find_program("newuidmap", &path).is_some()
                && find_program("newgidmap", &path).is_some(),
            max_user_namespaces: read_trimmed("/proc/sys/user/max_user_namespaces")
                .and_then(|text| text.parse().ok())
                .unwrap_or(0),
            unprivileged_user_namespaces: read_trimmed("/proc/sys/kernel/unprivileged_userns_clone").as_deref()
                != Some("0"),
            apparmor_restricts_user_namespaces: read_trimmed("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
                .as_deref()
                == Some("1"),
            leads_outside: pasta.is_ok(),
            pasta,
        }
    }

    /// Can this caller make a user namespace? AppArmor's switch is left to the kernel: a profile may allow us.
    ///
    /// # Errors
    /// They are switched off; the error names the switch and how to set it.
    pub fn user_namespaces_available(&self) -> Result<()> {
        let off = |switch: &str, remedy: &str| {
            Err(Error::new(
                Code::Unsupported,
                "make a user namespace",
                format!("user namespaces are switched off by {switch}"),
            )
            .hint(remedy))
        };
        if self.max_user_namespaces == 0 {
            return off("user.max_user_namespaces = 0", "as root: sysctl -w user.max_user_namespaces=15000");
        }
        if !self.unprivileged_user_namespaces && !self.privileged {
            return off(
                "kernel.unprivileged_userns_clone = 0",
                "as root: sysctl -w kernel.unprivileged_userns_clone=1",
            );
        }
        Ok(())
    }

    /// A host on which we are root; for tests of plans.
    #[must_use]
    pub fn root() -> Host {
        Host {
            uid: 0,
            gid: 0,
            privileged: true,
            net_admin: true,
            mknod: true,
            home: Some("/root".into()),
            ..Host::ordinary(0)
        }
    }

    /// A host on which we are an ordinary user without subordinate ids; for tests of plans.
    #[must_use]
    pub fn ordinary(uid: u32) -> Host {
        Host {
            uid,
            gid: uid,
            outer_uid: uid,
            home: Some("/home/ann".into()),
            privileged: false,
            net_admin: false,
            mknod: false,
            subuids: Vec::new(),
            subgids: Vec::new(),
            id_helpers: false,
            max_user_namespaces: 15_000,
            unprivileged_user_namespaces: true,
            apparmor_restricts_user_namespaces: false,
            pasta: Err(PastaMissing::NotInstalled),
            leads_outside: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_another_one_outside() {
        let map = "         0       1001          1\n         1     100000      65536\n";
        assert_eq!([0, 5, 70_000].map(|id| outside(map, id)), [Some(1001), Some(100_004), None]);
        assert_eq!(outside("0 0 4294967295", 7), Some(7));
    }

    #[test]
    fn this_host_has_an_identity() {
        assert_eq!(Host::probe().uid, rustix::process::geteuid().as_raw());
    }
}
