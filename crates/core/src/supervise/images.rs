//! Images that containers run on: found once, their layers held once for all containers on one.

use std::collections::HashMap;
use std::fs::File;
use std::rc::{Rc, Weak};

use nsrs_base::error::Result;
use nsrs_base::host::Host;
use nsrs_store::image_facts::ImageFacts;
use nsrs_store::image_lookups::{ImageLookups, ImageQuery};
use nsrs_store::prepared_image::{PreparedImage, find_image};

use crate::spec::Spec;

/// Layers of an image that are held, by all containers on it together.
pub type Leases = Rc<Vec<File>>;

/// Images that were found, and the layers that running containers hold.
#[derive(Debug)]
pub struct ImageCache {
    /// The layers, by the digest of their image.
    leases: HashMap<String, Weak<Vec<File>>>,
    /// An entry counts only while its layers are held: otherwise they may have been removed.
    found: ImageLookups<(ImageFacts, Weak<Vec<File>>)>,
}

impl ImageCache {
    /// A cache that knows no image yet.
    #[must_use]
    pub fn empty() -> ImageCache {
        ImageCache { leases: HashMap::new(), found: ImageLookups::empty() }
    }

    /// Finds the image that a container is to run on, if it is to run on one, and holds its layers.
    ///
    /// # Errors
    /// Fails as [`find_image`] does.
    pub fn find(&mut self, spec: &Spec, host: &Host) -> Result<Option<(ImageFacts, Leases)>> {
        let Some(image) = spec.root.image() else { return Ok(None) };
        let platform = spec.image.platform.as_deref();
        let key = ImageQuery::of(image, platform, host)?;
        if let Some((facts, leases)) = self.found.get(&key)
            && let Some(leases) = leases.upgrade()
        {
            return Ok(Some((facts.clone(), leases)));
        }
        let PreparedImage { facts, leases } = find_image(image, platform, host)?;
        let leases = self.share(&facts, leases);
        self.found.put(key, (facts.clone(), Leases::downgrade(&leases)));
        Ok(Some((facts, leases)))
    }

    /// Returns the locks that are already held on the layers of this image, or keeps the new ones: each lock takes a
    /// descriptor, and there may be many containers on one image.
    fn share(&mut self, facts: &ImageFacts, leases: Vec<File>) -> Leases {
        self.leases.retain(|_, leases| leases.strong_count() > 0);
        if let Some(held) = self.leases.get(&facts.digest).and_then(Weak::upgrade) {
            return held;
        }
        let leases = Leases::new(leases);
        self.leases.insert(facts.digest.clone(), Leases::downgrade(&leases));
        leases
    }
}
