//! The process tree: launch, watch, signal, undo.
//!
//! [`engine::Engine`] owns the containers and knows nothing of who asked for them. [`attached`] serves a Node process over
//! a socket; [`foreground`] is a container in the caller's own terminal.

pub mod attached;
mod bring_up;
mod container;
pub mod engine;
pub mod foreground;
mod ground;
mod hear_out;
mod image_names;
mod launch;
mod name_files;
mod outlet;
mod preflight;
pub mod protocol;
mod relay;
mod signals;
mod spare;
pub mod token;
mod user_network;
