//! Fetches the blobs of an image, and unpacks its layers while they come in.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nsrs_base::error::{Code, Error, Result};
use nsrs_store::content::{Ingest, IngestStart, Store};
use nsrs_store::digest::Digest;
use nsrs_store::reference::Reference;
use nsrs_store::unpack;

use super::options::PullOptions;
use crate::progress::{Phase, ProgressEvent};
use crate::registry::Client;
use crate::registry::blob::Wanted;
use crate::registry::manifest::{self, ImageManifest};

/// Fetches the blobs of one image.
pub(super) struct Fetcher<'a> {
    pub store: &'a Store,
    pub client: &'a Client,
    pub reference: &'a Reference,
    pub options: &'a PullOptions,
    /// The digest of the configuration.
    pub config: Digest,
    /// Something failed: the others stop.
    pub stop: AtomicBool,
}

/// Why a blob could not be fetched.
enum Broken {
    /// It was fetched completely, but has another digest.
    Altered(Error),
    /// The download, the unpacking or the disk failed.
    Other(Error),
}

impl Fetcher<'_> {
    fn report(&self, blob: &manifest::Descriptor, phase: Phase, current: u64) {
        // A configuration is small: it has no line.
        if blob.digest == self.config {
            return;
        }
        let digest = blob.digest.to_string();
        self.client.progress().report(&ProgressEvent::Layer { digest, phase, current, total: blob.size });
    }

    /// Fetches all layers, several at the same time, the lowest first. The first failure stops the others.
    pub fn layers(&self, image: &ImageManifest, diff_ids: &[Digest]) -> Result<()> {
        let mut seen = HashSet::new();
        let both = image.layers.iter().zip(diff_ids);
        let work: Vec<_> = both.filter(|(layer, _)| seen.insert(layer.digest)).collect();
        for (layer, _) in &work {
            self.report(layer, Phase::Waiting, 0);
        }
        let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
        std::thread::scope(|scope| {
            for _ in 0..self.options.jobs.clamp(1, 16).min(work.len()) {
                scope.spawn(|| {
                    while let Some((layer, diff_id)) = work.get(next.fetch_add(1, Ordering::Relaxed))
                        && !self.stop.load(Ordering::Relaxed)
                    {
                        if let Err(error) = self.layer(layer, diff_id) {
                            failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                            self.stop.store(true, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    /// Removes the incomplete layers that nobody is fetching: they take space that is needed more than the saved time.
    pub fn discard_partial_layers(&self, image: &ImageManifest) {
        for layer in &image.layers {
            if let Ok(IngestStart::Write(part)) = self.store.try_ingest(&layer.digest) {
                part.discard();
            }
        }
    }

    /// Fetches a layer and unpacks it, as far as that is needed, and verifies its diff id unless that was done before.
    fn layer(&self, layer: &manifest::Descriptor, diff_id: &Digest) -> Result<()> {
        let here = !self.options.unpack || self.store.has_unpacked(&layer.digest, diff_id)?;
        let mut fetched = self.blob(layer, (!here).then_some(diff_id))?;
        while !here && !fetched {
            self.report(layer, Phase::Unpacking, 0);
            let options = self.unpacking(layer, &Arc::new(AtomicBool::new(true)));
            let unpacked = self
                .store
                .open_blob(&layer.digest)
                .and_then(|file| self.store.unpack_blob(&layer.digest, diff_id, file, &options));
            match unpacked {
                Ok(()) => break,
                // If the blob is damaged on disk, the check has removed it: it is fetched again.
                Err(error) if error.code == Code::ImageInvalid && self.store.check(&layer.digest).is_err() => {
                    if self.store.has(&layer.digest) {
                        return Err(error);
                    }
                    fetched = self.blob(layer, Some(diff_id))?;
                }
                Err(error) => return Err(error),
            }
        }
        self.report(layer, if here && !fetched { Phase::Present } else { Phase::Done }, layer.size);
        Ok(())
    }

    /// How a layer is unpacked. Its progress is reported once `is_reported` is set: until then that of the download is.
    fn unpacking(&self, layer: &manifest::Descriptor, is_reported: &Arc<AtomicBool>) -> unpack::UnpackOptions {
        let (progress, is_reported) = (self.client.progress().clone(), is_reported.clone());
        let (digest, total) = (layer.digest.to_string(), layer.size);
        let tell = move |current| {
            if is_reported.load(Ordering::Relaxed) {
                progress.report(&ProgressEvent::Layer {
                    digest: digest.clone(),
                    phase: Phase::Unpacking,
                    current,
                    total,
                });
            }
        };
        unpack::UnpackOptions { tell: Some(unpack::ProgressCallback(Arc::new(tell))), ..self.options.unpacking.clone() }
    }

    /// Fetches a blob, and unpacks it at the same time if a diff id is given; returns `false` if it existed already.
    ///
    /// An altered one is fetched again, completely and from the registry itself: the part that an earlier pull left, or a
    /// mirror, may be the cause.
    pub fn blob(&self, blob: &manifest::Descriptor, diff_id: Option<&Digest>) -> Result<bool> {
        let mut mirrors = true;
        // The check removes a damaged blob. That of a configuration costs little.
        if self.store.size(&blob.digest).is_some_and(|size| size != blob.size || blob.digest == self.config) {
            let _ = self.store.check(&blob.digest);
        }
        if let Some(size) = self.store.size(&blob.digest).filter(|size| *size != blob.size) {
            let why = format!("it has {size} bytes, but the manifest says {}", blob.size);
            return Err(Error::new(Code::ImageInvalid, "pull", why).on(format!(
                "{} of {}",
                blob.digest,
                self.reference.familiar()
            )));
        }
        loop {
            let ingest = match self.store.try_ingest(&blob.digest)? {
                IngestStart::Busy => {
                    self.report(blob, Phase::Waiting, 0);
                    self.store.ingest(&blob.digest)?
                }
                begin => begin,
            };
            let ingest = match ingest {
                IngestStart::Write(ingest) => ingest,
                IngestStart::Present | IngestStart::Busy => return Ok(false),
            };
            let result = match diff_id {
                Some(diff_id) => self.receive_and_unpack(blob, ingest, mirrors, diff_id),
                None => self.receive(blob, ingest, mirrors, &AtomicBool::new(false)),
            };
            match result {
                Ok(()) => return Ok(true),
                Err(Broken::Altered(error)) if mirrors => {
                    self.client.progress().warn(format!("{error}; fetching it again"));
                    mirrors = false;
                }
                Err(Broken::Altered(error) | Broken::Other(error)) => return Err(error),
            }
        }
    }

    /// Downloads a blob into the store, until `give_up` is set.
    fn receive(
        &self,
        blob: &manifest::Descriptor,
        mut ingest: Ingest,
        mirrors: bool,
        give_up: &AtomicBool,
    ) -> Result<(), Broken> {
        let wanted = Wanted { reference: self.reference.clone(), digest: blob.digest, size: blob.size, mirrors };
        let told = |at: u64| {
            self.report(blob, Phase::Downloading, at);
            match self.stop.load(Ordering::Relaxed) || give_up.load(Ordering::Relaxed) {
                true => Err(Error::new(Code::SetupFailed, "pull", "another layer failed").on(blob.digest.to_string())),
                false => Ok(()),
            }
        };
        self.client.download(&wanted, &mut ingest, told).map_err(Broken::Other)?;
        self.report(blob, Phase::Verifying, blob.size);
        match ingest.commit() {
            Ok(_) => Ok(()),
            Err(error) if error.code == Code::ImageInvalid => Err(Broken::Altered(error)),
            Err(error) => Err(Broken::Other(error)),
        }
    }

    /// Downloads a blob, and unpacks it at the same time.
    fn receive_and_unpack(
        &self,
        blob: &manifest::Descriptor,
        ingest: Ingest,
        mirrors: bool,
        diff_id: &Digest,
    ) -> Result<(), Broken> {
        let input = ingest.follow();
        let give_up = AtomicBool::new(false);
        let is_reported = Arc::new(AtomicBool::new(false));
        let options = self.unpacking(blob, &is_reported);
        std::thread::scope(|scope| {
            let unpacking = scope.spawn(|| {
                let result = self.store.unpack_blob(&blob.digest, diff_id, input, &options);
                // If the archive is malformed, its digest shows whether it was altered on the way: the download goes on.
                let final_ = result.as_ref().is_err_and(|error| error.code != Code::ImageInvalid);
                give_up.store(final_, Ordering::Relaxed);
                result
            });
            let received = self.receive(blob, ingest, mirrors, &give_up);
            if received.is_ok() && !unpacking.is_finished() {
                self.report(blob, Phase::Unpacking, 0);
                is_reported.store(true, Ordering::Relaxed);
            }
            let unpacked = unpacking.join().unwrap_or_else(|_| {
                let why = "the unpacker panicked";
                Err(Error::new(Code::SetupFailed, "unpack the layer", why).on(diff_id.to_string()))
            });
            match (received, unpacked) {
                // Either may have failed because of the other: the cause is returned.
                (Err(_), Err(error)) if give_up.load(Ordering::Relaxed) => Err(Broken::Other(error)),
                (Err(broken), _) => Err(broken),
                (Ok(()), unpacked) => unpacked.map_err(Broken::Other),
            }
        })
    }
}
