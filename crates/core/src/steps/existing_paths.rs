//! Which of many paths exist.
//!
//! Nearly none of the secrets that are to be hidden exists, and each look-up costs an overlay that was just made some three
//! microseconds, and as much again when it goes. So each directory that may hold some is read once.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, OFlags, RawDir, statat};
use rustix::io::Errno;

use super::root_dir::RootDir;

/// What one reading may bring, some thousand names: whoever owns a home on this host decides how many there are in it.
const MOST: usize = 32 * 1024;

/// Tells which paths below a root exist, from directories of which each is read once.
pub struct ExistingPaths<'a> {
    root: &'a RootDir,
    directories: HashMap<&'a str, Directory>,
}

enum Directory {
    /// It is not there, or closed to us, and so to everybody inside.
    None,
    /// It failed otherwise, which whoever opens the path itself will tell.
    Unknown,
    /// All its names, in lower case.
    Read(Vec<Vec<u8>>),
    /// It can't be told by its names: it may not be read, has very many, or some that a file system may take for others.
    Open(OwnedFd),
}

impl<'a> ExistingPaths<'a> {
    /// For paths below this root. Nothing is read before the first question.
    #[must_use]
    pub fn new(root: &'a RootDir) -> ExistingPaths<'a> {
        ExistingPaths { root, directories: HashMap::new() }
    }

    /// May there be something at `path`?
    pub fn has(&mut self, path: &'a str) -> bool {
        let Some((parent, name)) = path.rsplit_once('/') else { return true };
        if !self.directories.contains_key(parent) {
            // The names of the directory above are known mostly, and tell that there is nothing to be read.
            let is_known = parent.rsplit_once('/').is_some_and(|(above, _)| self.directories.contains_key(above));
            let directory = if is_known && !self.has(parent) { Directory::None } else { read(self.root, parent) };
            self.directories.insert(parent, directory);
        }
        match self.directories.get(parent) {
            // A file system may not tell capitals from small letters.
            Some(Directory::Read(names)) => names.contains(&name.to_ascii_lowercase().into_bytes()),
            Some(Directory::Open(fd)) => !matches!(statat(fd, name, AtFlags::SYMLINK_NOFOLLOW), Err(Errno::NOENT)),
            Some(Directory::None) => false,
            Some(Directory::Unknown) | None => true,
        }
    }
}

fn read(root: &RootDir, path: &str) -> Directory {
    if let Ok(fd) = root.open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK) {
        return names(&fd).map_or(Directory::Open(fd), Directory::Read);
    }
    match root.open(path, OFlags::PATH | OFlags::DIRECTORY) {
        Ok(fd) => Directory::Open(fd),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::LOOP) => Directory::None,
        Err(_) => Directory::Unknown,
    }
}

fn names(fd: &OwnedFd) -> Option<Vec<Vec<u8>>> {
    let mut buffer = [MaybeUninit::uninit(); MOST];
    let mut entries = RawDir::new(fd, &mut buffer);
    let (mut names, mut left) = (Vec::new(), MOST);
    while let Some(entry) = entries.next() {
        let name = entry.ok()?.file_name().to_bytes().to_ascii_lowercase();
        left = left.checked_sub(name.len() + 24)?;
        if !name.is_ascii() {
            return None;
        }
        names.push(name);
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, Mode, openat};

    use super::*;

    #[test]
    fn what_is_there_is_found_however_its_directory_is_read() {
        let base = std::env::temp_dir().join(format!("nsrs-existing-paths-{}", std::process::id()));
        let _ = fs::remove_dir_all(&base);
        for directory in ["few/.config/gh", "many/.config/gh", "odd/.config/gh", "loud/.CONFIG/GH"] {
            fs::create_dir_all(base.join(directory)).unwrap();
        }
        for number in 0..2000 {
            fs::write(base.join(format!("many/.config/{number}")), "").unwrap();
        }
        fs::write(base.join("odd/.config/\u{212a}"), "").unwrap();
        symlink("few", base.join("link")).unwrap();
        symlink("nowhere", base.join("few/.ssh")).unwrap();
        let fd = openat(CWD, &base, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let root = RootDir::new(fd);
        let mut existing = ExistingPaths::new(&root);
        for path in [
            "/few/.ssh",
            "/few/.config/gh",
            "/many/.config/gh",
            "/odd/.config/gh",
            "/loud/.config",
            "/link/.config/gh",
            "//few//.config/gh",
        ] {
            assert!(existing.has(path), "{path}");
        }
        for path in [
            "/few/.aws",
            "/few/.config/hub",
            "/few/.local/share/x",
            "/many/.config/hub",
            "/odd/.config/hub",
            "/no/.ssh",
        ] {
            assert!(!existing.has(path), "{path}");
        }
        fs::remove_dir_all(&base).unwrap();
    }
}
