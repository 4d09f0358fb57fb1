//! The calling process, as the wishes are relative to it.

use std::collections::HashMap;

use napi_derive::napi;
use nsrs_core::{plan, spec};

/// The calling process.
#[napi(object)]
#[derive(Clone, Debug)]
pub struct CallerInfo {
    /// Its working directory; empty where it was removed.
    pub cwd: String,
    /// Variables of its environment: those of [`caller_variables`], or all of them.
    pub env: HashMap<String, String>,
}

impl From<CallerInfo> for spec::Caller {
    fn from(CallerInfo { cwd, env }: CallerInfo) -> spec::Caller {
        spec::Caller { cwd, env: env.into_iter().collect() }
    }
}

/// The variables of the caller that a command on the host's tree is given.
#[napi]
pub fn caller_variables() -> Vec<String> {
    plan::env::HOST_NAMES.map(String::from).to_vec()
}
