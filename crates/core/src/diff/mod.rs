//! The changes of a command to the tree it ran on: listed from the writable layers of its overlays, kept in a directory,
//! and applied to the real tree.

mod access_guard;
pub mod apply;
mod attributes;
mod baseline;
mod change;
pub mod changes_directory;
pub mod collect;
mod compare;
mod conflict;
mod depth;
mod file_stamp;
mod hard_links;
mod listing;
mod lower_directory;
pub mod record;
pub mod record_file;
mod replace;
#[cfg(test)]
mod tests;
pub mod text;
mod walk;

pub use change::{Change, ChangeKind, Difference, Hazard, describe_hazards};
pub use depth::raise_descriptor_limit;
pub use listing::Listing;
pub use record::{ChangesRecord, UpperLayer};
