//! Blobs that aren't what their digest says any more: altered or cut short on disk.
//!
//! Who finds one removes it: it is of no use to anybody, and the next pull or load sees that it isn't there, without
//! reading all the others, and brings it again.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;

use rustix::fs::FlockOperation;

use super::{IngestStart, Store, altered, lock};
use crate::digest::{Digest, Hasher};
use nsrs_base::error::{At, Code, Result};

impl Store {
    /// Reads a whole blob and holds it against its digest. One that is damaged is removed.
    ///
    /// # Errors
    /// It is damaged (`ImageInvalid`), isn't there (`ImageNotFound`) or can't be read.
    pub fn check(&self, digest: &Digest) -> Result<()> {
        let mut blob = self.open_blob(digest)?;
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; 1 << 20];
        loop {
            match blob.read(&mut buffer).at("read the blob", digest)? {
                0 => break,
                count => hasher.update(&buffer[..count]),
            }
        }
        let found = hasher.finish();
        if found == *digest {
            return Ok(());
        }
        self.discard(digest, &blob);
        Err(altered(digest, found))
    }

    /// As [`Store::ingest`], for who has the whole blob at hand: one that is there and damaged is written again, and so
    /// is what a broken download left.
    ///
    /// # Errors
    /// The file can't be made; the blob that is there can't be read.
    pub fn ingest_anew(&self, digest: &Digest) -> Result<IngestStart> {
        loop {
            match self.ingest(digest)? {
                IngestStart::Write(mut ingest) => {
                    ingest.restart()?;
                    return Ok(IngestStart::Write(ingest));
                }
                other => match self.check(digest) {
                    Err(error)
                        if matches!(error.code, Code::ImageInvalid | Code::ImageNotFound) && !self.has(digest) => {}
                    checked => return checked.map(|()| other),
                },
            }
        }
    }

    /// Removes a damaged blob, if it is still this file. Where that can't be done, it stays.
    pub(crate) fn discard(&self, digest: &Digest, damaged: &File) {
        // Whoever brings a blob holds this lock until it has its place.
        let path = self.path(&format!("ingest/{}", digest.hex()));
        let Ok(bringing) = self.lock_file(&format!("ingest/{}", digest.hex())) else { return };
        if lock(&bringing, FlockOperation::NonBlockingLockExclusive).is_err() {
            return;
        }
        let identity = |meta: fs::Metadata| (meta.dev(), meta.ino());
        let place = self.blob_path(digest);
        if let (Ok(own), Ok(there)) = (damaged.metadata(), fs::metadata(&place))
            && identity(own) == identity(there)
        {
            let _ = fs::remove_file(place);
        }
        if bringing.metadata().is_ok_and(|meta| meta.len() == 0) {
            let _ = fs::remove_file(path);
        }
    }
}
