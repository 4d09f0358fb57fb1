//! What of the calling process counts.

use napi_derive::napi;
use nsrs_core::plan;

/// The variables of the caller that count: on the host's tree those that a command there is given, and everywhere the one
/// that says what `~` is.
#[napi]
pub fn caller_variables(on_host_tree: bool) -> Vec<String> {
    if on_host_tree { plan::env::HOST_NAMES.map(String::from).to_vec() } else { vec!["HOME".into()] }
}
