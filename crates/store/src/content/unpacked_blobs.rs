//! Which blob unpacks to which layer: noted when all of the blob was seen to (`packed/HEX`, the diff id in it).
//!
//! An image names blobs and diff ids in two lists, and whoever made it may have put together what doesn't belong together.
//! That the store has both says nothing of that. What the note says is of digests alone, so it never becomes untrue.

use std::fs::{self, DirBuilder};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use super::Store;
use super::layout::PACKED;
use crate::digest::Digest;
use crate::stored_image::StoredImage;
use crate::unpack::{self, UnpackOptions};
use nsrs_base::error::{At, Result};

impl Store {
    /// Is this blob known to be a packed form of the layer of this diff id, and is that layer unpacked?
    ///
    /// # Errors
    /// What is there of the layer can't be read.
    pub fn has_unpacked(&self, blob: &Digest, diff_id: &Digest) -> Result<bool> {
        Ok(self.is_noted(blob, diff_id) && self.layer(diff_id)?.is_some())
    }

    fn is_noted(&self, blob: &Digest, diff_id: &Digest) -> bool {
        fs::read_to_string(self.pair_path(blob)).is_ok_and(|noted| noted == diff_id.to_string())
    }

    /// Holds the layers of an image against the diff ids of its configuration, and unpacks none.
    ///
    /// # Errors
    /// Those of [`unpack::verify`]; a layer isn't there.
    pub fn verify_layers(&self, image: &StoredImage, options: &UnpackOptions) -> Result<()> {
        for (blob, diff_id) in image.layers()?.iter().zip(&image.config.diff_ids) {
            if !self.is_noted(blob, diff_id) {
                let options = UnpackOptions { diff_id: Some(*diff_id), ..options.clone() };
                unpack::verify(self.open_blob(blob)?, &options)?;
                self.note_pair(blob, diff_id)?;
            }
        }
        Ok(())
    }

    /// Unpacks a blob, unless its layer is there. What is read must have this diff id in either case: the verdict on an
    /// image is the same whatever other images have brought.
    ///
    /// # Errors
    /// Those of [`Store::unpack_layer`]; the note can't be written.
    pub fn unpack_blob(
        &self,
        blob: &Digest,
        diff_id: &Digest,
        mut input: impl Read + Send,
        options: &UnpackOptions,
    ) -> Result<()> {
        let mut options = options.clone();
        options.diff_id = Some(*diff_id);
        let mut was_read = false;
        self.make_layer(&diff_id.hex(), |directory| {
            was_read = true;
            unpack::unpack(&mut input, directory, &options)
        })?;
        if !was_read {
            unpack::verify(input, &options)?;
        }
        self.note_pair(blob, diff_id)
    }

    pub(crate) fn note_pair(&self, blob: &Digest, diff_id: &Digest) -> Result<()> {
        let (path, step) = (self.pair_path(blob), "note the unpacked layer");
        let note = || match fs::write(&path, diff_id.to_string()) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                match DirBuilder::new().mode(0o700).create(self.root.join(PACKED)) {
                    Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
                    _ => fs::write(&path, diff_id.to_string()),
                }
            }
            other => other,
        };
        match note() {
            // It saves work the next time, and nothing else.
            Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => Ok(()),
            other => other.at(step, path.display()).map_err(super::with_room),
        }
    }

    fn pair_path(&self, blob: &Digest) -> PathBuf {
        self.root.join(PACKED).join(blob.hex())
    }
}
