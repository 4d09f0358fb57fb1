//! Who asks: a Node process over a socket, or a caller in whose terminal one container runs.

pub mod attached;
pub mod foreground;
