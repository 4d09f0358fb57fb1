//! How overlayfs is told what a layer hides of those below it: by a whiteout, a device 0/0 or an empty file with an attribute,
//! in place of a name, and by an attribute of a directory (Documentation/filesystems/overlayfs.rst).

use std::os::fd::AsFd;

use rustix::fs::{FileType, Mode, OFlags, Stat, fgetxattr, openat};

/// The attributes of directories that hide what is below them. Mounted with `userxattr` overlayfs goes by the second, which
/// is anybody's to set, otherwise by the first.
pub const OPAQUE: [&str; 2] = ["trusted.overlay.opaque", "user.overlay.opaque"];

const WHITEOUT: [&str; 2] = ["trusted.overlay.whiteout", "user.overlay.whiteout"];

/// The attribute of directories that goes where overlayfs is mounted with or without `userxattr`.
pub fn opaque(user_xattrs: bool) -> &'static str {
    OPAQUE[usize::from(user_xattrs)]
}

/// As [`opaque`], of files that are whiteouts.
pub fn whiteout(user_xattrs: bool) -> &'static str {
    WHITEOUT[usize::from(user_xattrs)]
}

/// Is this attribute one of overlayfs's own?
pub fn is_mark(xattr: &[u8]) -> bool {
    xattr.starts_with(b"trusted.overlay.") || xattr.starts_with(b"user.overlay.")
}

/// Does the directory hide what is below it, by either attribute?
pub fn is_opaque(directory: impl AsFd) -> bool {
    OPAQUE.iter().any(|name| says_opaque(&directory, name))
}

/// Does this attribute say that the directory hides what is below it?
pub fn says_opaque(directory: impl AsFd, name: &str) -> bool {
    let mut value = [0_u8; 1];
    fgetxattr(directory, name, &mut value).is_ok_and(|count| count == 1 && value == *b"y")
}

/// Is this name a whiteout, of either form?
pub fn is_whiteout(directory: impl AsFd, name: &[u8], stat: &Stat) -> bool {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice => stat.st_rdev == 0,
        FileType::RegularFile if stat.st_size == 0 => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let Ok(file) = openat(directory, name, flags, Mode::empty()) else { return false };
            WHITEOUT.iter().any(|xattr| fgetxattr(&file, *xattr, &mut [0_u8; 8]).is_ok())
        }
        _ => false,
    }
}
