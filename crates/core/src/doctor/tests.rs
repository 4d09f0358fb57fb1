use std::os::unix::process::CommandExt as _;
use std::process::Command;

use super::*;

const ALONE: &str = "NSRS_TEST_ALONE";
/// An ordinary user that no machine gives to anybody.
const NOBODY: u32 = 65_533;

/// Runs the body of the test of this name in a process of its own, where nothing else happens meanwhile: a copy of a
/// process with busy threads may hang. With `ordinary` that process is an ordinary user's.
pub fn alone(test: &str, ordinary: bool, body: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some() {
        wait_for_main_thread();
        return body();
    }
    let state = std::env::temp_dir().join(format!("nsrs-doctor-{}-{ordinary}-{}", std::process::id(), test.len()));
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(program);
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(ALONE, "1").env("NSRS_STATE_DIR", &state);
    if ordinary && rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY).current_dir("/");
    }
    let output = command.output().unwrap();
    let _ = std::fs::remove_dir_all(&state);
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"));
}

/// Besides the test's thread there is the main one, which sleeps until the test is over: it holds no lock then.
fn wait_for_main_thread() {
    let main = format!("/proc/self/task/{}/stat", std::process::id());
    assert_eq!(std::fs::read_dir("/proc/self/task").unwrap().count(), 2);
    while !std::fs::read_to_string(&main).unwrap().contains(") S ") {
        std::thread::yield_now();
    }
}

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
    alone("doctor::tests::this_machine_runs_containers", false, || {
        let findings = examine(&Host::probe());
        assert!(failures(&findings).is_empty());
        complete(&findings);
    });
}

#[test]
fn this_machine_runs_containers_of_ordinary_users() {
    alone("doctor::tests::this_machine_runs_containers_of_ordinary_users", true, || {
        let findings = examine(&Host::probe());
        assert!(failures(&findings).is_empty());
        complete(&findings);
        assert!(findings.iter().any(|finding| finding.name == "user namespace"));
        assert!(!rustix::process::geteuid().is_root());
    });
}

#[test]
fn switched_off_user_namespaces_are_one_failure_with_its_remedy() {
    alone("doctor::tests::switched_off_user_namespaces_are_one_failure_with_its_remedy", false, || {
        let host = Host { privileged: false, net_admin: false, max_user_namespaces: 0, ..Host::probe() };
        let findings = examine(&host);
        let failures = failures(&findings);
        assert_eq!(failures.len(), 1, "{failures:?}");
        assert_eq!(failures[0].detail, "user namespaces are switched off by user.max_user_namespaces = 0");
        assert_eq!(failures[0].fix, "as root: sysctl -w user.max_user_namespaces=15000");
        complete(&findings);
    });
}
