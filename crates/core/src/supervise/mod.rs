//! The process tree: launch, watch, signal, undo.
//!
//! [`engine::Engine`] owns the containers and knows nothing of who asked for them. [`front`] does: a Node process over a
//! socket, or a container in the caller's own terminal.

mod container;
pub mod engine;
mod entrance;
pub mod front;
mod images;
mod io;
mod janitor;
mod name_files;
mod pool;
mod preflight;
pub mod protocol;
pub mod resolve;
mod run_directory;
mod user_network;
