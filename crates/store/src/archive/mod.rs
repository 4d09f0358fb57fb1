//! Images and root file systems as archives: those of `docker save` and `docker export`, and of OCI layouts.

pub mod export;
pub mod import;
pub mod instruction;
pub mod load;
pub mod pack;
pub mod save;
#[cfg(test)]
mod tests;

/// The type of a manifest.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The type of a configuration.
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The largest list of images in an archive, in bytes.
const MOST_INDEX: u64 = 4 << 20;
/// How many images and names an archive may have, together.
const MOST_NAMES: usize = 10_000;
