//! The events that are reported.

use serde::Serialize;

/// What is happening to a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// Queued, or another process is fetching the same blob.
    Waiting,
    /// Being downloaded, and unpacked at the same time.
    Downloading,
    /// Being uploaded.
    Uploading,
    /// Downloaded: being compared with digest and size of the manifest, and written to disk.
    Verifying,
    /// Downloaded, and still being unpacked.
    Unpacking,
    /// Skipped: it existed already.
    Present,
    /// Fetched or sent completely.
    Done,
}

impl Phase {
    /// Whether this is the last phase of a layer.
    #[must_use]
    pub fn is_end(self) -> bool {
        matches!(self, Phase::Present | Phase::Done)
    }
}

/// What is reported.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "camelCase")]
pub enum ProgressEvent {
    /// An image is being looked up in a registry.
    Resolving {
        /// Full name of the image.
        reference: String,
    },
    /// Progress of a layer.
    Layer {
        /// Digest of the layer's blob.
        digest: String,
        /// What is happening to it.
        phase: Phase,
        /// Bytes of this phase so far.
        current: u64,
        /// Bytes of this phase in all; 0 if unknown.
        total: u64,
    },
    /// Something the user should know, which isn't an error.
    Warning {
        /// The warning, without a prefix.
        message: String,
    },
    /// A request is repeated after a failure.
    Retry {
        /// What failed, and why.
        message: String,
        /// Milliseconds until then.
        wait: u64,
    },
    /// The image is complete.
    Done {
        /// Full name of the image.
        reference: String,
        /// Digest of the manifest.
        digest: String,
        /// How long everything took.
        milliseconds: u64,
        /// Nothing was fetched: the image existed already.
        present: bool,
    },
}
