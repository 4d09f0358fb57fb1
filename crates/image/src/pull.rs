//! `pull`: fetches an image from a registry into the store, and unpacks each layer while it comes in.

mod check;
mod fetcher;
mod options;

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use nsrs_base::error::{Code, Error, Result};
use nsrs_store::config::ImageConfig;
use nsrs_store::content::{INDEX_DIGEST, Store, is_full};
use nsrs_store::digest::Digest;
use nsrs_store::platform::Platform;
use nsrs_store::reference::Reference;
use oci_spec::image::Descriptor;
use serde_json::json;

use crate::progress::ProgressEvent;
use crate::registry::Client;
use crate::registry::manifest;
use fetcher::Fetcher;

pub use options::{JOBS, PullOptions};

/// The annotation with the platform that was asked for.
pub const PLATFORM: &str = "dev.nsrs.platform";
/// What a finished pull has put into the store.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The digest that the registry has under the name: of an index, or of the image.
    pub digest: Digest,
    /// The digest of the image's manifest.
    pub image: Digest,
    /// The image existed already, completely.
    pub present: bool,
}

/// Pulls an image: its manifest, its configuration and its layers, under its name in the store.
///
/// # Errors
/// The image doesn't exist, or not for this platform; the registry can't be reached; a blob was altered; the disk refuses.
/// What was fetched so far stays for the next pull, including a part of a blob.
pub fn pull(store: &Store, client: &Client, reference: &Reference, options: &PullOptions) -> Result<Pulled> {
    let start = Instant::now();
    let progress = client.progress();
    progress.report(&ProgressEvent::Resolving { reference: reference.to_string() });
    let _guard = store.guard()?;
    let platform = options.platform.clone().unwrap_or_else(Platform::host);
    let pulled = match unchanged(store, client, reference, options, &platform)? {
        Some(pulled) => pulled,
        None => fetch(store, client, reference, options, &platform)?,
    };
    progress.report(&ProgressEvent::Done {
        reference: reference.to_string(),
        digest: pulled.digest.to_string(),
        milliseconds: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
        present: pulled.present,
    });
    Ok(pulled)
}

/// Returns what is in the store, if it is complete and what the registry has now. Takes one HEAD request; none for a digest.
fn unchanged(
    store: &Store,
    client: &Client,
    reference: &Reference,
    options: &PullOptions,
    platform: &Platform,
) -> Result<Option<Pulled>> {
    let Ok(descriptor) = store.resolve(&reference.to_string()) else { return Ok(None) };
    let note = |name: &str| descriptor.annotations().as_ref().and_then(|notes| notes.get(name)).cloned();
    let image: Digest = descriptor.digest().as_ref().parse()?;
    let known = note(INDEX_DIGEST).and_then(|text| text.parse().ok()).unwrap_or(image);
    if note(PLATFORM) != Some(platform.to_string()) || !complete(store, &image, options)? {
        return Ok(None);
    }
    let now = match reference.digest() {
        Some(digest) => Some(digest),
        None => client.head(reference)?,
    };
    Ok((now == Some(known)).then_some(Pulled { digest: known, image, present: true }))
}

/// Whether all blobs of this image are in the store, and all layers unpacked.
fn complete(store: &Store, digest: &Digest, options: &PullOptions) -> Result<bool> {
    if !store.has(digest) {
        return Ok(false);
    }
    // A damaged one is fetched again.
    let Ok(document) = store.read(digest) else { return Ok(false) };
    let Ok((_, manifest::ManifestKind::Image(image))) = manifest::read(&document, None, &digest.to_string()) else {
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
    options: &PullOptions,
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
    // In an index it was chosen by its platform.
    if resolved.chosen.is_none() {
        let is_wanted = options.platform.is_some();
        if let Some(warning) = check::platform(&config, reference, platform, is_wanted)? {
            client.progress().warn(warning);
        }
    }
    fetcher.layers(image, &config.diff_ids).inspect_err(|error| {
        if is_full(error) {
            fetcher.discard_partial_layers(image);
        }
    })?;
    store.add(&document.bytes)?;
    let mut notes = json!({ PLATFORM: platform.to_string() });
    if resolved.chosen.is_some() {
        notes[INDEX_DIGEST] = resolved.top.digest.to_string().into();
    }
    // Configurations often lack the variant, and some name another processor than the index.
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
