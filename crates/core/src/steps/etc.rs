//! /etc/hosts, /etc/hostname and /etc/resolv.conf of the container, bound over those of its root.
//!
//! The files live in the container's own /dev file system, in the directory under its terminals. Not unlinked: on what was
//! unlinked nothing can be mounted, and the caller's volume may be, or a file of a container within. A mount goes onto the very
//! name in /etc: where a link stands there, onto the link, so that it leads nowhere.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Mode, OFlags, fstat, mkdirat, openat};
use rustix::io::Errno;

use super::mount_api::{attach, clone_tree};
use super::pseudo::Mounted;
use super::root_dir::RootDir;
use nsrs_base::error::{At, Code, Error, Result};

/// What the files say; a file that is `None` stays the root's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// The text of /etc/hosts (hosts(5)).
    pub hosts: Option<String>,
    /// The text of /etc/hostname (hostname(5)).
    pub hostname: Option<String>,
    /// The text of /etc/resolv.conf (resolv.conf(5)).
    pub resolv_conf: Option<String>,
}

impl Files {
    fn all(&self) -> impl Iterator<Item = (&'static str, &String)> {
        [("hosts", &self.hosts), ("hostname", &self.hostname), ("resolv.conf", &self.resolv_conf)]
            .into_iter()
            .filter_map(|(name, text)| Some((name, text.as_ref()?)))
    }
}

/// Whether the root can't be written to, or not by this user.
fn forbids_creation(errno: Errno) -> bool {
    matches!(errno, Errno::ROFS | Errno::ACCESS | Errno::PERM | Errno::OVERFLOW)
}

/// The directory /etc of the root, made if it's missing; `None` where it can't be.
fn etc_directory(root: &RootDir) -> Result<Option<OwnedFd>> {
    let open = || root.open("/etc", OFlags::PATH | OFlags::DIRECTORY);
    match open() {
        Err(Errno::NOENT) => {}
        other => return other.map(Some).at("open", "/etc"),
    }
    match mkdirat(root, "etc", Mode::from(0o755)) {
        Ok(()) => open().map(Some).at("open", "/etc"),
        Err(errno) if forbids_creation(errno) => Ok(None),
        // Another container of this root has made it meanwhile, or a link stands there that leads nowhere: nothing is made
        // through that.
        Err(Errno::EXIST) => match open() {
            Err(Errno::NOENT) => Ok(None),
            other => other.map(Some).at("open", "/etc"),
        },
        Err(errno) => Err(Error::os("make", "/etc", errno)),
    }
}

/// The name itself, whatever stands there; an empty file is made where nothing does. `None` where it can't be.
fn file_in_etc(etc: &OwnedFd, name: &str) -> Result<Option<OwnedFd>> {
    let open = || openat(etc, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
    match open() {
        Err(Errno::NOENT) => {}
        other => return other.map(Some).at("open", format!("/etc/{name}")),
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
    match openat(etc, name, flags, Mode::from(0o644)) {
        // Or another container of this root has made it meanwhile.
        Ok(_) | Err(Errno::EXIST) => open().map(Some).at("open", format!("/etc/{name}")),
        Err(errno) if forbids_creation(errno) => Ok(None),
        Err(errno) => Err(Error::os("make", format!("/etc/{name}"), errno)),
    }
}

/// Of a file that is mounted onto a directory the kernel says no more than that it can't be.
fn refuse_directory(place: &OwnedFd, path: &str) -> Result<()> {
    let stat = fstat(place).at("look at", path)?;
    if !FileType::from_raw_mode(stat.st_mode).is_dir() {
        return Ok(());
    }
    Err(Error::new(
        Code::SetupFailed,
        "mount onto",
        "a directory stands there in the root file system, and the container's own file goes there",
    )
    .on(path)
    .hint(format!("remove the directory {path} from the root")))
}

/// Makes the mount points while the root can still be written to.
///
/// # Errors
/// Something else than a file or link stands there.
pub fn prepare(files: &Files, root: &RootDir) -> Result<()> {
    if files.all().next().is_none() {
        return Ok(());
    }
    if let Some(etc) = etc_directory(root)? {
        for (name, _) in files.all() {
            file_in_etc(&etc, name)?;
        }
    }
    Ok(())
}

/// Writes the files and binds them.
///
/// # Errors
/// The kernel refuses a mount, for example onto a directory of that name.
pub fn bind(files: &Files, root: &RootDir, mounted: &Mounted) -> Result<()> {
    if files.all().next().is_none() {
        return Ok(());
    }
    let Some(etc) = etc_directory(root)? else { return Ok(()) };
    for (name, text) in files.all() {
        let Some(place) = file_in_etc(&etc, name)? else { continue };
        let path = format!("/etc/{name}");
        let step = "write";
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(&mounted.covered, name, flags, Mode::from(0o644)).at(step, &path)?;
        File::from(file).write_all(text.as_bytes()).at(step, &path)?;
        let mount = clone_tree(&mounted.covered, name, false).at(step, &path)?;
        refuse_directory(&place, &path)?;
        attach(mount, place, &path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_containers_may_make_the_names_of_one_root_at_once() {
        let path = std::env::temp_dir().join(format!("nsrs-etc-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        let fd = rustix::fs::open(&path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let root = RootDir::new(fd);
        let results: Vec<_> = (0..100)
            .flat_map(|round| {
                let _ = std::fs::remove_dir_all(path.join("etc"));
                let all = || etc_directory(&root)?.map(|etc| file_in_etc(&etc, &format!("name-{round}"))).transpose();
                std::thread::scope(|scope| {
                    let threads: Vec<_> = (0..8).map(|_| scope.spawn(all)).collect();
                    threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
                })
            })
            .collect();
        std::fs::remove_dir_all(&path).unwrap();
        assert!(results.iter().all(|result| matches!(result, Ok(Some(Some(_))))), "{results:?}");
    }
}
