//! The Node.js addon of nsrs: converts, decides nothing.
//!
//! The structs here generate the TypeScript types. Nothing in this crate forks: the supervisor is started by
//! posix_spawn(3), and everything else is its work.

// Compiled as a test, which nobody runs, the functions that Node calls have no caller.
#![cfg_attr(test, allow(dead_code))]

mod caller;
mod connection;
mod event_loop;
mod events;
mod executable;
mod explain;
mod foreground;
mod images;
mod supervisor;
mod terminal;
