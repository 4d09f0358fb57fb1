//! What surrounds this process: an outer container, a seccomp filter, a security module's profile.

use std::fs;
use std::path::Path;

use super::{Finding, Host};
use nsrs_base::error::{Act, Error};
use nsrs_base::sys::seccomp;

/// Who else decides what this process may do.
pub struct Around {
    /// The outer container's kind, if there is one.
    container: Option<String>,
    /// A seccomp filter is on that is not ours.
    filtered: bool,
    /// This is a user namespace of somebody else's making.
    in_user_namespace: bool,
    /// The profile or context of a Linux security module, where it confines.
    profile: Option<String>,
}

impl Around {
    /// Looks at the files that tell.
    pub fn look() -> Around {
        let profile = fs::read_to_string("/proc/self/attr/current").unwrap_or_default();
        let profile = profile.trim_matches(['\0', '\n', ' ']).to_owned();
        Around {
            container: container(),
            in_user_namespace: in_user_namespace(&fs::read_to_string("/proc/self/uid_map").unwrap_or_default()),
            filtered: seccomp::is_under_another(),
            profile: Some(profile).filter(|profile| !profile.is_empty() && !profile.starts_with("unconfined")),
        }
    }

    /// What to do about a refusal, for a step that needs no more than what `host` says we have.
    pub fn remedy(&self, host: &Host, error: &Error) -> String {
        match error.errno {
            Some(libc::ENOSYS) if !self.filtered => "use linux 5.12 or newer".into(),
            Some(libc::ENOSPC) if error.id == Some(Act::Namespaces) => raise_limits(&error.subject),
            Some(libc::EUSERS) => "nest fewer user namespaces (32 is the kernel's limit)".into(),
            Some(libc::EAGAIN | libc::ENOMEM) => {
                "raise the limit of processes (ulimit -u, pids.max) or of memory".into()
            }
            Some(libc::EPERM | libc::EACCES) => self.permit(host),
            _ if self.is_false_root(host) => self.permit(host),
            _ if self.container.is_some() || self.filtered => self.permit(host),
            _ if error.hint.is_empty() => "look into the kernel's log (dmesg)".into(),
            _ => error.hint.clone(),
        }
    }

    /// What passes for root in an outer user namespace isn't: device nodes, and overlays above mounts, are refused for good.
    pub fn is_false_root(&self, host: &Host) -> bool {
        self.in_user_namespace && host.privileged
    }

    /// What lets a thing pass that the kernel itself would allow.
    fn permit(&self, host: &Host) -> String {
        if self.is_false_root(host) {
            return "start nsrs outside of the user namespace that it is in, where it needs no root".into();
        }
        if self.container.is_some() || self.filtered {
            let seen = [
                (self.filtered, "--security-opt seccomp=unconfined"),
                (self.profile.is_some(), "--security-opt apparmor=unconfined"),
                (!self.filtered && self.profile.is_none(), "--privileged"),
            ];
            let options: Vec<&str> = seen.into_iter().filter(|(seen, _)| *seen).map(|(_, option)| option).collect();
            return format!("start the outer container with {} (docker, podman)", options.join(" "));
        }
        if host.apparmor_restricts_user_namespaces && !host.privileged {
            return "as root: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile for \
                    nsrs-runtime that says 'userns,'"
                .into();
        }
        match (&self.profile, host.privileged) {
            (Some(profile), _) => format!("let the security module's profile {profile:?} pass"),
            (None, false) => "run nsrs as root".into(),
            (None, true) => "look into the kernel's log for who refused it (dmesg)".into(),
        }
    }

    /// What there is, as information; checks that fail for it are findings of their own.
    pub fn findings(self) -> Vec<Finding> {
        let Around { container, filtered, in_user_namespace, profile } = self;
        let container = match container {
            Some(kind) => format!("inside another container ({kind})"),
            None => "no outer container is seen".into(),
        };
        let filter = if filtered { "a seccomp filter is on" } else { "no seccomp filter is on" };
        let user = if in_user_namespace { "in a user namespace; " } else { "" };
        let profile = profile.map_or("no profile confines it".into(), |profile| format!("confined as {profile:?}"));
        vec![Finding::ok("surroundings", format!("{container}; {user}{filter}; {profile}"))]
    }
}

/// How to raise the limits of these namespaces (`mnt, net`), of those that are 0 where there are such (namespaces(7)).
fn raise_limits(kinds: &str) -> String {
    let zero = |kind: &&str| {
        let limit = fs::read_to_string(format!("/proc/sys/user/max_{kind}_namespaces"));
        limit.is_ok_and(|limit| limit.trim() == "0")
    };
    let all: Vec<&str> = kinds.split(", ").collect();
    let off: Vec<&str> = all.iter().copied().filter(zero).collect();
    let names = if off.is_empty() { all } else { off };
    let settings: Vec<String> = names.iter().map(|kind| format!("user.max_{kind}_namespaces=15000")).collect();
    format!("as root: sysctl -w {}", settings.join(" "))
}

/// All ids are the host's only in the first user namespace.
fn in_user_namespace(uid_map: &str) -> bool {
    !uid_map.split_whitespace().eq(["0", "0", "4294967295"]) && !uid_map.is_empty()
}

fn container() -> Option<String> {
    for (file, kind) in [("/.dockerenv", "docker"), ("/run/.containerenv", "podman")] {
        if Path::new(file).exists() {
            return Some(kind.into());
        }
    }
    // Written by systemd of what process 1 was started with (container interface of systemd).
    let named = fs::read_to_string("/run/systemd/container").or_else(|_| {
        let environment = fs::read_to_string("/proc/1/environ")?;
        Ok::<_, std::io::Error>(
            environment.split('\0').find_map(|pair| pair.strip_prefix("container=")).unwrap_or("").to_owned(),
        )
    });
    named.ok().map(|kind| kind.trim().to_owned()).filter(|kind| !kind.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around(container: Option<&str>) -> Around {
        Around { container: container.map(Into::into), filtered: false, in_user_namespace: false, profile: None }
    }

    #[test]
    fn the_first_user_namespace_maps_every_id_to_itself() {
        assert!(!in_user_namespace("         0          0 4294967295\n"));
        assert!(in_user_namespace("0 100000 65536\n"));
    }

    #[test]
    fn a_refusal_names_its_likely_cause() {
        let refused = Error::os("make the namespaces", "user", libc::EPERM);
        let ubuntu = Host { apparmor_restricts_user_namespaces: true, ..Host::ordinary(1000) };
        let filtered = Around { filtered: true, ..around(Some("docker")) };
        assert!(filtered.remedy(&ubuntu, &refused).contains("--security-opt seccomp=unconfined (docker"));
        assert!(around(Some("docker")).remedy(&ubuntu, &refused).contains("--privileged"));
        assert!(around(None).remedy(&ubuntu, &refused).contains("apparmor_restrict_unprivileged_userns=0"));
        assert_eq!(around(None).remedy(&Host::ordinary(1000), &refused), "run nsrs as root");
        let full = Error::os("make the namespaces", "mnt, net", libc::ENOSPC).during(Act::Namespaces);
        assert_eq!(
            around(None).remedy(&Host::root(), &full),
            "as root: sysctl -w user.max_mnt_namespaces=15000 user.max_net_namespaces=15000"
        );
    }
}
