//! The foreground: an executable of nsrs takes the place of this very process.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use napi_derive::napi;
use nix::fcntl::AtFlags;
use nix::sys::signal::Signal;
use nsrs_base::error::{Act, At, Error};
use nsrs_base::options::FDS;
use nsrs_base::sys::fds::{keep_on_exec, leave};
use nsrs_base::sys::sealed;
use nsrs_base::sys::signal::{ignore, set_default};
use nsrs_base::version::VERSION;
use rustix::fs::{MemfdFlags, SeekFrom, memfd_create, seek};

use crate::events::ErrorRecord;
use crate::executable::{check, not_started};

/// Runs the container of a `Spec`, given as JSON, in the place of this process: standard streams, signals, terminal and exit
/// code are the container's own. Returns only the reason why it could not. `preserve_fds` are the further descriptors of the
/// spec, which keep their numbers; `ignored_signals` are those that the container ignores from the start, a bit each, the
/// lowest for signal 1. A list of changes is written to standard error at the end.
#[napi]
pub fn run_in_place(executable: String, spec: String, preserve_fds: Vec<i32>, ignored_signals: u32) -> ErrorRecord {
    for signal in Signal::iterator() {
        // Node ignores some for itself. Those whose action can't change never were.
        let is_ignored = ignored_signals & (1 << (signal as i32 - 1)) != 0;
        let _ = if is_ignored { ignore(signal) } else { set_default(signal) };
    }
    match replace(&executable, &spec, &preserve_fds) {
        Ok(never) => match never {},
        Err(error) => error.into(),
    }
}

/// Calls nsrs-image in the place of this process: its terminal, signals and exit code are the caller's. Returns only the
/// reason why it could not.
#[napi]
pub fn image_in_place(executable: String, args: Vec<String>) -> ErrorRecord {
    match replace_by_image(&executable, &args) {
        Ok(never) => match never {},
        Err(error) => error.into(),
    }
}

fn replace_by_image(executable: &str, args: &[String]) -> nsrs_base::error::Result<std::convert::Infallible> {
    let step = "start nsrs-image";
    check(step, executable)?;
    let words = [executable, VERSION].into_iter().chain(args.iter().map(String::as_str));
    let words: Vec<CString> = words.map(|word| c_string(word, step, word)).collect::<nsrs_base::error::Result<_>>()?;
    keep_stdio();
    let Err(errno) = nix::unistd::execve(&words[0], &words, &environment());
    Err(not_started(step, executable, errno))
}

/// Node marks its standard streams as closed on exec; those that it was started without are none of ours.
fn keep_stdio() {
    for stream in 0..=2 {
        let _ = keep_on_exec(stream);
    }
}

fn c_string(text: &str, step: &str, subject: &str) -> nsrs_base::error::Result<CString> {
    CString::new(text).at(step, subject)
}

fn environment() -> Vec<CString> {
    std::env::vars_os()
        .filter_map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok())
        .collect()
}

fn replace(executable: &str, spec: &str, preserve_fds: &[i32]) -> nsrs_base::error::Result<std::convert::Infallible> {
    let step = "start nsrs-runtime";
    // The request goes by descriptor: what stands in arguments or environment, every user of the host can read.
    let request = memfd_create("nsrs-request", MemfdFlags::CLOEXEC).at(step, "")?;
    std::io::Write::write_all(&mut std::fs::File::from(request.try_clone().at(step, "")?), spec.as_bytes())
        .at(step, "")?;
    seek(&request, SeekFrom::Start(0)).at(step, "")?;
    for fd in preserve_fds {
        keep_on_exec(*fd).map_err(|_| {
            Error::invalid(FDS, fd, "the caller has no such open file descriptor").during(Act::Descriptors)
        })?;
    }
    let number = leave(request).at(step, "")?;
    execute(executable, &["run", VERSION, &number.to_string()])
}

/// Shows kept changes, asks, and brings them into the real tree, in the place of this process. Returns only the reason why
/// it could not. Flags: `yes`, `dry-run`, `keep`, `json`, `discard`, `force`, `privileged-files`.
#[napi]
pub fn apply_in_place(executable: String, directory: String, flags: Vec<String>) -> ErrorRecord {
    let args: Vec<&str> = ["apply", VERSION, &directory].into_iter().chain(flags.iter().map(String::as_str)).collect();
    match execute(&executable, &args) {
        Ok(never) => match never {},
        Err(error) => error.into(),
    }
}

/// Executes the executable in the place of this process.
fn execute(executable: &str, args: &[&str]) -> nsrs_base::error::Result<std::convert::Infallible> {
    let step = "start nsrs-runtime";
    check(step, executable)?;
    keep_stdio();
    let program = c_string(executable, step, executable)?;
    let args: Vec<CString> =
        args.iter().map(|arg| c_string(arg, step, arg)).collect::<nsrs_base::error::Result<_>>()?;
    let env = environment();
    let args: Vec<&std::ffi::CStr> =
        std::iter::once(program.as_c_str()).chain(args.iter().map(CString::as_c_str)).collect();
    // Sealed here, it need not be executed a second time. Where that can't be, it finds that out itself and says why.
    if let Ok(sealed) = sealed::copy_of(Path::new(executable)) {
        let _ = nix::unistd::execveat(&sealed, c"", &args, &env, AtFlags::AT_EMPTY_PATH);
    }
    let Err(errno) = nix::unistd::execve(&program, &args, &env);
    Err(not_started(step, executable, errno))
}
