//! Images written as one archive: an OCI layout, and in it, unless only that is wanted, what `docker load` looks for.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};

use serde_json::{Value, json};

use super::MOST_INDEX;
use crate::content::{IndexEntry, Store};
use crate::digest::{Digest, Hasher};
use crate::reference::Reference;
use crate::stored_image::StoredImage;
use crate::tar::write::Writer;
use crate::tar::{EntryKind, TarEntry};
use nsrs_base::error::{At, Code, Error, Result};

/// What is in the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An OCI layout with docker's `manifest.json`: what docker writes since version 25, and every tool reads.
    Docker,
    /// An OCI layout and nothing else.
    Oci,
}

/// Writes images. Every blob is held against its digest while it is written.
///
/// # Errors
/// A part of an image isn't there or was altered (what was written until then is to be thrown away); the output refuses.
pub fn save(store: &Store, images: &[IndexEntry], format: Format, output: impl Write) -> Result<()> {
    let opened: Vec<StoredImage> = images.iter().map(|image| store.image(image)).collect::<Result<_>>()?;
    let mut blobs = BTreeSet::new();
    for image in images {
        blobs.extend(store.blobs_of(&image.digest()?)?);
    }
    let mut archive = Writer::new(output);
    for directory in ["blobs/", "blobs/sha256/"] {
        put(&mut archive, &entry(EntryKind::Directory, directory, 0))?;
    }
    let mut buffer = vec![0; 256 << 10];
    for digest in &blobs {
        copy(store, digest, &mut archive, &mut buffer)?;
    }
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": images.iter().map(described).collect::<Result<Vec<_>>>()?,
    });
    file(&mut archive, "index.json", &index)?;
    if format == Format::Docker {
        file(&mut archive, "manifest.json", &docker(&opened)?)?;
    }
    file(&mut archive, "oci-layout", &json!({ "imageLayoutVersion": "1.0.0" }))?;
    archive.finish().map(drop).at("write the archive", "")
}

/// The entry of an image in the archive's index, without what concerns only this store.
fn described(image: &IndexEntry) -> Result<Value> {
    let mut value = serde_json::to_value(&image.descriptor)
        .map_err(|error| Error::new(Code::ImageInvalid, "write the archive", error.to_string()))?;
    let mut annotations = json!({});
    if let Some(name) = saved_name(image) {
        // The full name is containerd's, docker and podman read it; the specification's may be a tag only.
        annotations["io.containerd.image.name"] = name.as_str().into();
        annotations["org.opencontainers.image.ref.name"] = name.as_str().into();
    }
    value["annotations"] = annotations;
    Ok(value)
}

/// The name that the archive gives. A pull by the digest of an index has a digest in its name that nobody can hold against
/// the archive, where only the image is.
fn saved_name(image: &IndexEntry) -> Option<String> {
    let name = image.name.clone()?;
    match (Reference::parse(&name), image.digest()) {
        (Ok(reference), Ok(own)) if reference.digest().is_some() => Some(reference.with_digest(own).to_string()),
        _ => Some(name),
    }
}

/// Docker's list of images: several names of one image are one entry.
fn docker(images: &[StoredImage]) -> Result<Value> {
    let mut list: Vec<Value> = Vec::new();
    let mut known: BTreeMap<Digest, usize> = BTreeMap::new();
    for image in images {
        let place = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
        let at = match known.get(&image.digest) {
            Some(at) => *at,
            None => {
                let layers: Vec<String> = image.layers()?.iter().map(place).collect();
                list.push(json!({ "Config": place(&image.id), "RepoTags": [], "Layers": layers }));
                known.insert(image.digest, list.len() - 1);
                list.len() - 1
            }
        };
        let name = image.name.as_deref().and_then(|name| Reference::parse(name).ok());
        // Docker's names are tags; a digest doesn't name an image there.
        if let (Some(name), Some(tags)) =
            (name.filter(|name| name.digest().is_none()), list[at]["RepoTags"].as_array_mut())
        {
            tags.push(name.familiar().into());
        }
    }
    Ok(list.into())
}

fn entry(kind: EntryKind, path: &str, size: u64) -> TarEntry {
    TarEntry {
        path: path.into(),
        link: Vec::new(),
        kind,
        mode: if kind == EntryKind::Directory { 0o755 } else { 0o644 },
        uid: 0,
        gid: 0,
        mtime: (0, 0),
        device: (0, 0),
        size,
        sparse: None,
        xattrs: Vec::new(),
    }
}

fn put<W: Write>(archive: &mut Writer<W>, entry: &TarEntry) -> Result<()> {
    archive.entry(entry).at("write the archive", String::from_utf8_lossy(&entry.path))
}

fn file<W: Write>(archive: &mut Writer<W>, path: &str, value: &Value) -> Result<()> {
    let text = value.to_string();
    if text.len() as u64 > MOST_INDEX {
        return Err(Error::new(
            Code::InvalidArgument,
            "write the archive",
            "these are too many images for one archive",
        ));
    }
    put(archive, &entry(EntryKind::File, path, text.len() as u64))?;
    archive.data(text.as_bytes()).at("write the archive", path)
}

fn copy<W: Write>(store: &Store, digest: &Digest, archive: &mut Writer<W>, buffer: &mut [u8]) -> Result<()> {
    let step = "write the archive";
    let mut blob = store.open_blob(digest)?;
    let size = blob.metadata().at(step, digest)?.len();
    put(archive, &entry(EntryKind::File, &format!("blobs/sha256/{}", digest.hex()), size))?;
    let mut hasher = Hasher::default();
    let mut left = size;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let count = blob.read(&mut buffer[..most]).at("read the blob", digest)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        archive.data(&buffer[..count]).at(step, digest)?;
        left -= count as u64;
    }
    let found = hasher.finish();
    match found == *digest {
        true => Ok(()),
        false => {
            store.discard(digest, &blob);
            Err(crate::content::altered(digest, found))
        }
    }
}

impl Store {
    /// The blobs that a manifest or an index needs and that are there, itself included. Of an index, platforms that
    /// aren't in the store are left out.
    ///
    /// # Errors
    /// A manifest can't be read; a layer or a configuration of one that is there isn't there.
    pub fn blobs_of(&self, digest: &Digest) -> Result<BTreeSet<Digest>> {
        let mut found = BTreeSet::new();
        let mut next = vec![(*digest, 0)];
        while let Some((digest, depth)) = next.pop() {
            if !found.insert(digest) || depth > 4 {
                continue;
            }
            let value: Value = serde_json::from_slice(&self.read(&digest)?).unwrap_or_default();
            let digests = |list: &Value| -> Result<Vec<Digest>> {
                let list = list.as_array().into_iter().flatten();
                list.map(|entry| entry["digest"].as_str().unwrap_or_default().parse()).collect()
            };
            next.extend(
                digests(&value["manifests"])?
                    .into_iter()
                    .filter(|digest| self.has(digest))
                    .map(|digest| (digest, depth + 1)),
            );
            let mut parts = digests(&value["layers"])?;
            if let Some(config) = value["config"]["digest"].as_str() {
                parts.push(config.parse()?);
            }
            if let Some(missing) = parts.iter().find(|digest| !self.has(digest)) {
                return self.open_blob(missing).map(|_| BTreeSet::new());
            }
            found.extend(parts);
        }
        Ok(found)
    }
}
