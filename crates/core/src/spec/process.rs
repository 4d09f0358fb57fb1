//! How a process is started: a container's first one, and one that enters.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct TerminalSize {
    /// Width in columns, 1 to 65535.
    pub cols: u16,
    /// Height in rows, 1 to 65535.
    pub rows: u16,
}

/// How a process is started. Of a process that enters, what is left out is as the container's own command has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
#[serde(default, rename_all = "camelCase")]
pub struct ProcessSpec {
    /// Variables of the command. A name with the value `undefined` takes the caller's; where a process enters, that
    /// variable of the container is taken away.
    #[cfg_attr(test, ts(type = "Record<string, string | undefined>"))]
    pub env: BTreeMap<String, Option<String>>,
    /// Working directory in the container. Default: the caller's on the host's tree, else `/`.
    pub workdir: Option<String>,
    /// `USER[:GROUP]`, names of the container or numbers. Default: the caller on the host's tree, else root. `HOME`, and on
    /// the host's tree `USER` and `LOGNAME`, are this user's.
    pub user: Option<String>,
    /// Supplementary groups, beside those of the user.
    pub groups: Vec<String>,
    /// File mode creation mask, octal. Default: the caller's on the host's tree, else `0022`.
    pub umask: Option<String>,
    /// Give the command a terminal of its own, of this size.
    pub tty: Option<TerminalSize>,
    /// Kill the process after this many milliseconds; with the first process its container ends. Default: never.
    #[serde(rename = "timeout")]
    #[cfg_attr(test, ts(type = "number"))]
    pub timeout_ms: Option<u64>,
}
