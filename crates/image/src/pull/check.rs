//! Checks whether what a registry has under a name is an image that can be used here.

use std::collections::HashMap;

use nsrs_base::error::{Code, Error, Result};
use nsrs_store::config::ImageConfig;
use nsrs_store::content::MOST_METADATA;
use nsrs_store::platform::Platform;
use nsrs_store::reference::Reference;

use crate::registry::manifest::ImageManifest;
use crate::registry::untrusted::tame;

/// Checks that it is an image of a root file system. Registries also keep other artifacts: charts, signatures, programs.
///
/// # Errors
/// The configuration or a layer has another type, or the configuration is too large.
pub fn types(image: &ImageManifest, reference: &Reference) -> Result<()> {
    let unknown = |what: &str, media_type: &str| {
        let why = format!("not an image of a root file system: its {what} has the type {}", tame(media_type));
        Err(Error::new(Code::Unsupported, "pull", why).on(reference.familiar()))
    };
    let config = image.config.media_type.as_str();
    if !matches!(
        config,
        "" | "application/vnd.oci.image.config.v1+json" | "application/vnd.docker.container.image.v1+json"
    ) {
        return unknown("configuration", config);
    }
    if image.config.size > MOST_METADATA {
        return invalid(reference, format!("the configuration is too large ({} bytes)", image.config.size));
    }
    for layer in &image.layers {
        let name = layer.media_type.as_str();
        let layers = ["application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs."];
        if !name.is_empty() && (!layers.iter().any(|start| name.starts_with(start)) || name.contains("encrypted")) {
            return unknown("layer", name);
        }
    }
    Ok(())
}

/// Checks that the manifest and the configuration name the same layers.
///
/// # Errors
/// They don't, or one of them contradicts itself.
pub fn layers(config: &ImageConfig, image: &ImageManifest, reference: &Reference) -> Result<()> {
    if config.diff_ids.len() != image.layers.len() {
        let (layers, ids) = (image.layers.len(), config.diff_ids.len());
        return invalid(reference, format!("{layers} layers in the manifest, but {ids} in the configuration"));
    }
    let mut seen = HashMap::new();
    for (layer, diff_id) in image.layers.iter().zip(&config.diff_ids) {
        let said = (layer.size, diff_id);
        if *seen.entry(layer.digest).or_insert(said) != said {
            let digest = layer.digest;
            return invalid(reference, format!("its layer {digest} is listed with different sizes or diff ids"));
        }
    }
    Ok(())
}

/// Checks that it is for this platform. Returns a warning if it isn't, but the user has not asked for the platform.
///
/// # Errors
/// It isn't for the platform that the user asked for.
pub fn platform(
    config: &ImageConfig,
    reference: &Reference,
    platform: &Platform,
    is_wanted: bool,
) -> Result<Option<String>> {
    let own = config.platform();
    if own.arch.is_empty() || platform.distance(&own).is_some() {
        return Ok(None);
    }
    if is_wanted {
        return platform.choose(&reference.familiar(), &[(Some(own), ())]).map(|()| None);
    }
    Ok(Some(format!("{} is for {own}, and this machine is {platform}", reference.familiar())))
}

fn invalid(reference: &Reference, why: String) -> Result<()> {
    Err(Error::new(Code::ImageInvalid, "pull", why).on(reference.familiar()))
}
