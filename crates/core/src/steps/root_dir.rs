//! Paths of a container, resolved inside its root.
//!
//! The tree below a root is hostile: any name in it may be a symbolic link to anywhere, and may change while we look. No
//! path of it is ever handed to the kernel without a bound: openat2(2) resolves beneath the root's descriptor, and what
//! is missing is made name by name, each from the descriptor of its parent, never through a link that leads nowhere.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, fstat, fstatfs, mkdirat, openat, openat2,
    readlinkat, statat,
};
use rustix::io::Errno;

use nsrs_base::error::{At, Code, Error, Result};

/// What to make where a path doesn't exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Nothing: a missing path is an error.
    Refuse,
    /// Every missing directory of the path, the last name included.
    Directory,
    /// Every missing directory of the path, and an empty file as the last name.
    File,
}

/// A directory that bounds the resolution of paths.
#[derive(Debug)]
pub struct RootDir(OwnedFd);

/// Magic number of sysfs (linux/magic.h).
const SYSFS_MAGIC: i64 = 0x6265_6572;

/// How many links one path may go through, as in the kernel.
const MOST_LINKS: usize = 40;

impl RootDir {
    /// Bounds paths by this directory.
    #[must_use]
    pub fn new(fd: OwnedFd) -> RootDir {
        RootDir(fd)
    }

    /// Opens an existing path, following links inside the root only.
    ///
    /// # Errors
    /// Fails as openat2(2) does; `EXDEV` never, `ELOOP` for magic links such as those of /proc/PID/fd.
    pub fn open(&self, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        // EAGAIN: a name on the way was renamed while the kernel looked; somebody may do that on purpose, so not forever.
        for _ in 0..16 {
            match openat2(
                &self.0,
                relative(path),
                flags | OFlags::CLOEXEC,
                Mode::empty(),
                ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
            ) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }

    /// Opens a path that we prepare ourselves (/proc, /sys, /dev): a real directory, made if it's missing, no link on
    /// the way.
    ///
    /// # Errors
    /// A link or something else than a directory stands there; a directory can't be made.
    pub fn own_directory(&self, path: &str) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let step = "prepare the mount point";
        let open = || {
            openat2(&self.0, relative(path), flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
        };
        let result = match open() {
            Err(Errno::NOENT) => match mkdirat(&self.0, relative(path), Mode::from(0o755)) {
                Ok(()) | Err(Errno::EXIST) => open(),
                Err(errno) => return Err(Error::os("make the mount point", path, errno).hint(make_hint(errno, path))),
            },
            other => other,
        };
        result.map_err(|errno| {
            let error = Error::os(step, path, errno);
            match errno {
                Errno::LOOP | Errno::NOTDIR => error
                    .because("not a real directory in the root file system")
                    .hint("a link there could lead anywhere; make it a directory in the rootfs"),
                _ => error,
            }
        })
    }

    /// Opens the target of a mount, `O_PATH`, and makes what is missing of it.
    ///
    /// # Errors
    /// The path goes through a link that points outside the root or nowhere; it can't be made; it is missing and
    /// `missing` says [`Missing::Refuse`].
    pub fn target(&self, path: &str, missing: Missing) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        match openat2(
            &self.0,
            relative(path),
            flags,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
        ) {
            Ok(fd) => Ok(fd),
            // Missing, or a link that is absolute or climbs: look at each name.
            Err(Errno::NOENT | Errno::XDEV | Errno::AGAIN) => self.walk(path, missing),
            Err(errno) => Err(Error::os("open the mount target", path, errno)),
        }
    }

    /// Resolves name by name. Absolute links start again at the root; `..` goes back through the descriptors we came by,
    /// so that nobody who renames a directory meanwhile can lead us out.
    fn walk(&self, path: &str, missing: Missing) -> Result<OwnedFd> {
        let step = "open the mount target";
        let outside = |link: &str| {
            Error::new(Code::InvalidArgument, step, format!("the link {link} points outside the root file system"))
                .on(path)
                .hint("remove the link in the rootfs, or choose another target")
        };
        let climbs = || {
            Error::new(Code::InvalidArgument, step, "it leads out of the root file system by ..")
                .on(path)
                .hint("write the target without ..")
        };
        // Before anything is made on the way.
        if climbs_out(path) {
            return Err(climbs());
        }
        let mut trail: Vec<OwnedFd> = Vec::new();
        // Names still to go, last first, each with whether it was written by the caller or came out of a link.
        let mut names: Vec<(String, Option<String>)> = parts(path).rev().map(|name| (name.to_owned(), None)).collect();
        let mut links = 0;
        while let Some((name, origin)) = names.pop() {
            if name == ".." {
                if trail.pop().is_none() {
                    return Err(origin.as_deref().map_or_else(climbs, outside));
                }
                continue;
            }
            let parent = trail.last().map_or(self.0.as_fd(), AsFd::as_fd);
            let last = names.is_empty();
            let stat = match statat(parent, name.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) if missing != Missing::Refuse => {
                    if let Some(link) = origin {
                        return Err(Error::new(
                            Code::InvalidArgument,
                            step,
                            format!("the link {link} points to what doesn't exist inside the root file system"),
                        )
                        .on(path)
                        .hint("make its destination in the rootfs, or choose another target"));
                    }
                    if let Err(errno) = make(parent, &name, last && missing == Missing::File) {
                        refuse_kernels(parent, path)?;
                        return Err(Error::os("make the mount target", path, errno).hint(make_hint(errno, path)));
                    }
                    statat(parent, name.as_str(), AtFlags::SYMLINK_NOFOLLOW).at(step, path)?
                }
                Err(errno) => return Err(Error::os(step, path, errno)),
            };
            if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Error::os(step, path, Errno::LOOP));
                }
                let link = readlinkat(parent, name.as_str(), Vec::new()).at(step, path)?;
                let link = link.to_string_lossy().into_owned();
                if link.starts_with('/') {
                    trail.clear();
                }
                let from = format!("{name} -> {link}");
                names.extend(parts(&link).rev().map(|part| (part.to_owned(), Some(from.clone()))).collect::<Vec<_>>());
                continue;
            }
            let directory = if last { OFlags::empty() } else { OFlags::DIRECTORY };
            let fd = openat(
                parent,
                name.as_str(),
                OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC | directory,
                Mode::empty(),
            )
            .at(step, path)?;
            if FileType::from_raw_mode(fstat(&fd).at(step, path)?.st_mode) == FileType::Symlink {
                return Err(Error::os(step, path, Errno::AGAIN).because("it was changed to a link meanwhile"));
            }
            trail.push(fd);
        }
        match trail.pop() {
            Some(fd) => Ok(fd),
            None => Err(Error::new(Code::InvalidArgument, step, "it is the root itself").on(path)),
        }
    }
}

/// Does a path lead above the root by its own words?
fn climbs_out(path: &str) -> bool {
    let depths = parts(path).scan(0, |depth: &mut i32, part| {
        *depth += if part == ".." { -1 } else { 1 };
        Some(*depth)
    });
    depths.min().is_some_and(|lowest| lowest < 0)
}

impl AsFd for RootDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Refuses a mount target in /proc or /sys: whoever covers a file of /proc decides what programs believe of the kernel.
///
/// # Errors
/// It is in a procfs or sysfs; the file system can't be looked at.
pub fn refuse_kernels(place: impl AsFd, path: &str) -> Result<()> {
    let name = match fstatfs(place).at("look at the mount target", path)?.f_type {
        PROC_SUPER_MAGIC => "/proc",
        SYSFS_MAGIC => "/sys",
        _ => return Ok(()),
    };
    let why = format!("{name} is a file system of the kernel's, in which nothing can be made or covered");
    Err(Error::new(Code::InvalidArgument, "mount onto", why).on(path).hint("choose another target"))
}

fn make(parent: BorrowedFd<'_>, name: &str, file: bool) -> rustix::io::Result<()> {
    let made = if file {
        openat(parent, name, OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::WRONLY, Mode::from(0o644))
            .map(drop)
    } else {
        mkdirat(parent, name, Mode::from(0o755))
    };
    // Somebody else may have made it meanwhile; what it is, the caller looks at next.
    if made == Err(Errno::EXIST) { Ok(()) } else { made }
}

fn make_hint(errno: Errno, path: &str) -> String {
    match errno {
        Errno::ROFS | Errno::ACCESS | Errno::PERM | Errno::OVERFLOW => {
            format!("make {path} in the rootfs beforehand, as its owner")
        }
        _ => String::new(),
    }
}

/// The names of a path.
fn parts(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".")
}

/// The same path without the slash that would start it at the root of the process.
fn relative(path: &str) -> &str {
    match path.trim_start_matches('/') {
        "" => ".",
        rest => rest,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::{Path, PathBuf};

    use super::*;

    /// A directory of its own under the system's temporary one, removed at the end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let path = std::env::temp_dir().join(format!("nsrs-root-dir-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir_all(path.join("root")).unwrap();
            std::fs::write(path.join("canary"), "host").unwrap();
            Scratch(path)
        }

        fn root(&self) -> RootDir {
            RootDir::new(
                rustix::fs::open(self.0.join("root"), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap(),
            )
        }

        fn at(&self, path: &str) -> PathBuf {
            self.0.join("root").join(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn path_of(fd: &OwnedFd) -> PathBuf {
        use std::os::fd::AsRawFd;
        std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap()
    }

    #[test]
    fn makes_what_is_missing() {
        let scratch = Scratch::new("makes");
        let fd = scratch.root().target("/a/b/c", Missing::File).unwrap();
        assert_eq!(path_of(&fd), scratch.at("a/b/c"));
        assert!(Path::is_file(&scratch.at("a/b/c")));
        assert!(scratch.root().target("/d/e", Missing::Directory).is_ok());
        assert!(scratch.at("d/e").is_dir());
        assert!(scratch.root().target("/nowhere", Missing::Refuse).is_err());
    }

    #[test]
    fn follows_links_that_stay_inside() {
        let scratch = Scratch::new("inside");
        std::fs::create_dir(scratch.at("run")).unwrap();
        std::fs::create_dir(scratch.at("var")).unwrap();
        symlink("/run", scratch.at("var/run")).unwrap();
        symlink("../run", scratch.at("var/rel")).unwrap();
        for path in ["/var/run/x", "/var/rel/y"] {
            let fd = scratch.root().target(path, Missing::Directory).unwrap();
            assert!(path_of(&fd).starts_with(scratch.at("run")), "{path}");
        }
    }

    #[test]
    fn refuses_links_that_point_outside_and_makes_nothing() {
        let scratch = Scratch::new("outside");
        for (name, link) in [
            ("up", "../.."),
            ("far", "../../../../../../etc"),
            ("abs", "/nonexistent/host/dir"),
            ("canary", "../canary"),
        ] {
            symlink(link, scratch.at(name)).unwrap();
            let error = scratch.root().target(&format!("/{name}/x"), Missing::Directory).unwrap_err();
            assert!(error.to_string().contains(link), "{error}");
            assert!(error.subject.contains(name), "{error}");
        }
        assert_eq!(std::fs::read_dir(scratch.at("")).unwrap().count(), 4);
        assert_eq!(std::fs::read_to_string(scratch.0.join("canary")).unwrap(), "host");
    }

    #[test]
    fn magic_links_lead_nowhere() {
        let scratch = Scratch::new("magic");
        let held = std::fs::File::open(scratch.0.join("canary")).unwrap();
        use std::os::fd::AsRawFd;
        symlink(format!("/proc/self/fd/{}", held.as_raw_fd()), scratch.at("fd")).unwrap();
        assert!(scratch.root().target("/fd", Missing::File).is_err());
    }

    #[test]
    fn our_own_directories_are_no_links() {
        let scratch = Scratch::new("own");
        assert!(scratch.root().own_directory("/proc").is_ok());
        std::fs::create_dir(scratch.at("real")).unwrap();
        symlink("real", scratch.at("dev")).unwrap();
        std::fs::write(scratch.at("sys"), "").unwrap();
        for path in ["/dev", "/sys"] {
            let error = scratch.root().own_directory(path).unwrap_err();
            assert!(error.to_string().contains("not a real directory"), "{error}");
        }
    }

    #[test]
    fn a_loop_of_links_ends() {
        let scratch = Scratch::new("loop");
        symlink("b", scratch.at("a")).unwrap();
        symlink("a", scratch.at("b")).unwrap();
        assert!(scratch.root().target("/a/x", Missing::Directory).is_err());
    }
}
