//! Images of the store: found by what a user calls them, and read.

use oci_spec::image::{Descriptor, ImageManifest};
use serde_json::Value;

use super::config::ImageConfig;
use super::content::{IndexEntry, Store, claimed_digest, digest_of, unknown};
use super::digest::Digest;
use super::platform::Platform;
use super::reference::Reference;
use nsrs_base::calls::{LOAD, PULL, REMOVE};
use nsrs_base::error::{Code, Error, Result};

/// An image with everything that describes it.
#[derive(Clone, Debug)]
pub struct StoredImage {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// What the name leads to: its manifest, or an index with manifests of several platforms.
    pub descriptor: Descriptor,
    /// The digest of its manifest.
    pub digest: Digest,
    /// The digest of its configuration: its id.
    pub id: Digest,
    /// The manifest of its platform.
    pub manifest: ImageManifest,
    /// Its configuration, which `id` is the digest of.
    pub config: ImageConfig,
}

impl StoredImage {
    /// The size of its layers as they are packed, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.manifest.layers().iter().map(Descriptor::size).sum()
    }

    /// The error for a part of it that is damaged or isn't there.
    pub(crate) fn lacks(&self, error: Error) -> Error {
        lacks(self.name.as_deref(), &self.digest, error)
    }

    /// The blobs of its layers, lowest first.
    ///
    /// # Errors
    /// A digest is of an algorithm that isn't known.
    pub fn layers(&self) -> Result<Vec<Digest>> {
        self.manifest.layers().iter().map(digest_of).collect()
    }
}

/// The error for a part of an image that is damaged or isn't there: which image it is, and what helps.
fn lacks(name: Option<&str>, digest: &Digest, error: Error) -> Error {
    if !matches!(error.code, Code::ImageInvalid | Code::ImageNotFound) {
        return error;
    }
    let name = name.map(|name| Reference::parse(name).map_or_else(|_| name.to_owned(), |name| name.familiar()));
    let hint = match &name {
        Some(name) => format!("get it again: {}, or {LOAD} of its archive", PULL.of(name)),
        None => format!("load its archive again ({LOAD}), or pull it by a name"),
    };
    Error::new(error.code, "read the image", error.line()).on(name.unwrap_or_else(|| digest.to_string())).hint(hint)
}

/// The processor of this machine by Go's name.
#[must_use]
pub fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}

/// Finds the image of a digest under `NAME@DIGEST`, which is `text`.
fn find_digest(
    text: &str,
    reference: Option<&Reference>,
    digest: &Digest,
    images: &[IndexEntry],
) -> Result<IndexEntry> {
    let full = reference.map(ToString::to_string);
    let has_name =
        |image: &&IndexEntry| image.name.as_deref().is_some_and(|name| name == text || full.as_deref() == Some(name));
    let of_repository = |image: &&IndexEntry| match (&image.name, reference) {
        (None, _) => true,
        (Some(name), Some(reference)) => Reference::parse(name).is_ok_and(|other| other.name() == reference.name()),
        (Some(_), None) => false,
    };
    let has_digest = |image: &&IndexEntry| image.has_digest(digest);
    let named = images.iter().find(has_name);
    if let Some(image) = named.filter(has_digest).or_else(|| images.iter().filter(of_repository).find(has_digest)) {
        return Ok(image.clone());
    }
    match named {
        None => Err(unknown(text, images)),
        Some(image) => {
            let own = image.descriptor.digest();
            Err(Error::new(Code::ImageInvalid, "find the image", format!("what has this name has the digest {own}"))
                .on(text)
                .hint(format!("remove it ({}), and get the image again", REMOVE.of(own.as_ref()))))
        }
    }
}

impl Store {
    /// Finds the image that a user means: by its name, as it is or completed by docker's rules, by its id or digest, or by
    /// the beginning of one. `NAME@DIGEST` and `sha256:…` are digests, whatever names there are.
    ///
    /// # Errors
    /// There is no such image (`ImageNotFound`, with the nearest names), there are several, or the name is invalid. The
    /// image that has the name of a digest has another one (`ImageInvalid`).
    pub fn find(&self, text: &str) -> Result<IndexEntry> {
        let images = self.images()?;
        let parsed = Reference::parse(text);
        let reference = parsed.as_ref().ok();
        let full = reference.map(ToString::to_string);
        if let Some(digest) = claimed_digest(text) {
            return find_digest(text, reference, &digest, &images);
        }
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        let is_hex = (1..=64).contains(&hex.len()) && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        // A repository of the name sha256 is called library/sha256.
        if !is_hex || hex == text {
            let named = |name: &str| images.iter().find(|image| image.name.as_deref() == Some(name));
            if let Some(image) = named(text).or_else(|| named(full.as_deref()?)) {
                return Ok(image.clone());
            }
        }
        if !is_hex {
            return Err(parsed.map_or_else(|error| error, |name| unknown(&name.to_string(), &images)));
        }
        let mut found: Vec<(Digest, &IndexEntry)> = Vec::new();
        for image in &images {
            // A damaged one has only the digest by which it is listed.
            let (id, digest) = match (self.image(image), image.digest()) {
                (Ok(opened), _) => (opened.id, opened.digest),
                (Err(_), Ok(listed)) => (listed, listed),
                (Err(_), Err(_)) => continue,
            };
            if [id, digest].iter().any(|digest| digest.hex().starts_with(hex)) {
                found.push((id, image));
            }
        }
        let ids: std::collections::BTreeSet<Digest> = found.iter().map(|(id, _)| *id).collect();
        match (ids.len(), found.first()) {
            (1, Some((_, image))) => Ok((*image).clone()),
            (0, _) | (_, None) => Err(unknown(full.as_deref().unwrap_or(text), &images)),
            (count, _) => Err(Error::new(Code::InvalidArgument, "find the image", format!("{count} ids begin so"))
                .on(text)
                .hint("give more digits of the id, or a name")),
        }
    }

    /// Reads an image. Of several platforms it's that of this machine, or the one that is there.
    ///
    /// # Errors
    /// A part is missing (`ImageNotFound`) or is not part of an image (`ImageInvalid`).
    pub fn image(&self, named: &IndexEntry) -> Result<StoredImage> {
        self.image_for(named, None)
    }

    /// Reads the image for a platform; `None`: as [`Store::image`].
    ///
    /// # Errors
    /// Those of [`Store::image`]; there is no image for this platform (`ImageNotFound`, with the platforms there are).
    pub fn image_for(&self, named: &IndexEntry, platform: Option<&Platform>) -> Result<StoredImage> {
        let step = "read the image";
        let mut digest = named.digest()?;
        // What an index says of an image takes precedence over the image's configuration.
        let mut said =
            named.descriptor.platform().as_ref().map(|own| Platform::of(own.os(), own.architecture(), own.variant()));
        for _nested in 0..4 {
            let lacks = |error: Error| lacks(named.name.as_deref(), &digest, error);
            let bytes = self.read(&digest).map_err(lacks)?;
            let bad = |why: String| Error::new(Code::ImageInvalid, step, why).on(digest.to_string());
            let value: Value = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
            if value["manifests"].is_array() {
                digest = self.choose(named, &value, platform)?;
                said = platform.cloned();
                continue;
            }
            let manifest: ImageManifest = serde_json::from_value(value).map_err(|error| bad(error.to_string()))?;
            let id = digest_of(manifest.config())?;
            let config = self.image_config(&manifest).map_err(lacks)?;
            if let Some(platform) = platform {
                let own = said.unwrap_or_else(|| config.platform());
                platform.choose(named.name.as_deref().unwrap_or_default(), &[(Some(own), ())])?;
            }
            let (name, descriptor) = (named.name.clone(), named.descriptor.clone());
            return Ok(StoredImage { name, descriptor, digest, id, manifest, config });
        }
        Err(Error::new(Code::ImageInvalid, step, "indexes are nested too deep").on(digest.to_string()))
    }

    /// Reads the configuration that a manifest names.
    fn image_config(&self, manifest: &ImageManifest) -> Result<ImageConfig> {
        let digest = digest_of(manifest.config())?;
        let config = ImageConfig::parse(&self.read(&digest)?).map_err(|error| error.on(digest.to_string()))?;
        let (layers, ids) = (manifest.layers().len(), config.diff_ids.len());
        if layers != ids {
            let why = format!("{layers} layers in the manifest, but {ids} in the configuration");
            return Err(Error::new(Code::ImageInvalid, "read the image", why).on(digest.to_string()));
        }
        Ok(config)
    }

    fn choose(&self, named: &IndexEntry, index: &Value, platform: Option<&Platform>) -> Result<Digest> {
        let there: Vec<(Option<Platform>, Digest)> = index["manifests"]
            .as_array()
            .into_iter()
            .flatten()
            // Attestations and the like say that they are for no platform.
            .filter(|entry| entry["platform"]["os"] != "unknown")
            .filter_map(|entry| {
                let digest: Digest = entry["digest"].as_str()?.parse().ok()?;
                let platform = serde_json::from_value(entry["platform"].clone()).ok();
                self.has(&digest).then_some((platform, digest))
            })
            .collect();
        let name = named.name.as_deref().unwrap_or_default();
        let chosen = platform.unwrap_or(&Platform::host()).choose(name, &there).copied();
        match (chosen, there.first()) {
            (Err(_), Some((_, digest))) if platform.is_none() => Ok(*digest),
            (chosen, _) => chosen,
        }
    }
}
