//! What the caller asked for, as plain data. Nothing is resolved or checked here: that is [`crate::plan`]'s work.
//!
//! These are the options of the library as JavaScript wrote them, in the groups of the OCI runtime specification: the JSON
//! of a call is read into them, and TypeScript's types are made from them (`ts/spec.d.ts`). Values keep the text forms of
//! docker and podman where those have one (`8080:80/udp`, `nofile=1024:2048`), so that a text is parsed in one place only
//! and every error can quote what was written.

mod enter;
mod image;
mod namespaces;
mod network;
mod process;
mod resources;
mod rights;
mod root;
#[cfg(test)]
mod typescript_tests;

use std::collections::BTreeMap;

use nsrs_base::error::{Act, Code, Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use self::enter::EnterSpec;
pub use self::image::ImageSpec;
pub use self::namespaces::NamespacesSpec;
pub use self::network::NetworkSpec;
pub use self::process::{ProcessSpec, TerminalSize};
pub use self::resources::ResourcesSpec;
pub use self::rights::RightsSpec;
pub use self::root::{MountOptions, MountSpec, RootSpec, Rootfs};

/// The facts of the calling process that a call is relative to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Caller {
    /// Its working directory, absolute; empty where it was removed.
    pub cwd: String,
    /// The variables of its environment that a container may be given: all of them for `envHost`, else a few.
    #[cfg_attr(test, ts(type = "Record<string, string>"))]
    pub env: BTreeMap<String, String>,
}

/// In which form a list of changes is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub enum Form {
    /// Lines for people, as `nsrs run --diff` prints them.
    Text,
    /// A JSON document, which the library parses.
    #[default]
    Json,
}

/// A container as the caller asked for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    /// The command and its arguments; the command is looked up in the container's `PATH`.
    pub args: Vec<String>,
    /// What relative paths, `~/` and the environment refer to.
    pub caller: Caller,
    /// The root file system, and what is mounted in it.
    #[serde(flatten)]
    pub root: RootSpec,
    /// What is meant for an image as the root.
    #[serde(flatten)]
    pub image: ImageSpec,
    /// How it is connected, and how names are resolved.
    #[serde(flatten)]
    pub network: NetworkSpec,
    /// Namespaces other than the network.
    #[serde(flatten)]
    pub namespaces: NamespacesSpec,
    /// The command as a process.
    #[serde(flatten)]
    pub process: ProcessSpec,
    /// Give the command every variable of the caller. Default false: on the host's tree only what programs need to run
    /// (`PATH`, `HOME`, `LANG`, …), elsewhere docker's minimum.
    pub env_host: bool,
    /// Run a small init as PID 1, which reaps orphans and forwards signals. Default false: the command is PID 1.
    pub init: bool,
    /// What its processes may do.
    #[serde(flatten)]
    pub rights: RightsSpec,
    /// What its processes may use.
    #[serde(flatten)]
    pub resources: ResourcesSpec,
    /// The container stays until it is ended: without a command nsrs's own init is its first process.
    pub stays: bool,
    /// Numbers of passed file descriptors in the command, in the order in which they are passed, after 0, 1, 2.
    pub preserve_fds: Vec<i32>,
    /// Which of standard output (1) and error (2) are pipes that were made for the command: they are given to its user, who can
    /// then open them by name (/dev/stdout).
    pub own_pipes: Vec<i32>,
    /// In which form the command's changes are listed, if they are. Default JSON.
    pub changes_form: Form,
}

impl Spec {
    /// Does the container work on the host's own tree?
    #[must_use]
    pub fn is_on_host_tree(&self) -> bool {
        self.root.image().is_none() && self.root.directory().is_none_or(|rootfs| rootfs == "host")
    }

    /// Is nothing to be executed: does the container only wait for processes that enter? An image's own command is not asked
    /// for, an entrypoint of the caller's is.
    #[must_use]
    pub fn only_waits(&self) -> bool {
        self.stays && self.args.is_empty() && self.image.entrypoint.as_ref().is_none_or(Vec::is_empty)
    }
}

/// Reads the JSON of a call.
///
/// # Errors
/// A string in it is not well-formed Unicode; whoever calls has checked everything else.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| {
        let why = format!("a string is not well-formed Unicode ({error})");
        Error::new(Code::InvalidArgument, "read the call", why)
            .during(Act::Request)
            .hint("String.prototype.toWellFormed() mends it")
    })
}

#[cfg(test)]
impl Spec {
    /// What a caller asks for who writes these options.
    pub fn of(options: serde_json::Value) -> Spec {
        serde_json::from_value(options).unwrap()
    }
}
