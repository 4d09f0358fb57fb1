//! A process that enters a container, as the caller asked for it.

use serde::{Deserialize, Serialize};

use super::TerminalSize;

/// A process in a container that runs. What is left at its default is as the container's own command has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EnterSpec {
    /// The command and its arguments; the command is looked up in the container's `PATH`.
    pub args: Vec<String>,
    /// Variables beside those of the container; one without a value is taken away.
    pub env: Vec<(String, Option<String>)>,
    /// Working directory in the container.
    pub workdir: Option<String>,
    /// `USER[:GROUP]`, names or numbers, resolved in the container.
    pub user: Option<String>,
    /// Supplementary groups beside those of the user.
    pub groups: Vec<String>,
    /// File mode creation mask in octal.
    pub umask: Option<String>,
    /// Give the command a terminal of its own.
    pub tty: Option<TerminalSize>,
    /// Kill the process after this many milliseconds.
    pub timeout_ms: Option<u64>,
    /// Numbers under which the passed file descriptors appear in the command, in the order they are passed, after 0, 1, 2.
    pub preserve_fds: Vec<i32>,
}
