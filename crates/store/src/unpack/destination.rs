//! The directories of the destination, opened inside of it and nowhere else.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, XattrFlags, fchmod, fsetxattr, mkdirat, openat, openat2, readlinkat,
    statat, unlinkat,
};
use rustix::io::Errno;

use nsrs_base::error::show;
use nsrs_base::error::{At, Code, Error, Result};
use nsrs_base::tree::marks::{is_whiteout, opaque};

/// How many directories are kept open: entries of one directory mostly follow each other.
const OPEN: usize = 64;

/// How many links one path may go through, as in the kernel.
const MOST_LINKS: usize = 40;

/// The longest path, as in the kernel, and the longest name.
const MOST_PATH: usize = 4095;
const MOST_NAME: usize = 255;

/// The tree that an archive is unpacked into.
#[derive(Debug)]
pub(super) struct DestinationTree {
    root: Rc<OwnedFd>,
    open: HashMap<Vec<u8>, Rc<OwnedFd>>,
    opaque: &'static str,
    /// Directories that were made because something is in them, by their real paths.
    pub(super) implicit: HashSet<Vec<u8>>,
}

/// A path of the archive as a path inside the destination: without `/` at its ends, `.` and `..`. The root is empty.
///
/// # Errors
/// It climbs out of the root, or is longer than the kernel takes.
pub(crate) fn clean(path: &[u8]) -> Result<Vec<u8>> {
    let bad = |why: &str| Error::new(Code::ImageInvalid, "unpack", why).on(show(path));
    if path.len() > MOST_PATH {
        return Err(bad(&format!("its name is longer than {MOST_PATH} bytes")));
    }
    let mut clean: Vec<u8> = Vec::with_capacity(path.len());
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." if clean.is_empty() => return Err(bad("its name leads out of the image")),
            b".." => clean.truncate(clean.iter().rposition(|byte| *byte == b'/').unwrap_or(0)),
            name if name.len() > MOST_NAME => {
                return Err(bad(&format!("a name in it is longer than {MOST_NAME} bytes")));
            }
            name => {
                if !clean.is_empty() {
                    clean.push(b'/');
                }
                clean.extend_from_slice(name);
            }
        }
    }
    Ok(clean)
}

/// The directory and the name of a clean path that isn't the root.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

impl DestinationTree {
    pub(super) fn new(root: OwnedFd, user_xattrs: bool) -> DestinationTree {
        DestinationTree {
            root: Rc::new(root),
            open: HashMap::new(),
            opaque: opaque(user_xattrs),
            implicit: HashSet::new(),
        }
    }

    /// Opens the directory of this clean path if it's there. Links lead where they lead in the image.
    ///
    /// # Errors
    /// Something on the way is not a directory.
    pub(super) fn existing(&mut self, path: &[u8]) -> rustix::io::Result<Rc<OwnedFd>> {
        if path.is_empty() {
            return Ok(self.root.clone());
        }
        if let Some(fd) = self.open.get(path) {
            return Ok(fd.clone());
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let fd = loop {
            match openat2(&self.root, path, flags, Mode::empty(), resolve) {
                // Renames elsewhere on the host make the kernel ask for another try; nobody renames in here.
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => break Rc::new(other?),
            }
        };
        self.keep(path, &fd);
        Ok(fd)
    }

    fn keep(&mut self, path: &[u8], fd: &Rc<OwnedFd>) {
        if self.open.len() >= OPEN {
            self.open.clear();
        }
        self.open.insert(path.to_vec(), fd.clone());
    }

    /// Something was removed or replaced: what is open may not be what its path leads to any more.
    pub(super) fn forget(&mut self) {
        self.open.clear();
    }

    /// Opens the directory of this clean path, and makes what is missing of it.
    ///
    /// # Errors
    /// Something on the way is not a directory, or can't be made.
    pub(super) fn directory(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>> {
        match self.existing(path) {
            // Missing; or a whiteout stands there, or a link whose destination is missing here.
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            other => return other.at("unpack into the directory", show(path)),
        }
        let fd = self.make(path)?;
        self.keep(path, &fd);
        Ok(fd)
    }

    /// Walks name by name. Links are read as text and start again from the root of the image or from their directory;
    /// nobody changes the tree in the meantime, and the kernel has the last word: every directory is opened beneath the root
    /// and through no link.
    fn make(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>> {
        let step = "unpack into the directory";
        let failed = |errno: Errno| Error::os(step, show(path), errno);
        let mut todo: Vec<Vec<u8>> = names(path);
        let mut real: Vec<u8> = Vec::new();
        let mut current = self.root.clone();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == b".." {
                real.truncate(real.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
                current = self.real(&real).map_err(failed)?;
                continue;
            }
            let mut whiteout = false;
            match statat(&current, &name[..], AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => {
                        enter(&mut real, &name);
                        current = open(&current, &name).map_err(failed)?;
                        continue;
                    }
                    FileType::Symlink => {
                        links += 1;
                        if links > MOST_LINKS {
                            return Err(failed(Errno::LOOP).code(Code::ImageInvalid));
                        }
                        let link = readlinkat(&current, &name[..], Vec::new()).map_err(failed)?;
                        let link = link.as_bytes();
                        if link.starts_with(b"/") {
                            real.clear();
                            current = self.root.clone();
                        }
                        todo.extend(names(link));
                        continue;
                    }
                    _ if is_whiteout(&current, &name, &stat) => {
                        unlinkat(&current, &name[..], AtFlags::empty()).map_err(failed)?;
                        whiteout = true;
                    }
                    _ => {
                        return Err(failed(Errno::NOTDIR)
                            .because("a file of the same image stands in its way")
                            .code(Code::ImageInvalid));
                    }
                },
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(failed(errno)),
            }
            mkdirat(&current, &name[..], Mode::from(0o755)).map_err(failed)?;
            enter(&mut real, &name);
            if real.len() > MOST_PATH {
                return Err(failed(Errno::NAMETOOLONG).code(Code::ImageInvalid));
            }
            if self.implicit.len() < 100_000 {
                self.implicit.insert(real.clone());
            }
            let fd = openat(
                &current,
                &name[..],
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .map_err(failed)?;
            // Whatever the umask left.
            fchmod(&fd, Mode::from(0o755)).map_err(failed)?;
            if whiteout {
                self.mark_opaque(&fd).map_err(failed)?;
            }
            current = Rc::new(fd);
        }
        Ok(current)
    }

    /// Opens a directory by its real path, beneath the root and through no link.
    fn real(&self, path: &[u8]) -> rustix::io::Result<Rc<OwnedFd>> {
        if path.is_empty() {
            return Ok(self.root.clone());
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        loop {
            match openat2(&self.root, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other.map(Rc::new),
            }
        }
    }

    /// Tells overlayfs that the directory hides what is below it. It must be open for reading.
    pub(super) fn mark_opaque(&self, directory: impl AsFd) -> rustix::io::Result<()> {
        fsetxattr(directory, self.opaque, b"y", XattrFlags::empty())
    }

    /// Tells overlayfs that whiteouts of this directory are files with an attribute (Linux 6.7), unless it is opaque.
    pub(super) fn mark_whiteouts(&self, directory: impl AsFd) -> rustix::io::Result<()> {
        match fsetxattr(directory, self.opaque, b"x", XattrFlags::CREATE) {
            Err(Errno::EXIST) => Ok(()),
            other => other,
        }
    }
}

/// The names of a path, last first.
fn names(path: &[u8]) -> Vec<Vec<u8>> {
    let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".");
    names.rev().map(<[u8]>::to_vec).collect()
}

fn enter(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

fn open(directory: &OwnedFd, name: &[u8]) -> rustix::io::Result<Rc<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(directory, name, flags, Mode::empty()).map(Rc::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_and_stay_inside() {
        for (path, cleaned) in [
            ("./a//b/", "a/b"),
            ("/etc/passwd", "etc/passwd"),
            ("a/../b", "b"),
            ("a/b/../../c/.", "c"),
            ("./", ""),
            ("/", ""),
            ("a/..", ""),
        ] {
            assert_eq!(clean(path.as_bytes()).unwrap(), cleaned.as_bytes(), "{path}");
        }
        for path in ["..", "../a", "a/../../b", "/..", "./../x"] {
            assert!(clean(path.as_bytes()).is_err(), "{path}");
        }
        assert!(clean(&[b'n'; 256]).is_err());
        assert!(clean(&b"n/".repeat(5000)).is_err());
    }
}
