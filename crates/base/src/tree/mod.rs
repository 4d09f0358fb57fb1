//! Trees on disk that came out of an image: whatever is in them, no path of theirs leads out of them.

pub mod copy;
pub mod marks;
pub mod merge;
pub mod remove;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags, openat};

/// An extended attribute: its name and its value.
pub type Xattr = (Vec<u8>, Vec<u8>);

/// Opens a directory below another one, by its own name.
pub fn open_directory(parent: impl AsFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

/// The extended attributes of a name in a directory, but not those of overlayfs. A file system without any has none.
pub fn xattrs(parent: impl AsFd, name: &[u8]) -> rustix::io::Result<Vec<Xattr>> {
    let fd = openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    // An O_PATH descriptor tells its attributes by this name only, which leads to a link itself.
    xattrs_of(fd)
}

/// As [`xattrs`], of an open file.
pub fn xattrs_of(file: impl AsFd) -> rustix::io::Result<Vec<Xattr>> {
    xattrs_at(&format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()))
}

/// As [`xattrs`], of what is behind a path.
pub fn xattrs_at(path: &str) -> rustix::io::Result<Vec<Xattr>> {
    use rustix::io::Errno;
    let mut list = vec![0_u8; 1024];
    let count = loop {
        match rustix::fs::listxattr(path, &mut list[..]) {
            Err(Errno::RANGE) if list.len() < 65_536 => list.resize(65_536, 0),
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            other => break other?,
        }
    };
    let mut found = Vec::new();
    for xattr in list[..count].split(|byte| *byte == 0).filter(|xattr| !xattr.is_empty()) {
        if marks::is_mark(xattr) {
            continue;
        }
        let mut value = vec![0_u8; 65_536];
        match rustix::fs::getxattr(path, xattr, &mut value[..]) {
            Ok(count) => {
                value.truncate(count);
                found.push((xattr.to_vec(), value));
            }
            // Gone meanwhile, or not for us to see.
            Err(Errno::NODATA | Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno),
        }
    }
    found.sort();
    Ok(found)
}
