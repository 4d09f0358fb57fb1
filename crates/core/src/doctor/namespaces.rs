//! Namespaces, each kind really made.

use super::{Examination, Finding, Verdict, probe};
use crate::plan::namespace::Kind;
use nsrs_base::host::Host;

/// User namespaces, and for callers without rights the ids they can have there.
pub fn user(examination: &Examination<'_>) -> Vec<Finding> {
    let mut findings = vec![user_namespace(examination)];
    if !examination.host.privileged {
        findings.push(id_ranges(examination.host));
    }
    findings
}

fn user_namespace(examination: &Examination<'_>) -> Finding {
    let (name, host) = ("user namespace", examination.host);
    // Root makes containers without.
    let verdict = if host.privileged { Verdict::Warning } else { Verdict::Failure };
    if let Err(error) = host.user_namespaces_available() {
        return Finding::bad(name, verdict, error.reason, error.hint);
    }
    let tried = probe::within(host, &[Kind::User], || Ok("made, and the own id mapped".into()));
    Finding::of(name, tried, verdict, |error| examination.around.remedy(host, error))
}

/// Every other kind. A time namespace is made only where clocks are to be set.
pub fn others(examination: &Examination<'_>) -> Vec<Finding> {
    let one = |kind: Kind, word: &str| {
        let verdict = if kind == Kind::Time { Verdict::Warning } else { Verdict::Failure };
        let tried = probe::within(examination.host, &[kind], || Ok("made".into()));
        Finding::of(&format!("{word} namespace"), tried, verdict, |error| match error.errno {
            Some(libc::EINVAL) => format!("use a kernel that has {word} namespaces"),
            _ => examination.around.remedy(examination.host, error),
        })
    };
    let words = [
        (Kind::Mount, "mount"),
        (Kind::Pid, "pid"),
        (Kind::Network, "network"),
        (Kind::Uts, "uts"),
        (Kind::Ipc, "ipc"),
        (Kind::Cgroup, "cgroup"),
        (Kind::Time, "time"),
    ];
    words.into_iter().map(|(kind, word)| one(kind, word)).collect()
}

/// More than one id in a container takes ranges and the programs that may map them.
fn id_ranges(host: &Host) -> Finding {
    let name = "id ranges";
    let warning = |detail: &str, fix: &str| Finding::bad(name, Verdict::Warning, detail, fix);
    let count = |ranges: &[(u32, u32)]| ranges.iter().map(|(_, count)| u64::from(*count)).sum::<u64>();
    match (host.subuids.is_empty() || host.subgids.is_empty(), host.id_helpers) {
        (true, _) => warning(
            "no range in /etc/subuid and /etc/subgid: a container has one id only",
            &format!(
                "as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 \"$(id -nu {})\" (a range that \
                 nobody else has), and apt-get install uidmap",
                host.uid
            ),
        ),
        (false, false) => warning(
            "newuidmap and newgidmap are not in PATH: a container has one id only",
            "as root: apt-get install uidmap (Debian, Ubuntu), dnf install shadow-utils (Fedora)",
        ),
        (false, true) => {
            let (uids, gids) = (count(&host.subuids), count(&host.subgids));
            Finding::ok(name, format!("{uids} user ids and {gids} group ids beside the own"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_without_helpers_are_a_warning() {
        let ranged = Host { subuids: vec![(100_000, 10)], subgids: vec![(100_000, 20)], ..Host::ordinary(1000) };
        assert!(id_ranges(&Host::ordinary(1000)).fix.contains("$(id -nu 1000)"));
        assert!(id_ranges(&ranged).fix.contains("install uidmap"));
        let finding = id_ranges(&Host { id_helpers: true, ..ranged });
        assert_eq!(finding, Finding::ok("id ranges", "10 user ids and 20 group ids beside the own"));
    }
}
