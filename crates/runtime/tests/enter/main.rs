//! Entering a container, from the supervisor's side of the channel, with the real executable. The containers are made by
//! unshare(1), so that nothing but the entering is ours.
//!
//! This program is the supervisor of all that it starts, and has one thread, as that has: no harness of tests.

mod entered;
mod hostile;
mod idle;
mod inside;
mod target;

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode};

/// A secret of the supervisor's, in its environment.
pub const SECRET_NAME: &str = "NSRS_TEST_SECRET";
/// Its value, which is in the supervisor's memory too. No container may ever see it.
pub const SECRET: &str = "sekret-of-the-supervisor-5b1f2c";

/// The title of a test, and what it does.
pub type Test = (&'static str, fn());

fn main() -> ExitCode {
    if std::env::var_os(SECRET_NAME).is_none() {
        let args = std::env::args_os().skip(1);
        let error = Command::new("/proc/self/exe").args(args).env(SECRET_NAME, SECRET).exec();
        eprintln!("enter: {error}");
        return ExitCode::FAILURE;
    }
    let filters: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let tests = [inside::TESTS, idle::TESTS, hostile::TESTS].concat();
    let chosen = tests.iter().filter(|(name, _)| filters.is_empty() || filters.iter().any(|text| name.contains(text)));
    let (mut passed, mut failed) = (0, 0);
    for (name, test) in chosen {
        print!("test {name} ... ");
        let _ = std::io::stdout().flush();
        if catch_unwind(AssertUnwindSafe(test)).is_ok() {
            println!("ok");
            passed += 1;
        } else {
            println!("FAILED");
            failed += 1;
        }
    }
    println!("\ntest result: {passed} passed; {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
