//! Images: references to them, the store that keeps them, and their way from an archive to a root file system.
//!
//! Synchronous and without a network: the registry's client stands in the crate above (`nsrs-image`).

pub mod archive;
pub mod compression;
pub mod config;
pub mod content;
pub mod digest;
pub mod facts;
pub mod feed;
pub mod identity;
pub mod memo;
pub mod open;
pub mod platform;
pub mod ready;
pub mod reference;
pub mod stack;
pub mod tar;
pub mod time;
pub mod unpack;
pub mod values;
pub mod writable;
mod zstd_window;
