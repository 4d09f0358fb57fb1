//! The names in the directory of a store; see [`super`].

pub(crate) const CONTAINERS: &str = "containers";
pub(crate) const INDEX: &str = "index.json";
pub(super) const INDEX_LOCK: &str = "index.lock";
pub(crate) const LAYERS: &str = "layers";
pub(super) const LOCK: &str = "lock";
pub(super) const OCI_LAYOUT: &str = "oci-layout";
pub(super) const PACKED: &str = "packed";
pub(super) const SETTLED: &str = "settled";
pub(crate) const STACKED: &str = "stacked";

/// All of them, and what a new disk has.
pub(super) const ALL: [&str; 12] = [
    "blobs",
    CONTAINERS,
    INDEX,
    INDEX_LOCK,
    "ingest",
    LAYERS,
    LOCK,
    "lost+found",
    OCI_LAYOUT,
    PACKED,
    SETTLED,
    STACKED,
];
