//! What can be asked of the store of images without a process of its own.

use std::sync::{LazyLock, Mutex, PoisonError};

use napi_derive::napi;
use nsrs_base::error::{Act, Result};
use nsrs_base::host::Host;
use nsrs_store::image_lookups::{ImageLookups, ImageQuery};
use nsrs_store::prepared_image::find_image;

use crate::events::ErrorRecord;

/// Images from which a container could run: whoever starts many needs to look into the store for the first only.
static READY: Mutex<ImageLookups<()>> = Mutex::new(ImageLookups::empty());
static HOST: LazyLock<Host> = LazyLock::new(Host::probe);

/// Why a container can't run from an image of the store just now: it isn't there (`ERR_NSRS_IMAGE_NOT_FOUND`), or has to be
/// unpacked first (`ERR_NSRS_IMAGE_NOT_READY`). Nothing if it can.
#[napi]
pub fn image_obstacle(image: String, platform: Option<String>) -> Option<ErrorRecord> {
    look(&image, platform.as_deref()).err().map(|error| error.during(Act::Image).into())
}

fn look(image: &str, platform: Option<&str>) -> Result<()> {
    let ready = || READY.lock().unwrap_or_else(PoisonError::into_inner);
    let query = ImageQuery::of(image, platform, &HOST)?;
    if ready().get(&query).is_none() {
        find_image(image, platform, &HOST)?;
        ready().put(query, ());
    }
    Ok(())
}
