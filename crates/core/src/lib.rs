//! Everything nsrs asks of the Linux kernel. No Node, no command line: those stand on top of this crate.
//!
//! A run is data before it is action: a [`spec::Spec`] says what the caller asked, [`plan::resolve`] turns it and the
//! facts of the host into a [`plan::Plan`] or into every problem found, and [`supervise`] walks the plan.

pub mod diff;
pub mod doctor;
pub mod init;
pub mod net;
pub mod plan;
pub mod spec;
pub mod state;
pub mod steps;
pub mod supervise;
