//! What is meant for an image as the root.

use serde::Deserialize;

/// What is meant for an image as the root; on another root each of these is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
#[serde(default, rename_all = "camelCase")]
pub struct ImageSpec {
    /// Which of an image's platforms, `os/arch[/variant]`. Default: this machine's.
    pub platform: Option<String>,
    /// In place of the image's entrypoint; its `Cmd` is then dropped too. An empty list is no entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// Publish every port of tcp and udp that the image exposes, each on a free port of the host. Default false.
    pub publish_all: bool,
}
