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
    /// Being sent to the registry.
    Uploading,
    /// Downloaded: being compared with digest and size of the manifest, and written to disk.
    Verifying,
    /// Downloaded, and still being unpacked.
    Unpacking,
    /// Skipped: the store, or the registry of a push, has it already.
    Present,
    /// In the store, or in the registry of a push.
    Done,
}

impl Phase {
    /// Whether this is the last phase of a layer.
    #[must_use]
    pub fn is_end(self) -> bool {
        matches!(self, Phase::Present | Phase::Done)
    }
}

/// One event of a call. In JSON mode its serialized form is one line on standard error.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "camelCase")]
pub enum ProgressEvent {
    /// An image is being looked up in a registry.
    Resolving {
        /// Full name of the image.
        reference: String,
    },
    /// A layer has entered a phase, or got on in it.
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
        /// What failed, and why, in one line.
        message: String,
        /// How long until the next attempt, in milliseconds.
        wait: u64,
    },
    /// The image is complete in the store, or in the registry of a push.
    Done {
        /// Full name of the image.
        reference: String,
        /// Digest of the image's manifest, or of the index that the name stands for.
        digest: String,
        /// The time from the call until now, in milliseconds.
        milliseconds: u64,
        /// Nothing was fetched: the image existed already.
        present: bool,
    },
}
