//! What a plan needs to know of an image.

use serde::{Deserialize, Serialize};

/// What an image's configuration gives a container that doesn't say otherwise, as it is written there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageDefaults {
    /// Environment variables, `NAME=value`, in the image's order.
    pub env: Vec<String>,
    /// The program with its first arguments.
    pub entrypoint: Vec<String>,
    /// The arguments of the entrypoint, or the command.
    pub cmd: Vec<String>,
    /// Who runs the command, `USER[:GROUP]`, names or numbers; empty: root.
    pub user: String,
    /// Where the command starts; empty: `/`.
    pub workdir: String,
    /// Directories that hold data of a container (`VOLUME`).
    pub volumes: Vec<String>,
    /// Ports that the command listens on, `80/tcp`.
    pub ports: Vec<String>,
    /// The signal that ends the command; empty: `SIGTERM`.
    pub stop_signal: String,
    /// Labels as name and value, sorted by name.
    pub labels: Vec<(String, String)>,
}

/// An image of the store, as it was looked up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageFacts {
    /// Its name, or how the caller named it.
    pub name: String,
    /// The digest of its manifest.
    pub digest: String,
    /// The digest of its configuration.
    pub id: String,
    /// What it is for, `OS/ARCH[/VARIANT]`: `linux/arm64/v8`.
    pub platform: String,
    /// The directory of the store.
    pub store: String,
    /// The unpacked layers in it, lowest first.
    pub layers: Vec<String>,
    /// Whiteouts and opaque directories are marked by `user.overlay.*`: the mount needs `userxattr`.
    pub user_xattrs: bool,
    /// Some whiteouts are files with an attribute, which kernels before Linux 6.7 don't know.
    pub xattr_whiteouts: bool,
    /// The defaults of its configuration.
    pub config: ImageDefaults,
}
