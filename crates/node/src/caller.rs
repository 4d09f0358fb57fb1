//! The calling process, as the wishes are relative to it.

use std::collections::BTreeMap;

use napi_derive::napi;
use nsrs_core::{plan, spec};
use serde::Deserialize;

/// The calling process.
#[napi(object, object_from_js = false, object_to_js = false)]
#[derive(Clone, Debug, Deserialize)]
pub struct CallerInfo {
    /// Its working directory; empty where it was removed.
    pub cwd: String,
    /// Variables of its environment: those of [`caller_variables`], or all of them.
    #[napi(ts_type = "Record<string, string>")]
    pub env: BTreeMap<String, String>,
}

impl From<CallerInfo> for spec::Caller {
    fn from(CallerInfo { cwd, env }: CallerInfo) -> spec::Caller {
        spec::Caller { cwd, env }
    }
}

/// The variables of the caller that count: on the host's tree those that a command there is given, and everywhere the one
/// that says what `~` is.
#[napi]
pub fn caller_variables(on_host_tree: bool) -> Vec<String> {
    if on_host_tree { plan::env::HOST_NAMES.map(String::from).to_vec() } else { vec!["HOME".into()] }
}
