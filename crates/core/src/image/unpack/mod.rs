//! Layers on their way from an archive into a directory.

use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use crate::error::{Code, Error, Result};

/// How a layer is unpacked.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The diff id that it must have.
    pub diff_id: Option<Digest>,
}

/// What was unpacked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unpacked {
    /// The digest of the uncompressed archive.
    pub diff_id: Digest,
    /// Its size.
    pub size: u64,
}

/// Unpacks.
///
/// # Errors
/// Not yet.
pub fn unpack(_input: impl Read + Send, _directory: &Path, _options: &Options) -> Result<Unpacked> {
    Err(Error::new(Code::Unsupported, "unpack", "not yet"))
}
