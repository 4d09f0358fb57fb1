//! Why a change is not applied.

use rustix::io::Errno;

use crate::diff::depth::TOO_DEEP;
use nsrs_base::error::{Code, Error};
use nsrs_base::options::FORCE;

pub(super) const STEP: &str = "apply the change";

/// The error of a system call, as it is meant for a change.
pub(super) fn failed(subject: &str, errno: Errno) -> Error {
    explain(Error::os(STEP, subject, errno), errno)
}

pub(super) fn explain(error: Error, errno: Errno) -> Error {
    match errno {
        Errno::NOENT => error.because("the directory it was in is gone").hint(format!("{FORCE} creates it again")),
        Errno::LOOP | Errno::NOTDIR => error.because("the real tree has a link or a file where a directory was"),
        Errno::XDEV => error.because("another file system is mounted there in the real tree"),
        Errno::MFILE | Errno::NAMETOOLONG => error.because(TOO_DEEP).hint("remove or copy it by hand"),
        Errno::EXIST => error.because("it was created since the command ran").hint(format!("{FORCE} overwrites it")),
        Errno::STALE => error.because("the kept changes are being modified"),
        Errno::PERM => error.hint("setting its owner or its attributes needs root"),
        _ => error,
    }
}

pub(super) fn replaced(subject: String) -> Error {
    Error::new(Code::InUse, STEP, "the directory itself, or the one it is in, was replaced")
        .on(subject)
        .hint(format!("look at it; {FORCE} uses the directory that is there now"))
}

pub(super) fn conflict(subject: String) -> Error {
    Error::new(Code::InUse, STEP, "it has changed since the command ran")
        .on(subject)
        .hint(format!("{FORCE} overwrites it"))
}
