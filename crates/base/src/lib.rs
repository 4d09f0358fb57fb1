//! What everything else of nsrs stands on: the error record, the kernel's calls that no library has, ids and user
//! namespaces, trees on disk, facts of the host.

pub mod calls;
pub mod error;
pub mod host;
pub mod ids;
pub mod options;
pub mod sys;
pub mod text;
pub mod tree;
pub mod version;
