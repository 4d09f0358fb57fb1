//! `push`: an image of the store to a registry.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use nsrs_base::error::{Code, Error, Result};
use nsrs_store::content::{IndexEntry, Store};
use nsrs_store::digest::Digest;
use nsrs_store::reference::Reference;
use serde_json::Value;

use crate::pack::{pack, packed_type};
use crate::progress::{Phase, ProgressEvent};
use crate::registry::Client;
use crate::registry::manifest::{self, Descriptor, ImageManifest, ManifestKind};
use crate::registry::upload::{Push, Uploaded};

/// From how many other repositories blobs may be mounted in one push: each is one more thing a token must allow.
const MOST_SOURCES: usize = 4;

/// Pushes an image of the store to `target`; the caller holds a guard of the store. Layers that lie unpacked are packed, which
/// changes the image's digest; only several images under one index go as they are. Returns the digest of what is there now.
///
/// # Errors
/// It isn't in the store as a whole; the registry refuses, or can't be reached.
pub fn push(store: &Store, client: &Client, image: &IndexEntry, target: &Reference, jobs: usize) -> Result<Digest> {
    let start = Instant::now();
    if target.digest().is_some() {
        return Err(Error::invalid_value("name to push to", target, "give a tag: a digest can't be pushed to"));
    }
    let top = image.digest()?;
    let mut documents = documents(store, top)?;
    let known = known_places(store, target);
    let mut from: Vec<&str> = known.values().map(String::as_str).collect();
    from.sort_unstable();
    from.dedup();
    from.truncate(MOST_SOURCES);
    let push = client.push(target, &from);
    let blobs = blobs(&documents);
    let configs: HashSet<Digest> =
        documents.iter().filter_map(|document| document.image.as_ref()).map(|image| image.config.digest).collect();
    let tell = |blob: &Descriptor, phase: Phase, current: u64| {
        // A configuration is not worth a line.
        if !configs.contains(&blob.digest) {
            let digest = blob.digest.to_string();
            client.progress().report(&ProgressEvent::Layer { digest, phase, current, total: blob.size });
        }
    };
    let mount = |blob: &Descriptor| known.get(&blob.digest).map(String::as_str).filter(|place| from.contains(place));
    let packed = send(store, &push, &blobs, &mount, &tell, (jobs, documents.len() == 1))?;
    if !packed.is_empty() {
        documents[0] = documents[0].with_packed(&packed)?;
    }
    let top = documents[0].digest;
    // What an index names must be there before it.
    for document in documents.iter().rev() {
        let tag = if document.digest == top { target.tag() } else { None };
        push.manifest(&document.bytes, &document.media_type, tag)?;
    }
    client.progress().report(&ProgressEvent::Done {
        reference: target.to_string(),
        digest: top.to_string(),
        milliseconds: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
        present: false,
    });
    Ok(top)
}

struct Document {
    digest: Digest,
    bytes: Vec<u8>,
    media_type: String,
    image: Option<ImageManifest>,
}

impl Document {
    /// The same manifest with other layers in the place of these.
    fn with_packed(&self, packed: &HashMap<Digest, Descriptor>) -> Result<Document> {
        let bad = |why: String| Error::new(Code::ImageInvalid, "write the manifest", why).on(self.digest.to_string());
        let mut value: Value = serde_json::from_slice(&self.bytes).map_err(|error| bad(error.to_string()))?;
        for layer in value["layers"].as_array_mut().into_iter().flatten() {
            let digest = layer["digest"].as_str().and_then(|text| text.parse().ok());
            if let Some(packed) = digest.and_then(|digest: Digest| packed.get(&digest)) {
                layer["mediaType"] = packed.media_type.as_str().into();
                layer["digest"] = packed.digest.to_string().into();
                layer["size"] = packed.size.into();
            }
        }
        let bytes = serde_json::to_vec(&value).map_err(|error| bad(error.to_string()))?;
        let digest = Digest::of(&bytes);
        let (media_type, kind) = manifest::read(&bytes, Some(&self.media_type), &digest.to_string())?;
        let image = if let ManifestKind::Image(image) = kind { Some(image) } else { None };
        Ok(Document { digest, bytes, media_type, image })
    }
}

/// The manifest, or the index and all it names; the index first.
fn documents(store: &Store, top: Digest) -> Result<Vec<Document>> {
    let mut documents: Vec<Document> = Vec::new();
    let mut next = vec![top];
    while let Some(digest) = next.pop() {
        if documents.iter().any(|document| document.digest == digest) {
            continue;
        }
        let bytes = store.read(&digest).map_err(|error| match error.code {
            Code::ImageNotFound => {
                error.hint("the store has only a part of this image: pull or load it completely first")
            }
            _ => error,
        })?;
        let (media_type, kind) = manifest::read(&bytes, None, &digest.to_string())?;
        let image = match kind {
            ManifestKind::Image(image) => Some(image),
            ManifestKind::Index(list) => {
                next.extend(list.iter().map(|item| item.digest));
                None
            }
        };
        documents.push(Document { digest, bytes, media_type, image });
    }
    Ok(documents)
}

fn blobs(documents: &[Document]) -> Vec<Descriptor> {
    let mut blobs: Vec<Descriptor> = Vec::new();
    for image in documents.iter().filter_map(|document| document.image.as_ref()) {
        // Layers first: they are what takes time.
        for blob in image.layers.iter().chain([&image.config]) {
            if !blobs.iter().any(|other| other.digest == blob.digest) {
                blobs.push(blob.clone());
            }
        }
    }
    blobs
}

/// In which other repositories of the same registry our images have these blobs. What can't be read is not known.
fn known_places(store: &Store, target: &Reference) -> HashMap<Digest, String> {
    let mut places = HashMap::new();
    for image in store.images().unwrap_or_default() {
        let Some(reference) = image.name.as_deref().and_then(|name| Reference::parse(name).ok()) else { continue };
        if reference.registry() != target.registry() || reference.repository() == target.repository() {
            continue;
        }
        let Ok(documents) = image.digest().and_then(|digest| documents(store, digest)) else { continue };
        for blob in blobs(&documents) {
            places.entry(blob.digest).or_insert_with(|| reference.repository().to_owned());
        }
    }
    places
}

/// Sends the blobs; packs layers that are not yet, if that is wanted, and returns what became of them.
fn send<'a>(
    store: &Store,
    push: &Push<'_>,
    blobs: &[Descriptor],
    mount: &(dyn Fn(&Descriptor) -> Option<&'a str> + Sync),
    tell: &(dyn Fn(&Descriptor, Phase, u64) + Sync),
    (jobs, packs): (usize, bool),
) -> Result<HashMap<Digest, Descriptor>> {
    for blob in blobs {
        tell(blob, Phase::Waiting, 0);
    }
    let packed = Mutex::new(HashMap::new());
    let one = |blob: &Descriptor| -> Result<()> {
        let (file, sent, from) = match packed_type(&blob.media_type).filter(|_| packs) {
            Some(media_type) => {
                let (file, sent) = pack(store, blob, media_type)?;
                packed.lock().unwrap_or_else(PoisonError::into_inner).insert(blob.digest, sent.clone());
                (file, sent, None)
            }
            None => (store.open_blob(&blob.digest)?, blob.clone(), mount(blob)),
        };
        // It is reported by the digest that it has here.
        let shown = Descriptor { size: sent.size, ..blob.clone() };
        let given = push
            .blob(&sent.digest, file, from, &|count| tell(&shown, Phase::Uploading, count))
            // A registry refuses a damaged blob in words of its own.
            .map_err(|error| store.check(&blob.digest).err().unwrap_or(error))?;
        tell(&shown, if given == Uploaded::Sent { Phase::Done } else { Phase::Present }, sent.size);
        Ok(())
    };
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
    let failed_yet = || failed.lock().unwrap_or_else(PoisonError::into_inner).is_some();
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, 16).min(blobs.len()) {
            scope.spawn(|| {
                while let Some(blob) = blobs.get(next.fetch_add(1, Ordering::Relaxed))
                    && !failed_yet()
                {
                    if let Err(error) = one(blob) {
                        failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    }
                }
            });
        }
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(packed.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}
