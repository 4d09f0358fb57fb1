//! The root file system, and what is mounted in it.

use serde::Deserialize;

/// The root file system as the caller named it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(untagged)]
pub enum Rootfs {
    /// `host`, the host's own tree copy-on-write, or a directory.
    Text(String),
    /// An image of the store.
    Image {
        /// Its name, completed by docker's rules (`busybox`, `registry.example/app:1`), or the beginning of its id.
        image: String,
    },
}

/// A mount taken apart, for paths that hold colons or commas.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct MountOptions {
    /// Type of the mount: `bind`, `tmpfs` or `overlay`.
    #[serde(rename = "type")]
    #[cfg_attr(test, ts(type = "'bind' | 'tmpfs' | 'overlay'"))]
    pub kind: String,
    /// Path on the host (`bind`), lower directory (`overlay`); none for `tmpfs`. Relative to the caller's directory.
    #[serde(default)]
    #[cfg_attr(test, ts(optional, as = "Option<String>"))]
    pub source: String,
    /// Absolute path in the container.
    pub target: String,
    /// `ro`, `nosuid`, `nodev`, `noexec`, `rslave`, `size=64m`, `mode=1777`, …
    #[serde(default)]
    #[cfg_attr(test, ts(optional, as = "Option<Vec<String>>"))]
    pub options: Vec<String>,
}

/// A mount as the caller wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(untagged)]
pub enum MountSpec {
    /// `type=bind,source=/src,target=/dst,readonly` (docker's `--mount`).
    Text(String),
    /// The fields one by one, for paths that hold colons or commas.
    Typed(MountOptions),
}

/// The root file system, and what is mounted in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
#[serde(default, rename_all = "camelCase")]
pub struct RootSpec {
    /// The root file system: `host`, the host's own tree copy-on-write, a directory, or an image. Default `host`.
    pub rootfs: Option<Rootfs>,
    /// Keep what the command writes to an image's tree in memory, not on disk. Default false.
    pub rootfs_tmpfs: bool,
    /// Mount the root file system read-only. Default false.
    pub read_only: bool,
    /// List what the command changed of its root file system, in `changes` of the result. A directory as the root is
    /// copy-on-write then. Default false.
    pub diff: bool,
    /// Directory that keeps what the command changes of its root file system, to be shown and applied by `nsrs apply`, or
    /// gone on with; made if it is missing. A directory as the root is copy-on-write then. Default: the changes are thrown
    /// away.
    pub upper: Option<String>,
    /// Further paths of the host's tree to hide (`~/` is the home directory), beside the well-known secret places.
    pub hide: Vec<String>,
    /// Bind mounts, `SOURCE:TARGET[:OPTIONS]`, as docker's `--volume`.
    pub volumes: Vec<String>,
    /// Mounts as `type=bind,source=…,target=…[,readonly]`, or taken apart.
    pub mounts: Vec<MountSpec>,
    /// Temporary file systems in memory, `TARGET[:OPTIONS]`, as docker's `--tmpfs`.
    pub tmpfs: Vec<String>,
    /// Size of /dev/shm, such as `64m`. Default `64m`.
    pub shm_size: Option<String>,
}

impl RootSpec {
    /// The image that is the root.
    #[must_use]
    pub fn image(&self) -> Option<&str> {
        match &self.rootfs {
            Some(Rootfs::Image { image }) => Some(image),
            _ => None,
        }
    }

    /// `host` or the directory that is the root, where one was named.
    #[must_use]
    pub fn directory(&self) -> Option<&str> {
        match &self.rootfs {
            Some(Rootfs::Text(directory)) => Some(directory),
            _ => None,
        }
    }
}
