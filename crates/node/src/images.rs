//! What can be asked of the store of images without a process of its own.

use napi_derive::napi;
use nsrs_core::host::Host;
use nsrs_core::image::ready::find_image;
use nsrs_core::spec::Spec;

use crate::events::ErrorRecord;

/// Why a container can't run from an image of the store just now: it isn't there (`ERR_NSRS_IMAGE_NOT_FOUND`), or has to be
/// unpacked first (`ERR_NSRS_IMAGE_NOT_READY`). Nothing if it can.
#[napi]
pub fn image_obstacle(image: String, platform: Option<String>) -> Option<ErrorRecord> {
    let spec = Spec { image: Some(image), platform, ..Spec::default() };
    find_image(&spec, &Host::probe()).err().map(ErrorRecord::from)
}
