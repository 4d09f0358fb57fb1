//! What a walk through the layers finds.

use super::Change;
use super::baseline::BaselineEntry;

/// The changes of a container, and what belongs to them.
#[derive(Debug, Default)]
pub struct Listing {
    /// What the command changed, sorted by path.
    pub changes: Vec<Change>,
    /// Directories of the real tree in which an interrupted apply left its temporary file, by layer and path in it.
    pub(super) leftovers: Vec<(usize, Vec<u8>)>,
    /// The state of the real tree behind everything that the layers replace or hide.
    pub(super) baseline: Vec<BaselineEntry>,
}
