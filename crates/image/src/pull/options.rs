//! How an image is pulled.

use nsrs_store::platform::Platform;
use nsrs_store::unpack;

/// How many layers are fetched at the same time by default.
pub const JOBS: usize = 3;

/// The options of a pull.
#[derive(Clone, Debug)]
pub struct PullOptions {
    /// The platform; `None`: that of this machine.
    pub platform: Option<Platform>,
    /// How many layers are fetched at the same time.
    pub jobs: usize,
    /// Whether the layers are unpacked as they arrive. Default true.
    pub unpack: bool,
    /// How they are unpacked, if they are.
    pub unpacking: unpack::UnpackOptions,
}

impl Default for PullOptions {
    fn default() -> PullOptions {
        PullOptions { platform: None, jobs: JOBS, unpack: true, unpacking: unpack::UnpackOptions::default() }
    }
}
