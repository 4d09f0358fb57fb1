//! Images: references to them, the store that keeps them, and their way from an archive to a root file system.
//!
//! Synchronous and without a network: the registry's client stands in the crate above (`nsrs-image`).

pub mod archive;
pub mod compression;
pub mod config;
pub mod config_values;
pub mod content;
pub mod digest;
pub mod fuzz;
pub mod image_facts;
pub mod image_lookups;
pub mod limits;
pub mod platform;
pub mod prepared_image;
pub mod reference;
pub mod stack;
pub mod store_access;
pub mod stored_image;
pub mod tar;
pub mod time;
pub mod unpack;
pub mod writable_layer;
mod zstd_window;
