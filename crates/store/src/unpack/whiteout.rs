//! Names that a layer takes away from those below it.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, XattrFlags, fsetxattr, mknodat, openat, statat};
use rustix::io::Errno;

use super::place::{Place, invalid};
use nsrs_base::error::show;
use nsrs_base::error::{At, Error, Result};
use nsrs_base::tree::marks::whiteout;
use nsrs_base::tree::open_directory;

/// The prefix of whiteouts, and of aufs' own files (OCI image specification, layer.md).
pub(super) const PREFIX: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const AUFS: &[u8] = b".wh..wh.";

impl Place<'_> {
    /// Notes that a name, or everything below a directory, isn't there any more in this layer.
    pub(super) fn whiteout(&mut self, parent: &[u8], name: &[u8]) -> Result<()> {
        let step = "make the whiteout";
        let subject = || show(&[parent, b"/", name].concat());
        if name == OPAQUE {
            let directory = self.tree.directory(parent)?;
            self.opaque |= parent.is_empty();
            let directory = open_directory(&directory, b".").at(step, subject())?;
            return self.tree.mark_opaque(&directory).at(step, subject());
        }
        if name.starts_with(AUFS) {
            return Ok(());
        }
        let hidden = &name[PREFIX.len()..];
        if hidden.is_empty() || hidden == b"." || hidden == b".." {
            return Err(invalid("a whiteout of nothing").on(subject()));
        }
        let directory = self.tree.directory(parent)?;
        if !parent.is_empty() && self.whiteouts.len() < 100_000 {
            self.whiteouts.insert(parent.to_vec());
        }
        match mknodat(&directory, hidden, FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) => Ok(()),
            // It is of this layer, and hides what is below by being there; a directory is merged, unless it is told.
            Err(Errno::EXIST) => {
                let stat = statat(&directory, hidden, AtFlags::SYMLINK_NOFOLLOW).at(step, subject())?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    let directory = open_directory(&directory, hidden).at(step, subject())?;
                    self.tree.mark_opaque(&directory).at(step, subject())?;
                }
                Ok(())
            }
            Err(Errno::PERM) => self.xattr_whiteout(&directory, hidden).at(step, subject()),
            Err(errno) => Err(Error::os(step, subject(), errno)),
        }
    }

    /// The other form of whiteouts, where not even this device can be made.
    pub(super) fn xattr_whiteout(&mut self, directory: &OwnedFd, name: &[u8]) -> rustix::io::Result<()> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(directory, name, flags, Mode::RUSR | Mode::WUSR)?;
        let xattr = whiteout(self.options.user_xattrs);
        fsetxattr(&file, xattr, b"y", XattrFlags::empty())?;
        self.tree.mark_whiteouts(open_directory(directory, b".")?)?;
        self.xattr_whiteouts = true;
        Ok(())
    }
}
