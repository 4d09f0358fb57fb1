//! What nsrs keeps on disk while it runs: a directory of its own, and a journal of what outlives a killed supervisor.

pub mod journal;

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::error::{At, Code, Error, Result};
use crate::host::Host;

/// Where the state directory is: `NSRS_STATE_DIR`, `/run/nsrs` for root, `$XDG_RUNTIME_DIR/nsrs`, or `/tmp/nsrs-UID`.
#[must_use]
pub fn directory(host: &Host) -> PathBuf {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(directory) = from("NSRS_STATE_DIR") {
        return directory;
    }
    match from("XDG_RUNTIME_DIR") {
        _ if host.uid == 0 => "/run/nsrs".into(),
        Some(runtime) if runtime.is_absolute() => runtime.join("nsrs"),
        _ => format!("/tmp/nsrs-{}", host.uid).into(),
    }
}

/// Makes the state directory, mode 0700, and makes sure that it is ours: in /tmp somebody else may have been faster.
///
/// # Errors
/// It can't be made, is a link, belongs to somebody else or is open to others.
pub fn open(host: &Host) -> Result<PathBuf> {
    let path = directory(host);
    make_private(&path, host.uid)?;
    Ok(path)
}

/// Makes a directory that only its owner can enter.
///
/// # Errors
/// It exists and is not such a directory, or can't be made.
pub fn make_private(path: &Path, uid: u32) -> Result<()> {
    let step = "open the state directory";
    match fs::DirBuilder::new().mode(0o700).recursive(false).create(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => {
            return Err(Error::os(step, path.display().to_string(), &error)
                .hint("set NSRS_STATE_DIR to a directory of your own, on a tmpfs if you can"));
        }
    }
    let meta = fs::symlink_metadata(path).at(step, path.display())?;
    let why = match (meta.is_dir(), meta.uid() == uid, meta.mode() & 0o077) {
        (false, ..) => "it is no directory",
        (_, false, _) => "it belongs to another user",
        (.., 0) => return Ok(()),
        _ => "it is open to other users",
    };
    Err(Error::new(Code::SetupFailed, step, why)
        .on(path.display().to_string())
        .hint("remove it, or set NSRS_STATE_DIR to a directory of your own with mode 0700"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_directory_that_is_not_ours_alone_is_refused() {
        let base = std::env::temp_dir().join(format!("nsrs-state-{}", std::process::id()));
        let _ = fs::remove_dir_all(&base);
        fs::create_dir(&base).unwrap();
        let uid = rustix::process::geteuid().as_raw();
        make_private(&base.join("mine"), uid).unwrap();
        make_private(&base.join("mine"), uid).unwrap();
        assert_eq!(fs::metadata(base.join("mine")).unwrap().permissions().mode() & 0o777, 0o700);
        fs::create_dir(base.join("open")).unwrap();
        fs::set_permissions(base.join("open"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink(base.join("mine"), base.join("link")).unwrap();
        fs::write(base.join("file"), "").unwrap();
        for (name, why) in [("open", "open to other users"), ("link", "no directory"), ("file", "no directory")] {
            let error = make_private(&base.join(name), uid).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
        }
        assert!(make_private(&base.join("mine"), uid + 1).unwrap_err().to_string().contains("another user"));
        fs::remove_dir_all(&base).unwrap();
    }
}
