//! Bytes between the caller and the command, where they are not simply handed on.

pub mod output_pump;
pub mod relay;
