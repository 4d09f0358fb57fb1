//! Whiteouts: names that a layer hides in those below it.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, XattrFlags, fsetxattr, mknodat, openat, statat};
use rustix::io::Errno;

use super::errors::invalid;
use super::unpacker::{Unpacker, WHITEOUT_PREFIX};
use nsrs_base::error::show;
use nsrs_base::error::{At, Error, Result};
use nsrs_base::tree::marks::whiteout;
use nsrs_base::tree::open_directory;

const OPAQUE: &[u8] = b".wh..wh..opq";
const AUFS: &[u8] = b".wh..wh.";

impl Unpacker<'_> {
    /// Makes a whiteout of a name, or marks a directory as opaque.
    pub(super) fn whiteout(&mut self, parent: &[u8], name: &[u8]) -> Result<()> {
        let step = "make the whiteout";
        let subject = || show(&[parent, b"/", name].concat());
        if name == OPAQUE {
            let directory = self.destination.directory(parent)?;
            self.opaque |= parent.is_empty();
            let directory = open_directory(&directory, b".").at(step, subject())?;
            return self.destination.mark_opaque(&directory).at(step, subject());
        }
        if name.starts_with(AUFS) {
            return Ok(());
        }
        let hidden = &name[WHITEOUT_PREFIX.len()..];
        if hidden.is_empty() || hidden == b"." || hidden == b".." {
            return Err(invalid("whiteout without a name").on(subject()));
        }
        let directory = self.destination.directory(parent)?;
        if !parent.is_empty() && self.whiteouts.len() < 100_000 {
            self.whiteouts.insert(parent.to_vec());
        }
        match mknodat(&directory, hidden, FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) => Ok(()),
            // The entry of this layer hides what is below; a directory only does so if it is opaque.
            Err(Errno::EXIST) => {
                let stat = statat(&directory, hidden, AtFlags::SYMLINK_NOFOLLOW).at(step, subject())?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    let directory = open_directory(&directory, hidden).at(step, subject())?;
                    self.destination.mark_opaque(&directory).at(step, subject())?;
                }
                Ok(())
            }
            Err(Errno::PERM) => self.xattr_whiteout(&directory, hidden).at(step, subject()),
            Err(errno) => Err(Error::os(step, subject(), errno)),
        }
    }

    /// The other form of whiteouts, for where the device can't be made: a file with an attribute (Linux 6.7).
    pub(super) fn xattr_whiteout(&mut self, directory: &OwnedFd, name: &[u8]) -> rustix::io::Result<()> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(directory, name, flags, Mode::RUSR | Mode::WUSR)?;
        let xattr = whiteout(self.options.user_xattrs);
        fsetxattr(&file, xattr, b"y", XattrFlags::empty())?;
        self.destination.mark_whiteouts(open_directory(directory, b".")?)?;
        self.xattr_whiteouts = true;
        Ok(())
    }
}
