//! An image of the store, ready to be the root of a container: what a start needs of it, and nothing that takes long.

use std::fs::File;
use std::path::Path;

use super::config::{ImageConfig, chain_ids};
use super::content::{Layer, Store, unknown};
use super::digest::Digest;
use super::identity;
use super::open::Image;
use super::platform::Platform;
use super::stack::needs_a_look;
use crate::facts::{ImageConfiguration, ImageFacts};
use nsrs_base::error::{Code, Error, Result};
use nsrs_base::host::Host;

/// An image whose layers are unpacked and held.
#[derive(Debug)]
pub struct Ready {
    /// What a plan is made of.
    pub facts: ImageFacts,
    /// The locks that keep the layers: as long as one of these is open, nothing removes its layer.
    pub leases: Vec<File>,
}

impl Store {
    /// Finds the image that a user means, and holds its layers. Looks into no layer, makes nothing.
    ///
    /// # Errors
    /// There is no such image, or none for this platform (`ImageNotFound`); it is there, and a layer is still to be
    /// unpacked or stacked, which [`Store::prepare`] does (`ImageNotReady`).
    pub fn ready(&self, text: &str, platform: Option<&Platform>) -> Result<Ready> {
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
            config: configuration(&image.config),
        };
        Ok(Ready { facts, leases: layers.into_iter().map(Layer::into_lease).collect() })
    }

    /// Unpacks and stacks what isn't yet, so that [`Store::ready`] finds it. Where layers belong to subordinate ids, by
    /// their root.
    ///
    /// # Errors
    /// Those of [`Store::unpack_image`] and [`Store::stack`].
    pub fn prepare(
        &self,
        image: &Image,
        options: &super::unpack::Options,
        told: Option<&super::stack::LayerTold>,
    ) -> Result<()> {
        self.unpack_image(image, options, told)?;
        self.stack(&image.config.diff_ids).map(drop)
    }

    /// As [`Store::stack`], of what was stacked before.
    fn stacked(&self, diff_ids: &[Digest]) -> Result<Vec<Layer>> {
        let not_ready = |why: &str| {
            Error::new(Code::ImageNotReady, "use the image", why).hint("pull it again, or load it: that unpacks it")
        };
        let mut layers: Vec<Layer> = Vec::new();
        for (diff_id, chain_id) in diff_ids.iter().zip(chain_ids(diff_ids)) {
            let layer = self.layer(diff_id)?.ok_or_else(|| not_ready("a layer of it isn't unpacked"))?;
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
                return Err(not_ready("its layers aren't stacked"));
            }
        }
        Ok(layers)
    }

    fn relative(&self, path: &Path) -> String {
        path.strip_prefix(self.root()).unwrap_or(path).display().to_string()
    }
}

fn configuration(config: &ImageConfig) -> ImageConfiguration {
    let owned = |list: Vec<&str>| list.into_iter().map(str::to_owned).collect();
    ImageConfiguration {
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
/// Those of [`Store::ready`]; the platform is not one.
pub fn find_image(text: &str, platform: Option<&str>, host: &Host) -> Result<Ready> {
    let platform = platform.map(Platform::parse).transpose()?;
    let directory = identity::outside(host)?.directory;
    if !directory.exists() {
        return Err(unknown(text, &[]));
    }
    Store::look(&directory)?.ready(text, platform.as_ref())
}
