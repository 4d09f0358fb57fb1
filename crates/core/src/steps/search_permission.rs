//! The search permission of directories (path_resolution(7)): which one it is that a path can't be opened for. Of a whole path
//! the kernel says no more than `EACCES`.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;

use nsrs_base::error::{Code, Error};

/// An error about a path of the host, which names the directory that this process may not search, if that is the reason.
pub fn with_unsearchable(error: Error, path: &Path) -> Error {
    let Some(directory) = first_unsearchable(path).filter(|_| error.errno == Some(libc::EACCES)) else { return error };
    let directory = directory.display();
    let why = format!("no permission to enter {directory}");
    let reason = if error.reason.is_empty() { why } else { format!("{}, {why}", error.reason) };
    error
        .because(reason)
        .code(Code::InvalidArgument)
        .hint(format!("let this user enter it (chmod o+x {directory}), or choose what lies elsewhere"))
}

/// The first directory on the way to a path, itself included, that this process may not search.
fn first_unsearchable(path: &Path) -> Option<PathBuf> {
    let mut above: Vec<&Path> = path.ancestors().collect();
    above.reverse();
    let is_unsearchable = |path: &&Path| accessat(CWD, *path, Access::EXEC_OK, AtFlags::EACCESS) == Err(Errno::ACCESS);
    let found = above.into_iter().find(is_unsearchable)?;
    // Of a link it may be a directory on the way to where that leads. Links in a circle are another error.
    match std::fs::read_link(found) {
        Ok(link) => first_unsearchable(&found.parent()?.join(link)),
        Err(_) => Some(found.to_owned()),
    }
}
