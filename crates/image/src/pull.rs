//! `pull`: an image from a registry into the store, each layer unpacked while it comes in.

mod check;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use nsrs_base::error::{Code, Error, Result};
use nsrs_store::config::ImageConfig;
use nsrs_store::content::{Begin, Ingest, Store, is_full};
use nsrs_store::digest::Digest;
use nsrs_store::platform::Platform;
use nsrs_store::reference::Reference;
use nsrs_store::unpack;
use oci_spec::image::Descriptor;
use serde_json::json;

use crate::progress::{Event, Phase};
use crate::registry::Client;
use crate::registry::blob::Wanted;
use crate::registry::manifest::{self, Image};

/// The annotation of a name in the store that keeps what the registry has under it: the digest of the index, where the
/// image was chosen from one. By it the next pull sees in one request that nothing has changed.
pub const INDEX: &str = "dev.nsrs.index.digest";
/// The annotation that keeps the platform that was asked for.
pub const PLATFORM: &str = "dev.nsrs.platform";
/// How many layers are fetched at the same time.
pub const JOBS: usize = 3;

/// How an image is pulled.
#[derive(Clone, Debug)]
pub struct Options {
    /// For which platform; by default that of this machine.
    pub platform: Option<Platform>,
    /// How many layers at the same time.
    pub jobs: usize,
    /// Are the layers unpacked too?
    pub unpack: bool,
    /// How they are unpacked.
    pub unpacking: unpack::Options,
}

impl Default for Options {
    fn default() -> Options {
        Options { platform: None, jobs: JOBS, unpack: true, unpacking: unpack::Options::default() }
    }
}

/// What was pulled.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The digest that the registry has under the name: of an index, or of the image.
    pub digest: Digest,
    /// The digest of the image's manifest.
    pub image: Digest,
    /// All of it was there already.
    pub present: bool,
}

/// Pulls an image: its manifest, its configuration and its layers, under its name in the store.
///
/// # Errors
/// It isn't there, or not for this platform; it can't be reached; something was altered; the disk refuses. What came
/// whole stays for the next pull, and so does a part of a blob.
pub fn pull(store: &Store, client: &Client, reference: &Reference, options: &Options) -> Result<Pulled> {
    let start = Instant::now();
    let progress = client.progress();
    progress.tell(&Event::Resolving { reference: reference.to_string() });
    let _guard = store.guard()?;
    let platform = options.platform.clone().unwrap_or_else(Platform::host);
    let pulled = match unchanged(store, client, reference, options, &platform)? {
        Some(pulled) => pulled,
        None => fetch(store, client, reference, options, &platform)?,
    };
    progress.tell(&Event::Done {
        reference: reference.to_string(),
        digest: pulled.digest.to_string(),
        milliseconds: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
        present: pulled.present,
    });
    Ok(pulled)
}

/// Is what the registry has under this name in the store, all of it? One HEAD request, and none for a digest.
fn unchanged(
    store: &Store,
    client: &Client,
    reference: &Reference,
    options: &Options,
    platform: &Platform,
) -> Result<Option<Pulled>> {
    let Ok(descriptor) = store.resolve(&reference.to_string()) else { return Ok(None) };
    let note = |name: &str| descriptor.annotations().as_ref().and_then(|notes| notes.get(name)).cloned();
    let image: Digest = descriptor.digest().as_ref().parse()?;
    let known = note(INDEX).and_then(|text| text.parse().ok()).unwrap_or(image);
    if note(PLATFORM) != Some(platform.to_string()) || !complete(store, &image, options)? {
        return Ok(None);
    }
    let now = match reference.digest() {
        Some(digest) => Some(digest),
        None => client.head(reference)?,
    };
    Ok((now == Some(known)).then_some(Pulled { digest: known, image, present: true }))
}

/// Are all blobs of this image there, and all layers unpacked?
fn complete(store: &Store, digest: &Digest, options: &Options) -> Result<bool> {
    if !store.has(digest) {
        return Ok(false);
    }
    // What is damaged is fetched again.
    let Ok(document) = store.read(digest) else { return Ok(false) };
    let Ok((_, manifest::Kind::Image(image))) = manifest::read(&document, None, &digest.to_string()) else {
        return Ok(false);
    };
    let there = |blob: &manifest::Descriptor| store.size(&blob.digest) == Some(blob.size);
    if !there(&image.config) || !image.layers.iter().all(there) {
        return Ok(false);
    }
    let Ok(config) = store.read(&image.config.digest).and_then(|bytes| ImageConfig::parse(&bytes)) else {
        return Ok(false);
    };
    if !options.unpack {
        return Ok(true);
    }
    for (layer, diff_id) in image.layers.iter().zip(&config.diff_ids) {
        if !store.has_unpacked(&layer.digest, diff_id)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn fetch(
    store: &Store,
    client: &Client,
    reference: &Reference,
    options: &Options,
    platform: &Platform,
) -> Result<Pulled> {
    let resolved = client.resolve(reference, platform)?;
    let (document, image) = (resolved.document(), resolved.image()?);
    check::types(image, reference)?;
    let fetcher =
        Fetcher { store, client, reference, options, config: image.config.digest, stop: AtomicBool::new(false) };
    fetcher.blob(&image.config, None)?;
    let config = ImageConfig::parse(&store.read(&image.config.digest)?)
        .map_err(|error| error.on(format!("{} of {}", image.config.digest, reference.familiar())))?;
    check::layers(&config, image, reference)?;
    // What an index says of its images was looked at already.
    if resolved.chosen.is_none() {
        let is_wanted = options.platform.is_some();
        if let Some(warning) = check::platform(&config, reference, platform, is_wanted)? {
            client.progress().warn(warning);
        }
    }
    fetcher.layers(image, &config.diff_ids).inspect_err(|error| {
        if is_full(error) {
            fetcher.give_room_back(image);
        }
    })?;
    store.add(&document.bytes)?;
    let mut notes = json!({ PLATFORM: platform.to_string() });
    if resolved.chosen.is_some() {
        notes[INDEX] = resolved.top.digest.to_string().into();
    }
    // Configurations often name no variant, and some another processor than the index that the image was chosen from.
    let own = resolved.platform.clone().unwrap_or_else(|| config.platform());
    let mut descriptor = json!({
        "mediaType": document.media_type,
        "digest": document.digest.to_string(),
        "size": document.bytes.len(),
        "platform": { "os": own.os, "architecture": own.arch },
        "annotations": notes,
    });
    if !own.variant.is_empty() {
        descriptor["platform"]["variant"] = own.variant.into();
    }
    let descriptor: Descriptor = serde_json::from_value(descriptor)
        .map_err(|error| Error::new(Code::ImageInvalid, "name the image", error.to_string()))?;
    store.tag(&reference.to_string(), &descriptor)?;
    Ok(Pulled { digest: resolved.top.digest, image: document.digest, present: false })
}

/// Fetches what an image consists of.
struct Fetcher<'a> {
    store: &'a Store,
    client: &'a Client,
    reference: &'a Reference,
    options: &'a Options,
    config: Digest,
    /// Something failed: the others need not go on.
    stop: AtomicBool,
}

/// Why a blob did not come in.
enum Broken {
    /// All of it came, and it is not what its digest says.
    Altered(Error),
    /// Anything else.
    Other(Error),
}

impl Fetcher<'_> {
    fn tell(&self, blob: &manifest::Descriptor, phase: Phase, current: u64) {
        // A configuration is not worth a line.
        if blob.digest == self.config {
            return;
        }
        let digest = blob.digest.to_string();
        self.client.progress().tell(&Event::Layer { digest, phase, current, total: blob.size });
    }

    /// All layers, several at the same time, the lowest first. The first failure stops the others.
    fn layers(&self, image: &Image, diff_ids: &[Digest]) -> Result<()> {
        let mut seen = HashSet::new();
        let both = image.layers.iter().zip(diff_ids);
        let work: Vec<_> = both.filter(|(layer, _)| seen.insert(layer.digest)).collect();
        for (layer, _) in &work {
            self.tell(layer, Phase::Waiting, 0);
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

    /// Removes the parts of layers that nobody brings any more: resuming them is worth less than the room they take.
    fn give_room_back(&self, image: &Image) {
        for layer in &image.layers {
            if let Ok(Begin::Write(part)) = self.store.try_ingest(&layer.digest) {
                part.discard();
            }
        }
    }

    /// One layer: fetched if it isn't there, unpacked if it isn't, and held against its diff id unless that was done.
    fn layer(&self, layer: &manifest::Descriptor, diff_id: &Digest) -> Result<()> {
        let here = !self.options.unpack || self.store.has_unpacked(&layer.digest, diff_id)?;
        let mut fetched = self.blob(layer, (!here).then_some(diff_id))?;
        while !here && !fetched {
            self.tell(layer, Phase::Unpacking, 0);
            let options = self.unpacking(layer, &Arc::new(AtomicBool::new(true)));
            let unpacked = self
                .store
                .open_blob(&layer.digest)
                .and_then(|file| self.store.unpack_blob(&layer.digest, diff_id, file, &options));
            match unpacked {
                Ok(()) => break,
                // Where the blob is damaged on disk it is gone now, and fetched again.
                Err(error) if error.code == Code::ImageInvalid && self.store.check(&layer.digest).is_err() => {
                    if self.store.has(&layer.digest) {
                        return Err(error);
                    }
                    fetched = self.blob(layer, Some(diff_id))?;
                }
                Err(error) => return Err(error),
            }
        }
        self.tell(layer, if here && !fetched { Phase::Present } else { Phase::Done }, layer.size);
        Ok(())
    }

    /// How a layer is unpacked: bytes are told when this is set, for while they come in that is what is told of.
    fn unpacking(&self, layer: &manifest::Descriptor, is_told: &Arc<AtomicBool>) -> unpack::Options {
        let (progress, is_told) = (self.client.progress().clone(), is_told.clone());
        let (digest, total) = (layer.digest.to_string(), layer.size);
        let tell = move |current| {
            if is_told.load(Ordering::Relaxed) {
                progress.tell(&Event::Layer { digest: digest.clone(), phase: Phase::Unpacking, current, total });
            }
        };
        unpack::Options { tell: Some(unpack::Tell(Arc::new(tell))), ..self.options.unpacking.clone() }
    }

    /// Fetches a blob, and unpacks it at the same time if a diff id is given. Says whether anything was to be fetched.
    ///
    /// What came altered is fetched once more, as a whole and from the registry itself: a part that an earlier pull left,
    /// or a mirror, may be to blame.
    fn blob(&self, blob: &manifest::Descriptor, diff_id: Option<&Digest>) -> Result<bool> {
        let mut mirrors = true;
        // One of another size is damaged, and removed by this; a configuration is read anyway.
        if self.store.size(&blob.digest).is_some_and(|size| size != blob.size || blob.digest == self.config) {
            let _ = self.store.check(&blob.digest);
        }
        if let Some(size) = self.store.size(&blob.digest).filter(|size| *size != blob.size) {
            let why = format!("the manifest says {} bytes, and it has {size}", blob.size);
            return Err(Error::new(Code::ImageInvalid, "pull", why).on(format!(
                "{} of {}",
                blob.digest,
                self.reference.familiar()
            )));
        }
        loop {
            let ingest = match self.store.try_ingest(&blob.digest)? {
                Begin::Busy => {
                    self.tell(blob, Phase::Waiting, 0);
                    self.store.ingest(&blob.digest)?
                }
                begin => begin,
            };
            let ingest = match ingest {
                Begin::Write(ingest) => ingest,
                Begin::Present | Begin::Busy => return Ok(false),
            };
            let result = match diff_id {
                Some(diff_id) => self.receive_and_unpack(blob, ingest, mirrors, diff_id),
                None => self.receive(blob, ingest, mirrors, &AtomicBool::new(false)),
            };
            match result {
                Ok(()) => return Ok(true),
                Err(Broken::Altered(error)) if mirrors => {
                    self.client.progress().warn(format!("{error}; it is fetched once more"));
                    mirrors = false;
                }
                Err(Broken::Altered(error) | Broken::Other(error)) => return Err(error),
            }
        }
    }

    /// Brings a blob into the store. `give_up` ends it.
    fn receive(
        &self,
        blob: &manifest::Descriptor,
        mut ingest: Ingest,
        mirrors: bool,
        give_up: &AtomicBool,
    ) -> Result<(), Broken> {
        let wanted = Wanted { reference: self.reference.clone(), digest: blob.digest, size: blob.size, mirrors };
        let told = |at: u64| {
            self.tell(blob, Phase::Downloading, at);
            match self.stop.load(Ordering::Relaxed) || give_up.load(Ordering::Relaxed) {
                true => Err(Error::new(Code::SetupFailed, "pull", "another part failed").on(blob.digest.to_string())),
                false => Ok(()),
            }
        };
        self.client.download(&wanted, &mut ingest, told).map_err(Broken::Other)?;
        self.tell(blob, Phase::Verifying, blob.size);
        match ingest.commit() {
            Ok(_) => Ok(()),
            Err(error) if error.code == Code::ImageInvalid => Err(Broken::Altered(error)),
            Err(error) => Err(Broken::Other(error)),
        }
    }

    /// The same, and unpacks what comes in while it does.
    fn receive_and_unpack(
        &self,
        blob: &manifest::Descriptor,
        ingest: Ingest,
        mirrors: bool,
        diff_id: &Digest,
    ) -> Result<(), Broken> {
        let input = ingest.follow();
        let give_up = AtomicBool::new(false);
        let is_told = Arc::new(AtomicBool::new(false));
        let options = self.unpacking(blob, &is_told);
        std::thread::scope(|scope| {
            let unpacking = scope.spawn(|| {
                let result = self.store.unpack_blob(&blob.digest, diff_id, input, &options);
                // Where the archive makes no sense, its digest must tell whether it came as it was sent.
                let final_ = result.as_ref().is_err_and(|error| error.code != Code::ImageInvalid);
                give_up.store(final_, Ordering::Relaxed);
                result
            });
            let received = self.receive(blob, ingest, mirrors, &give_up);
            if received.is_ok() && !unpacking.is_finished() {
                self.tell(blob, Phase::Unpacking, 0);
                is_told.store(true, Ordering::Relaxed);
            }
            let unpacked = unpacking.join().unwrap_or_else(|_| {
                let why = "the unpacker broke down";
                Err(Error::new(Code::SetupFailed, "unpack the layer", why).on(diff_id.to_string()))
            });
            match (received, unpacked) {
                // The download was given up because of the unpacker, or the unpacker broke because of the download.
                (Err(_), Err(error)) if give_up.load(Ordering::Relaxed) => Err(Broken::Other(error)),
                (Err(broken), _) => Err(broken),
                (Ok(()), unpacked) => unpacked.map_err(Broken::Other),
            }
        })
    }
}
