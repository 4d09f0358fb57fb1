//! What the tests of all crates share: a test that can't run here says so, and is counted; a test that copies its
//! process has one of its own.

pub mod alone;

use std::io::Write as _;

/// Reasons for which a test may be left out in CI, one a line; ava's tests read the same file.
const ALLOWED: &str = include_str!("../../../test/allowed-skips.txt");

/// How the line of a skipped test begins.
const SKIPPED: &str = "skipped";

/// Leaves the test: reports the reason, and returns the default value of what the function returns, so that a helper
/// can give up as well (`()`, `false`, `None`).
///
/// The reason is a fixed text ("needs root"). Print what varies before, with `println!`.
///
/// # Panics
/// In CI (`CI=true`), where the reason isn't a line of test/allowed-skips.txt: a test that silently stopped running would
/// never be missed.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)+) => {{
        $crate::report_skip(&::std::format!($($reason)+));
        return ::std::default::Default::default();
    }};
}

/// Reports that this test was left: one line, which scripts/test.mjs counts. [`skip!`] calls it.
pub fn report_skip(reason: &str) {
    report(SKIPPED, reason);
}

/// Reports that a part of this test was left out; the rest of it runs, so it isn't counted. In CI the reason must be
/// allowed, as with [`skip!`].
pub fn leave_out(reason: &str) {
    report("left out in part", reason);
}

/// Writes past libtest, which captures what the print macros write, and only that.
fn report(what: &str, reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    assert!(
        is_expected(reason, std::env::var("CI").ok().as_deref()),
        "{what}, not in test/allowed-skips.txt: {reason}"
    );
    let _ = std::io::stderr().write_all(format!("{what}: {test}: {reason}\n").as_bytes());
}

fn is_expected(reason: &str, ci: Option<&str>) -> bool {
    let mut allowed = ALLOWED.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    ci != Some("true") || allowed.any(|line| line == reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ci_takes_the_reasons_of_the_list_and_no_others() {
        assert!(is_expected("needs root", Some("true")));
        for reason in ["needs", "needs root ", "", "# Reasons for which a test may be skipped in CI, a line each."] {
            assert!(!is_expected(reason, Some("true")), "{reason}");
            assert!(is_expected(reason, Some("")) && is_expected(reason, None), "{reason}");
        }
    }

    fn helper() -> Option<u32> {
        skip!("a reason that no list has");
    }

    #[test]
    #[ignore = "the child process of the next test"]
    fn gives_up() {
        let Some(_) = helper() else { return };
        panic!("the helper returned something");
    }

    #[test]
    fn the_line_passes_by_the_capture_and_in_ci_the_test_fails() {
        let run = |ci: &str| {
            let mut child = std::process::Command::new(std::env::current_exe().unwrap());
            // With a single thread libtest runs the test in the main one, which has no test's name.
            child.args(["--ignored", "--exact", "tests::gives_up", "--test-threads=2"]).env("CI", ci);
            let output = child.output().unwrap();
            (output.status.success(), String::from_utf8(output.stderr).unwrap())
        };
        assert_eq!(run(""), (true, "skipped: tests::gives_up: a reason that no list has\n".into()));
        let (passed, _) = run("true");
        assert!(!passed);
    }
}
