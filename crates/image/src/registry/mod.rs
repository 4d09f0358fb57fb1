//! The client of OCI registries (distribution specification 1.1, docker's registry API v2).
//!
//! It stands on reqwest and not on the crate oci-client. That crate makes its HTTP client itself and hands out neither
//! the client nor the answer's headers, and these we need: `Retry-After` (429, 503), a policy for redirects, a bound on
//! what is read into memory, and a say in where credentials go. It sends them to whatever realm a challenge names, and
//! takes a failed exchange of tokens for "anonymous". What would be left of it are types, which are few.
//!
//! Requests run on a small runtime of their own; everything public here is synchronous, because what comes after the
//! network (hashing, inflating, writing) is threads and system calls.
//!
//! The parts:
//! - [`options`] says how registries are reached: mirrors, plain HTTP, authorities, the file of credentials;
//! - [`endpoint`] is one server that may be asked, the registry or a mirror of it;
//! - [`client`] knows hosts, authorities and the runtime; [`connection`] says why a connection failed,
//!   and [`proxy`] which proxy it was to use;
//! - [`http`] sends one request: scheme, redirects, authorisation ([`auth`], [`credentials`]), repetition ([`retry`]);
//! - [`manifest`], [`blob`] and [`upload`] are what is fetched from a registry and sent to it.

pub mod auth;
pub mod blob;
pub mod client;
pub mod connection;
pub mod credentials;
pub mod endpoint;
pub mod failure;
pub mod helper;
pub mod http;
pub mod loopback;
pub mod manifest;
pub mod options;
pub mod proxy;
pub mod retry;
pub mod tls;
pub mod untrusted;
pub mod upload;
mod verify;

pub use client::Client;
pub use options::RegistryOptions;
