//! What the processes of a container may do.

use serde::Deserialize;

/// What the processes of a container may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
#[serde(default, rename_all = "camelCase")]
pub struct RightsSpec {
    /// Capabilities beyond podman's default set, with or without `CAP_`, or `ALL`.
    pub cap_add: Vec<String>,
    /// Capabilities to take away, or `ALL`.
    pub cap_drop: Vec<String>,
    /// Let set-user-ID programs and file capabilities give more rights. Default false (`no_new_privs` is on).
    pub allow_new_privileges: bool,
}
