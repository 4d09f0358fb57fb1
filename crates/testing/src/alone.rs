//! A test in a process of its own.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Set in the process that runs one test alone.
const ALONE: &str = "NSRS_TEST_ALONE";

/// Runs this test in a process of its own, in which nothing else happens: a copy (clone3) of a process with busy threads
/// may wait forever for a lock that one of them held. With a user id, that process is this user's, where we are root.
///
/// The first line of a test: what follows runs in that process only. Its state directory (`NSRS_STATE_DIR`) is new.
#[macro_export]
macro_rules! alone {
    ($($user:expr)?) => {
        if $crate::alone::ran([$($user)?].first().copied()) {
            return;
        }
    };
}

/// Whether the test has run in another process; `false` in that process. [`alone!`] calls it.
///
/// # Panics
/// The test failed there.
pub fn ran(user: Option<u32>) -> bool {
    if std::env::var_os(ALONE).is_some() {
        wait_for_main_thread();
        return false;
    }
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let state = std::env::temp_dir().join(format!("nsrs-alone-{}-{number}", std::process::id()));
    let thread = std::thread::current();
    let test = thread.name().expect("a test's thread has its name");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(ALONE, "1").env("NSRS_STATE_DIR", &state);
    if let Some(user) = user.filter(|_| rustix::process::geteuid().is_root()) {
        command.uid(user).gid(user).current_dir("/");
    }
    let output = command.output().unwrap();
    let _ = std::fs::remove_dir_all(&state);
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    println!("{stdout}{stderr}");
    assert!(output.status.success() && stdout.contains("1 passed"), "the test failed in a process of its own");
    for line in stderr.lines().filter(|line| line.starts_with(super::SKIPPED)) {
        let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
    }
    true
}

/// Besides the test's thread there is the main one, which sleeps until the test is over: it holds no lock then.
fn wait_for_main_thread() {
    let main = format!("/proc/self/task/{}/stat", std::process::id());
    assert_eq!(std::fs::read_dir("/proc/self/task").unwrap().count(), 2);
    while !std::fs::read_to_string(&main).unwrap().contains(") S ") {
        std::thread::yield_now();
    }
}
