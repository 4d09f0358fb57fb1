use nsrs_testing::alone;

use super::*;

/// An ordinary user that no machine gives to anybody.
const NOBODY: u32 = 65_533;

fn failures(findings: &[Finding]) -> Vec<&Finding> {
    for Finding { name, verdict, detail, fix } in findings {
        println!("{verdict:?} {name}: {detail}{}{fix}", if fix.is_empty() { "" } else { "\n    fix: " });
    }
    findings.iter().filter(|finding| finding.verdict == Verdict::Failure).collect()
}

fn complete(findings: &[Finding]) {
    let lonely = findings.iter().find(|finding| finding.fix.is_empty() != (finding.verdict == Verdict::Ok));
    assert_eq!(lonely, None, "a fix goes with every finding that isn't ok, and with no other");
    let loud = findings.iter().find(|finding| finding.detail.ends_with('.') || finding.fix.ends_with('.'));
    assert_eq!(loud, None);
}

#[test]
fn this_machine_runs_containers() {
    alone!();
    let findings = examine(&Host::probe());
    assert!(failures(&findings).is_empty());
    complete(&findings);
}

#[test]
fn this_machine_runs_containers_of_ordinary_users() {
    alone!(NOBODY);
    let findings = examine(&Host::probe());
    assert!(failures(&findings).is_empty());
    complete(&findings);
    assert!(findings.iter().any(|finding| finding.name == "user namespace"));
    assert!(!rustix::process::geteuid().is_root());
}

#[test]
fn switched_off_user_namespaces_are_one_failure_with_its_remedy() {
    alone!();
    let host = Host { privileged: false, net_admin: false, max_user_namespaces: 0, ..Host::probe() };
    let findings = examine(&host);
    let failures = failures(&findings);
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert_eq!(failures[0].detail, "user namespaces are switched off by user.max_user_namespaces = 0");
    assert_eq!(failures[0].fix, "as root: sysctl -w user.max_user_namespaces=15000");
    complete(&findings);
}
