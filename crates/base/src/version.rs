//! The version of this build.

/// The two sides of a conversation must be of one build: they travel in one package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
