//! What nsrs keeps on disk while it runs: a directory of its own, a journal of what outlives a killed supervisor, and the records
//! of containers that outlive the command that made them.

pub mod journal;
pub mod process;
pub mod record;
#[cfg(test)]
mod testing;

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nsrs_base::error::{At, Code, Error, Result};
use nsrs_base::host::Host;

/// Where the state directory is: `NSRS_STATE_DIR`, `/run/nsrs` for root where /run is root's, `$XDG_RUNTIME_DIR/nsrs` where
/// that is the user's own directory (after su(1) it may be somebody else's, or gone), or `/tmp/nsrs-UID`, in a user namespace
/// with another id `/tmp/nsrs-OUTER-UID`: every user can be root in one.
#[must_use]
pub fn directory(host: &Host) -> PathBuf {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(directory) = from("NSRS_STATE_DIR") {
        // Whoever outlives the command leaves the caller's directory.
        return std::path::absolute(&directory).unwrap_or(directory);
    }
    match from("XDG_RUNTIME_DIR") {
        // The root of a user namespace finds /run to be somebody else's.
        _ if host.uid == 0 && is_own(Path::new("/run"), 0) => "/run/nsrs".into(),
        Some(runtime) if is_own(&runtime, host.uid) => runtime.join("nsrs"),
        _ if host.outer_uid != host.uid => format!("/tmp/nsrs-{}-{}", host.outer_uid, host.uid).into(),
        _ => format!("/tmp/nsrs-{}", host.uid).into(),
    }
}

/// Is this a directory in which nobody but the user can make or rename anything?
fn is_own(path: &Path, uid: u32) -> bool {
    let own = |meta: fs::Metadata| meta.is_dir() && meta.uid() == uid && meta.mode() & 0o022 == 0;
    path.is_absolute() && fs::metadata(path).is_ok_and(own)
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
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => check_private(path, uid),
        Err(error) => Err(Error::os(step, path.display().to_string(), &error)
            .hint("set NSRS_STATE_DIR to a directory of your own, on a tmpfs if you can")),
    }
}

/// Makes sure that a directory is the user's own, and that nobody else can enter it.
fn check_private(path: &Path, uid: u32) -> Result<()> {
    let step = "open the state directory";
    let meta = fs::symlink_metadata(path).at(step, path.display())?;
    let why = match (meta.is_dir(), meta.uid() == uid, meta.mode() & 0o077) {
        (false, ..) => "not a directory",
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
    fn a_runtime_directory_is_the_users_own_or_none() {
        let base = std::env::temp_dir().join(format!("nsrs-runtime-dir-{}", std::process::id()));
        let _ = fs::remove_dir_all(&base);
        make_private(&base, rustix::process::geteuid().as_raw()).unwrap();
        let uid = rustix::process::geteuid().as_raw();
        assert!(is_own(&base, uid));
        assert!(!is_own(&base, uid + 1), "somebody else's");
        assert!(!is_own(&base.join("gone"), uid));
        assert!(!is_own(Path::new("."), uid), "relative");
        fs::set_permissions(&base, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(!is_own(&base, uid), "everybody's");
        fs::remove_dir_all(&base).unwrap();
    }

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
        for (name, why) in [("open", "open to other users"), ("link", "not a directory"), ("file", "not a directory")] {
            let error = make_private(&base.join(name), uid).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
        }
        assert!(make_private(&base.join("mine"), uid + 1).unwrap_err().to_string().contains("another user"));
        fs::remove_dir_all(&base).unwrap();
    }
}
