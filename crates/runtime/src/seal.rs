//! Going over to a sealed copy of ourselves.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;

use nix::fcntl::AtFlags;
use nix::unistd::execveat;
use nsrs_base::error::{At, Code, Error, Result};
use nsrs_base::sys::sealed;

/// The sealed executable that is running. If it isn't sealed yet, it is copied, and the copy executed with the same
/// arguments in this process's place.
///
/// # Errors
/// The kernel gives no executable memory.
pub fn program() -> Result<OwnedFd> {
    let step = "seal the executable";
    if let Some(program) =
        sealed::running().at(step, "/proc/self/exe").map_err(|error| error.hint("nsrs needs /proc mounted"))?
    {
        return Ok(program);
    }
    let copy = sealed::copy().at(step, "").map_err(|error| match error.errno {
        Some(libc::EACCES) => error
            .code(Code::Unsupported)
            .hint("vm.memfd_noexec forbids programs in memory: sysctl -w vm.memfd_noexec=0"),
        _ => error,
    })?;
    let strings = |texts: Vec<std::ffi::OsString>| {
        texts.into_iter().filter_map(|text| CString::new(text.into_vec()).ok()).collect::<Vec<_>>()
    };
    let args = strings(std::env::args_os().collect());
    let env = strings(
        std::env::vars_os()
            .map(|(mut name, value)| {
                name.push("=");
                name.push(value);
                name
            })
            .collect(),
    );
    let Err(errno) = execveat(&copy, c"", &args, &env, AtFlags::AT_EMPTY_PATH);
    Err(Error::os(step, "", errno).hint("vm.memfd_noexec, or a policy of this host, forbids programs in memory"))
}
