//! Which directory it is that a path can't be opened for: of a whole path the kernel says no more than `EACCES`.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;

use nsrs_base::error::{Code, Error};

/// An error about a path of the host, which names the directory that this process may not enter, if that is the reason.
pub fn explain(error: Error, path: &Path) -> Error {
    let Some(closed) = closed(path).filter(|_| error.errno == Some(libc::EACCES)) else { return error };
    let closed = closed.display();
    let why = format!("no permission to enter {closed}");
    let reason = if error.reason.is_empty() { why } else { format!("{}, {why}", error.reason) };
    error
        .because(reason)
        .code(Code::InvalidArgument)
        .hint(format!("let this user enter it (chmod o+x {closed}), or choose what lies elsewhere"))
}

/// The first directory on the way to a path, itself included, that this process may not enter.
fn closed(path: &Path) -> Option<PathBuf> {
    let mut above: Vec<&Path> = path.ancestors().collect();
    above.reverse();
    let is_closed = |path: &&Path| accessat(CWD, *path, Access::EXEC_OK, AtFlags::EACCESS) == Err(Errno::ACCESS);
    let found = above.into_iter().find(is_closed)?;
    // Of a link it may be a directory on the way to where that leads. Links in a circle are another error.
    match std::fs::read_link(found) {
        Ok(link) => closed(&found.parent()?.join(link)),
        Err(_) => Some(found.to_owned()),
    }
}
