//! A process that enters a container, as the caller asked for it.

use serde::Deserialize;

use super::ProcessSpec;

/// A process in a container that runs. What is left at its default is as the container's own command has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
#[serde(default, rename_all = "camelCase")]
pub struct EnterSpec {
    /// The command and its arguments; the command is looked up in the container's `PATH`.
    pub args: Vec<String>,
    /// Environment, user, working directory and terminal.
    #[serde(flatten)]
    pub process: ProcessSpec,
    /// Numbers of passed file descriptors in the command, in the order in which they are passed, after 0, 1, 2.
    pub preserve_fds: Vec<i32>,
    /// Which of standard output (1) and error (2) are pipes that were made for the command: they are given to its user, who can
    /// then open them by name (/dev/stdout).
    pub own_pipes: Vec<i32>,
}
