//! The executables that travel with the addon: what stands in their place is looked at before it is started.

use std::fs::File;

use nix::errno::Errno;
use nsrs_base::error::{Act, Code, Error, Result};
use nsrs_base::sys::note;
use nsrs_base::version::VERSION;
use rustix::fs::{Mode, OFlags, open};

const REINSTALL: &str =
    "reinstall nsrs: its package for this platform brings the executable; from a checkout run npm run build";

/// Makes sure that a file is an executable of this build: another program would end, or go on, without a word of ours.
///
/// # Errors
/// It is another program, or of another version.
pub fn check(step: &str, path: &str) -> Result<()> {
    // Why it can't be opened, to execute it will tell.
    // Nor does a pipe that nobody writes to keep us waiting.
    let Ok(file) = open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()) else {
        return Ok(());
    };
    let file = File::from(file);
    let is_regular = file.metadata().is_ok_and(|data| data.is_file());
    let why = match note::version_of(&file).filter(|_| is_regular) {
        Some(version) if version == VERSION => return Ok(()),
        Some(version) => format!("it is of version {version}, this addon of {VERSION}"),
        None if !is_regular => "it is no regular file".into(),
        None => format!("it is not an executable of nsrs {VERSION}"),
    };
    Err(Error::new(Code::SupervisorLost, step, why).on(path).during(Act::Supervisor).hint(REINSTALL))
}

/// An executable that the kernel won't start.
pub fn not_started(step: &str, path: &str, errno: Errno) -> Error {
    let error = Error::os(step, path, errno).code(Code::SupervisorLost).during(Act::Supervisor);
    if matches!(errno, Errno::ENOENT | Errno::EACCES | Errno::ENOEXEC) { error.hint(REINSTALL) } else { error }
}
