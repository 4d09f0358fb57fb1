//! Is what a registry has under a name an image that can be used here?

use std::collections::HashMap;

use nsrs_base::error::{Code, Error, Result};
use nsrs_store::config::ImageConfig;
use nsrs_store::content::MOST_METADATA;
use nsrs_store::platform::Platform;
use nsrs_store::reference::Reference;

use crate::registry::failure::tame;
use crate::registry::manifest::Image;

/// Is it an image of a root file system? Artifacts of other kinds are kept in registries too: charts, signatures, programs.
///
/// # Errors
/// Its configuration or a layer is of another type, or the configuration too long to be one.
pub fn types(image: &Image, reference: &Reference) -> Result<()> {
    let unknown = |what: &str, media_type: &str| {
        let why = format!("its {what} is of type {}: it is no image of a root file system", tame(media_type));
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
        return invalid(reference, format!("a configuration of {} bytes is none", image.config.size));
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

/// Do the manifest and the configuration speak of the same layers?
///
/// # Errors
/// They don't, or one of them contradicts itself.
pub fn layers(config: &ImageConfig, image: &Image, reference: &Reference) -> Result<()> {
    if config.diff_ids.len() != image.layers.len() {
        let (layers, ids) = (image.layers.len(), config.diff_ids.len());
        return invalid(reference, format!("the manifest has {layers} layers, the configuration {ids}"));
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

/// Is it for this platform? Returned is a warning where it is not, and that platform is this machine's, which nobody asked for.
///
/// # Errors
/// It is not for the platform that is wanted.
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
