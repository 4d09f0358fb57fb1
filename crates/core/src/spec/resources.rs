//! What the processes of a container may use.

use serde::Deserialize;

/// What the processes of a container may use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
#[serde(default, rename_all = "camelCase")]
pub struct ResourcesSpec {
    /// Resource limits (setrlimit(2)), `NAME=SOFT[:HARD]`, such as `nofile=1024`. Default: the caller's.
    pub ulimits: Vec<String>,
    /// Out-of-memory score, -1000 to 1000.
    #[cfg_attr(test, ts(type = "number"))]
    pub oom_score_adj: Option<i64>,
}
