//! An image of the store that is ready to be the root of a container. Looking it up is quick: it is part of every start.

use std::fs::File;
use std::path::Path;

use super::config::{ImageConfig, chain_ids};
use super::content::{Store, UnpackedLayer, unknown};
use super::digest::Digest;
use super::platform::Platform;
use super::stack::needs_a_look;
use super::store_access::StoreAccess;
use super::stored_image::StoredImage;
use crate::image_facts::{ImageDefaults, ImageFacts};
use nsrs_base::error::{Code, Error, Result};
use nsrs_base::host::Host;

/// An image whose layers are unpacked and held.
#[derive(Debug)]
pub struct PreparedImage {
    /// What a plan needs to know of it.
    pub facts: ImageFacts,
    /// The lock of each layer: nothing removes the layer as long as it is open.
    pub leases: Vec<File>,
}

impl Store {
    /// Finds the image that a user means, and locks its layers. Neither reads a layer nor makes one.
    ///
    /// # Errors
    /// There is no such image, or none for this platform (`ImageNotFound`); a layer still has to be unpacked or stacked,
    /// which [`Store::prepare`] does (`ImageNotReady`).
    pub fn prepared_image(&self, text: &str, platform: Option<&Platform>) -> Result<PreparedImage> {
        let image = self.image_for(&self.find(text)?, platform)?;
        let layers = self.stacked(&image.config.diff_ids).map_err(|error| match error.code {
            Code::ImageNotReady => Error { subject: text.to_owned(), ..error },
            _ => error,
        })?;
        let facts = ImageFacts {
            name: image.name.clone().unwrap_or_else(|| text.to_owned()),
            digest: image.digest.to_string(),
            id: image.id.to_string(),
            platform: image.config.platform().to_string(),
            store: self.root().display().to_string(),
            layers: layers.iter().map(|layer| self.relative(&layer.path)).collect(),
            user_xattrs: layers.iter().any(|layer| layer.record.unpacked.user_xattrs),
            xattr_whiteouts: layers.iter().any(|layer| layer.record.unpacked.xattr_whiteouts),
            config: image_defaults(&image.config),
        };
        Ok(PreparedImage { facts, leases: layers.into_iter().map(UnpackedLayer::into_lease).collect() })
    }

    /// Unpacks and stacks what is missing, so that [`Store::prepared_image`] finds it. Where layers belong to subordinate ids,
    /// their root has to call it.
    ///
    /// # Errors
    /// Those of [`Store::unpack_image`] and [`Store::stack`].
    pub fn prepare(
        &self,
        image: &StoredImage,
        options: &super::unpack::UnpackOptions,
        told: Option<&super::stack::LayerProgress>,
    ) -> Result<()> {
        self.unpack_image(image, options, told)?;
        self.stack(&image.config.diff_ids).map(drop)
    }

    /// As [`Store::stack`], from what was stacked before.
    fn stacked(&self, diff_ids: &[Digest]) -> Result<Vec<UnpackedLayer>> {
        let not_ready = |why: &str| {
            Error::new(Code::ImageNotReady, "use the image", why).hint("pull or load it again, which unpacks it")
        };
        let mut layers: Vec<UnpackedLayer> = Vec::new();
        for (diff_id, chain_id) in diff_ids.iter().zip(chain_ids(diff_ids)) {
            let layer = self.layer(diff_id)?.ok_or_else(|| not_ready("not all layers are unpacked"))?;
            if layer.record.unpacked.opaque {
                layers.clear();
            }
            if !needs_a_look(&layer, layers.is_empty()) {
                layers.push(layer);
            } else if let Some(sibling) = self.sibling(&chain_id)? {
                layers.push(sibling);
            } else if self.fits_as_it_is(&chain_id) {
                layers.push(layer);
            } else {
                return Err(not_ready("its layers aren't stacked yet"));
            }
        }
        Ok(layers)
    }

    fn relative(&self, path: &Path) -> String {
        path.strip_prefix(self.root()).unwrap_or(path).display().to_string()
    }
}

fn image_defaults(config: &ImageConfig) -> ImageDefaults {
    let owned = |list: Vec<&str>| list.into_iter().map(str::to_owned).collect();
    ImageDefaults {
        env: config.env().to_vec(),
        entrypoint: config.entrypoint().to_vec(),
        cmd: config.cmd().to_vec(),
        user: config.user().to_owned(),
        workdir: config.working_dir().to_owned(),
        volumes: owned(config.volumes()),
        ports: owned(config.exposed_ports()),
        stop_signal: config.stop_signal().to_owned(),
        labels: config.labels().into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
    }
}

/// Finds the image that a container is to run on, in the caller's store.
///
/// # Errors
/// Those of [`Store::prepared_image`]; the platform is malformed.
pub fn find_image(text: &str, platform: Option<&str>, host: &Host) -> Result<PreparedImage> {
    let platform = platform.map(Platform::parse).transpose()?;
    let directory = StoreAccess::of_caller(host)?.directory;
    if !directory.exists() {
        return Err(unknown(text, &[]));
    }
    Store::look(&directory)?.prepared_image(text, platform.as_ref())
}
