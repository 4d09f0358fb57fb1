//! The executables that travel with the addon: what stands in their place is looked at before it is started.

use std::fs::File;

use nix::errno::Errno;
use nsrs_core::error::{Code, Error, Result};
use nsrs_core::supervise::protocol::VERSION;
use nsrs_core::sys::note;

const REINSTALL: &str =
    "reinstall nsrs: its package for this platform brings the executable; from a checkout run npm run build";

/// Makes sure that a file is an executable of this build: another program would end, or go on, without a word of ours.
///
/// # Errors
/// It is another program, or of another version.
pub fn check(step: &str, path: &str) -> Result<()> {
    // Why it can't be opened, to execute it will tell.
    let Ok(file) = File::open(path) else { return Ok(()) };
    let why = match note::version_of(&file) {
        Some(version) if version == VERSION => return Ok(()),
        Some(version) => format!("it is of version {version}, this addon of {VERSION}"),
        None => format!("it is not an executable of nsrs {VERSION}"),
    };
    Err(Error::new(Code::SupervisorLost, step, why).on(path).hint(REINSTALL))
}

/// An executable that the kernel won't start.
pub fn not_started(step: &str, path: &str, errno: Errno) -> Error {
    let error = Error::os(step, path, errno).code(Code::SupervisorLost);
    if matches!(errno, Errno::ENOENT | Errno::EACCES | Errno::ENOEXEC) { error.hint(REINSTALL) } else { error }
}
