//! System calls that nix and rustix don't wrap. The only `unsafe` code of the crate; each site says why it holds.

#![allow(unsafe_code)]

pub mod child;
pub mod child_ends;
mod clone;
pub mod fds;
pub mod file;
pub mod helper;
pub mod message;
pub mod mount;
pub mod namespace;
pub mod note;
pub mod poll;
pub mod process;
pub mod sealed;
pub mod seccomp;
pub mod shared_memory;
pub mod signal;
pub mod wait;
