//! The layers of an image, ready to be mounted over each other.

use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, Dir, Gid, Mode, OFlags, ResolveFlags, Stat, Uid, XattrFlags, fchmod, fchown, fsetxattr, fstat, openat2,
    statat, unlinkat,
};
use rustix::io::Errno;

use super::config::chain_ids;
use super::content::layout::STACKED;
use super::content::{Store, UnpackedLayer};
use super::digest::Digest;
use super::stored_image::StoredImage;
use super::unpack::{ProgressCallback, UnpackOptions};
use nsrs_base::error::{At, Code, Error, Result};
use nsrs_base::tree::copy::{Copier, How};
use nsrs_base::tree::marks::{is_opaque, is_whiteout};
use nsrs_base::tree::merge::walk;

/// Told of the layers of an image while they are unpacked.
pub type LayerProgress = Arc<dyn Fn(&Digest, Option<u64>) + Send + Sync>;

/// The layers of an image, unpacked.
#[derive(Debug)]
pub struct LayerStack {
    /// Lowest first; those below one that hides everything are left out. Held, so that they aren't removed.
    pub layers: Vec<UnpackedLayer>,
}

impl LayerStack {
    /// The directories for overlayfs, lowest first.
    #[must_use]
    pub fn paths(&self) -> Vec<&Path> {
        self.layers.iter().map(|layer| layer.path.as_path()).collect()
    }

    /// Whether the marks of overlayfs are user attributes, so that the mount needs `userxattr`.
    #[must_use]
    pub fn user_xattrs(&self) -> bool {
        self.layers.iter().any(|layer| layer.record.unpacked.user_xattrs)
    }

    /// Copies the whole tree into an empty directory, for where overlayfs is refused. Says whether the blocks of files are
    /// shared with the layers.
    ///
    /// # Errors
    /// The disk is full, or refuses.
    pub fn copy(&self, into: &Path) -> Result<bool> {
        let mut copier = Copier::new(into, How::Copy)?;
        walk(&self.paths(), false, &mut copier)?;
        Ok(copier.reflinks)
    }
}

impl Store {
    /// Unpacks the layers of an image that aren't unpacked yet, each once, two at a time. Layers that are unpacked are
    /// compared with the blobs that the image names for them, unless they were before. `told` is called for each of these
    /// with its blob and how many bytes of it were read; at its end with `None`.
    ///
    /// # Errors
    /// Those of [`Store::unpack_blob`]; the first one is returned.
    pub fn unpack_image(
        &self,
        image: &StoredImage,
        options: &UnpackOptions,
        told: Option<&LayerProgress>,
    ) -> Result<()> {
        let work: Vec<(Digest, Digest)> =
            image.layers()?.into_iter().zip(image.config.diff_ids.iter().copied()).collect();
        let next = std::sync::atomic::AtomicUsize::new(0);
        let one_by_one = || -> Result<()> {
            while let Some((blob, diff_id)) = work.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                if !self.has_unpacked(blob, diff_id)? {
                    let mut options = options.clone();
                    if let Some(told) = told.cloned() {
                        let blob = *blob;
                        options.tell = Some(ProgressCallback(Arc::new(move |read| told(&blob, Some(read)))));
                    }
                    let result = self
                        .open_blob(blob)
                        .and_then(|file| self.unpack_blob(blob, diff_id, file, &options))
                        // Only the digest shows whether the image is to blame, or its blob is damaged.
                        .map_err(|error| match error.code {
                            Code::ImageInvalid => {
                                self.check(blob).map_or_else(|damaged| image.lacks(damaged), |()| error)
                            }
                            Code::ImageNotFound => image.lacks(error),
                            _ => error,
                        });
                    if let Err(error) = result {
                        next.store(work.len(), std::sync::atomic::Ordering::Relaxed);
                        return Err(error);
                    }
                    if let Some(told) = told {
                        told(blob, None);
                    }
                }
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let helper = scope.spawn(one_by_one);
            let own = one_by_one();
            let other = helper
                .join()
                .unwrap_or_else(|_| Err(Error::new(Code::SetupFailed, "unpack the image", "a thread panicked")));
            own.and(other)
        })
    }

    /// The layers of an image, lowest first, as they are given to overlayfs.
    ///
    /// A layer may have directories without an entry of their own: they say nothing of the same directory below, whose
    /// owner and mode hold. overlayfs would take the upper one's; so such a layer is given a sibling for this image, of the
    /// same files by hard links, with these directories as they are below. So is one with whiteouts that hide nothing, for
    /// their directory is nowhere below: in a directory of one layer overlayfs would show them, as names of nothing.
    ///
    /// # Errors
    /// A layer isn't unpacked (`ImageNotFound`).
    pub fn stack(&self, diff_ids: &[Digest]) -> Result<LayerStack> {
        let mut layers: Vec<UnpackedLayer> = Vec::new();
        for (diff_id, chain_id) in diff_ids.iter().zip(chain_ids(diff_ids)) {
            let layer = self.layer(diff_id)?.ok_or_else(|| {
                Error::new(Code::ImageNotFound, "stack the layers", "a layer isn't unpacked")
                    .on(diff_id.to_string())
                    .hint("pull or load the image again")
            })?;
            if layer.record.unpacked.opaque {
                layers.clear();
            }
            let (changes, useless) = (changes(&layer, &layers)?, useless_whiteouts(&layer, &layers));
            if changes.is_empty() && useless.is_empty() {
                if needs_a_look(&layer, layers.is_empty()) {
                    self.note_fit(&chain_id)?;
                }
                layers.push(layer);
                continue;
            }
            let unpacked = layer.record.unpacked.clone();
            layers.push(self.make_layer(&sibling_key(&chain_id), |directory| {
                let mut copier = Copier::new(directory, How::Link)?;
                // As one layer by itself, whiteouts and all.
                walk(&[&layer.path], true, &mut copier)?;
                changes.iter().try_for_each(|change| change.make(directory))?;
                useless.iter().try_for_each(|path| remove_whiteouts(directory, path))?;
                Ok(unpacked)
            })?);
        }
        Ok(LayerStack { layers })
    }

    /// The sibling that was made of the layer of this chain.
    ///
    /// # Errors
    /// What is there can't be read.
    pub(super) fn sibling(&self, chain_id: &Digest) -> Result<Option<UnpackedLayer>> {
        self.layer_of(&sibling_key(chain_id))
    }

    /// Was the layer of this chain found to need no sibling? A chain is always of the same content, so that it needs to be
    /// looked at once.
    pub(super) fn fits_as_it_is(&self, chain_id: &Digest) -> bool {
        self.fit_path(chain_id).exists()
    }

    fn note_fit(&self, chain_id: &Digest) -> Result<()> {
        let (path, step) = (self.fit_path(chain_id), "note the stacked layer");
        if path.exists() {
            return Ok(());
        }
        match std::fs::DirBuilder::new().mode(0o700).create(self.root().join(STACKED)) {
            Err(error) if error.kind() == std::io::ErrorKind::ReadOnlyFilesystem => return Ok(()),
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(Error::os(step, path.display().to_string(), &error));
            }
            _ => {}
        }
        match std::fs::write(&path, "") {
            // It saves a look at the next time, and nothing else.
            Err(error) if error.kind() == std::io::ErrorKind::ReadOnlyFilesystem => Ok(()),
            other => other.at(step, path.display()),
        }
    }

    fn fit_path(&self, chain_id: &Digest) -> PathBuf {
        self.root().join(STACKED).join(chain_id.hex())
    }
}

fn sibling_key(chain_id: &Digest) -> String {
    format!("chain-{}", chain_id.hex())
}

/// A directory that has to be given what it has below.
struct DirectoryFix {
    path: String,
    stat: Stat,
    /// The same directory in the layer below, whose attributes it gets.
    below: PathBuf,
}

fn open_in(root: &Path, path: &str) -> rustix::io::Result<OwnedFd> {
    let root = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    openat2(root, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// The directories of a layer without an entry of their own that differ from the same one below.
fn changes(layer: &UnpackedLayer, below: &[UnpackedLayer]) -> Result<Vec<DirectoryFix>> {
    let mut changes = Vec::new();
    for path in &layer.record.unpacked.implicit {
        let Some((lower, fd)) = merged_with(path, below) else { continue };
        let stat = fstat(&fd).at("read the layer", path)?;
        let plain = stat.st_mode & 0o7777 == 0o755 && (stat.st_uid, stat.st_gid) == (0, 0);
        let own_xattrs = nsrs_base::tree::xattrs(&fd, b".").at("read the layer", path)?;
        if !plain || !own_xattrs.is_empty() {
            changes.push(DirectoryFix { path: path.clone(), stat, below: lower.path.clone() });
        }
    }
    Ok(changes)
}

/// The layer below, and in it the directory, that the one of this path in a layer above is merged with.
fn merged_with<'a>(path: &str, below: &'a [UnpackedLayer]) -> Option<(&'a UnpackedLayer, OwnedFd)> {
    for lower in below.iter().rev() {
        match open_in(&lower.path, path) {
            Ok(fd) => return Some((lower, fd)),
            // Hidden there, or something else: it is new.
            Err(Errno::NOTDIR | Errno::LOOP) => return None,
            Err(_) if is_hidden(&lower.path, path) => return None,
            Err(_) => {}
        }
    }
    None
}

/// May this layer look other in a stack than it is?
pub(super) fn needs_a_look(layer: &UnpackedLayer, is_lowest: bool) -> bool {
    let unpacked = &layer.record.unpacked;
    !unpacked.whiteouts.is_empty() || !is_lowest && !unpacked.implicit.is_empty()
}

/// The directories of a layer whose whiteouts hide nothing: nothing below is merged with them.
fn useless_whiteouts<'a>(layer: &'a UnpackedLayer, below: &[UnpackedLayer]) -> Vec<&'a str> {
    let is_useless =
        |path: &&str| open_in(&layer.path, path).is_ok_and(|own| is_opaque(&own)) || merged_with(path, below).is_none();
    layer.record.unpacked.whiteouts.iter().map(String::as_str).filter(is_useless).collect()
}

/// Removes the whiteouts of a directory. One that the archive named by way of a link is not known by this path, and kept.
fn remove_whiteouts(root: &Path, path: &str) -> Result<()> {
    let step = "stack the layers";
    let Ok(fd) = open_in(root, path) else { return Ok(()) };
    for entry in Dir::read_from(&fd).at(step, path)? {
        let entry = entry.at(step, path)?;
        let name = entry.file_name();
        let stat = statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW).at(step, path)?;
        if is_whiteout(&fd, name.to_bytes(), &stat) {
            unlinkat(&fd, name, AtFlags::empty()).at(step, path)?;
        }
    }
    Ok(())
}

/// Is there a whiteout at the path, or at a directory on the way?
fn is_hidden(root: &Path, path: &str) -> bool {
    let Ok(root) = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) else {
        return false;
    };
    path.match_indices('/').map(|(end, _)| end).chain([path.len()]).any(|end| {
        statat(&root, &path[..end], AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| is_whiteout(&root, &path.as_bytes()[..end], &stat))
    })
}

impl DirectoryFix {
    fn make(&self, root: &Path) -> Result<()> {
        let step = "stack the layers";
        let fd = open_in(root, &self.path).at(step, &self.path)?;
        let (uid, gid) = (Uid::from_raw(self.stat.st_uid), Gid::from_raw(self.stat.st_gid));
        fchown(&fd, Some(uid), Some(gid)).at(step, &self.path)?;
        fchmod(&fd, Mode::from_raw_mode(self.stat.st_mode & 0o7777)).at(step, &self.path)?;
        let below = open_in(&self.below, &self.path).at(step, &self.path)?;
        for (name, value) in nsrs_base::tree::xattrs(&below, b".").at(step, &self.path)? {
            match fsetxattr(&fd, &name[..], &value, XattrFlags::empty()) {
                Err(Errno::OPNOTSUPP | Errno::PERM) => {}
                other => other.at(step, &self.path)?,
            }
        }
        Ok(())
    }
}
