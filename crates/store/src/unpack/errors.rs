//! The errors of unpacking an entry.

use rustix::io::Errno;

use crate::tar::TarEntry;
use nsrs_base::error::show;
use nsrs_base::error::{Code, Error};

/// The archive is malformed or hostile.
pub(super) fn invalid(why: impl Into<String>) -> Error {
    Error::new(Code::ImageInvalid, "unpack", why)
}

/// A system call failed for an entry.
pub(super) fn failed(step: &str, entry: &TarEntry, errno: Errno) -> Error {
    Error::os(step, show(&entry.path), errno)
}
