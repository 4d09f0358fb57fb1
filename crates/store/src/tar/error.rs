//! The errors of reading an archive.

use std::io;

use nsrs_base::error::{Code, Error};

/// The error of an archive that is malformed (`ImageInvalid`).
pub(super) fn malformed(why: impl Into<String>) -> Error {
    Error::new(Code::ImageInvalid, "read the archive", why)
}

/// The error record for a failed read: the one that was carried through [`io::Error::other`], or a new one.
#[must_use]
pub fn read_error(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => match error.kind() {
            io::ErrorKind::UnexpectedEof => malformed("truncated"),
            _ if error.raw_os_error().is_some() => Error::os("read the archive", "", &error),
            _ => malformed(error.to_string()),
        },
    }
}
