//! An image as the root of a container: what its configuration says, taken over by docker's rules.
//!
//! Only what this module reads of a configuration has an effect. Labels are shown; nothing is decided by them.

use serde::{Deserialize, Serialize};

use nsrs_store::config_values::{below_root, cleaned, ports, signal};
use nsrs_store::image_facts::{ImageDefaults, ImageFacts};

use super::Problems;
use super::namespace::{Kind, Namespaces};
use crate::net::publish::{self, Proto, Publish};
use crate::spec::Spec;
use nsrs_base::error::{Code, Error};
use nsrs_base::host::Host;
use nsrs_base::options::{
    GID_MAPS, HIDE, OptionName, PUBLISH, PUBLISH_ALL, ROOTFS, ROOTFS_TMPFS, TMPFS, UID_MAPS, UPPER, USERNS,
};

/// Where the changes of a container on an image go; they end with it in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Upper {
    /// Into a directory of the store.
    Disk,
    /// Into a tmpfs of the container's own.
    Memory,
}

/// An image as a root, copy-on-write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageRoot {
    /// Its name, or how the caller named it.
    pub name: String,
    /// The digest of its manifest.
    pub digest: String,
    /// The digest of its configuration.
    pub id: String,
    /// The platform it is for, like `linux/arm64/v8`.
    pub platform: String,
    /// The directory of the store.
    pub store: String,
    /// The unpacked layers in it, lowest first.
    pub layers: Vec<String>,
    /// The mount takes attributes that an ordinary user may write (overlayfs' `userxattr`).
    pub user_xattrs: bool,
    /// Some whiteouts are files with an attribute: before Linux 6.7 the image is copied.
    pub xattr_whiteouts: bool,
    /// Where what the container writes to the tree goes.
    pub upper: Upper,
    /// Mounted read-only, but for the volumes.
    pub read_only: bool,
    /// Directories for data: made if they are missing, and writable in any case. They end with the container.
    pub volumes: Vec<String>,
    /// The signal that ends the command; `None`: `SIGTERM`, also where the image names none that there is.
    pub stop_signal: Option<i32>,
    /// What its configuration says and nobody can follow, for people.
    pub ignored: Vec<String>,
    /// What the image's labels say, for people.
    pub labels: Vec<(String, String)>,
}

/// The kernel's limit of lower layers (`OVL_MAX_STACK`, overlayfs documentation).
pub const MOST_LAYERS: usize = 500;

/// An image as a root.
pub fn root(
    spec: &Spec,
    facts: &ImageFacts,
    namespaces: &Namespaces,
    host: &Host,
    problems: &mut Problems,
) -> ImageRoot {
    let refuse = |option: OptionName, why: &str, hint: String| {
        Error::conflict(option, why).on(format!("with the image {}", spec_name(spec))).hint(hint)
    };
    if !spec.root.hide.is_empty() {
        let hint = format!("{TMPFS} PATH covers a directory of another root");
        problems.push(refuse(HIDE, "only the host's own tree has something to hide", hint));
    }
    if !spec.namespaces.uid_maps.is_empty() || !spec.namespaces.gid_maps.is_empty() {
        let option = if spec.namespaces.uid_maps.is_empty() { GID_MAPS } else { UID_MAPS };
        let hint = format!("leave the maps out, or export the image into a directory and use that with {ROOTFS}");
        problems.push(refuse(option, "its files belong to the ids that images have here", hint));
    } else if host.privileged && namespaces.makes(Kind::User) {
        let hint = format!("leave {USERNS} out, or export the image into a directory and use that with {ROOTFS}");
        problems.push(refuse(USERNS, "its layers are overlaid in the host's user namespace", hint));
    } else if namespaces.joins(Kind::User) {
        let hint = format!("leave {USERNS} out: the container gets a user namespace in which the ids are right");
        problems.push(refuse(USERNS, "its files belong to the ids that images have here", hint));
    }
    if spec.root.rootfs_tmpfs && spec.root.upper.is_some() {
        problems.push(
            Error::conflict(ROOTFS_TMPFS, "changes are kept in memory or in a directory")
                .on(format!("with {UPPER}"))
                .hint("leave one of them out"),
        );
    }
    if facts.layers.len() > MOST_LAYERS {
        problems.push(
            Error::new(
                Code::Unsupported,
                "stack the layers of the image",
                format!("it has {} layers, the kernel takes {MOST_LAYERS} at most", facts.layers.len()),
            )
            .on(&facts.name)
            .hint("make it one layer: nsrs export IMAGE | nsrs import - NAME"),
        );
    }
    let config = &facts.config;
    let volumes = config.volumes.iter().map(|path| container_path(path, "a volume", &facts.name));
    let volumes = problems.all(volumes);
    ImageRoot {
        name: facts.name.clone(),
        digest: facts.digest.clone(),
        id: facts.id.clone(),
        platform: facts.platform.clone(),
        store: facts.store.clone(),
        layers: facts.layers.clone(),
        user_xattrs: facts.user_xattrs || !host.privileged,
        xattr_whiteouts: facts.xattr_whiteouts,
        upper: if spec.root.rootfs_tmpfs { Upper::Memory } else { Upper::Disk },
        read_only: spec.root.read_only,
        volumes,
        stop_signal: signal(&config.stop_signal),
        ignored: ignored(config, spec.image.publish_all),
        labels: config.labels.clone(),
    }
}

fn spec_name(spec: &Spec) -> &str {
    spec.root.image().unwrap_or_default()
}

/// A path of the image's configuration.
fn container_path(path: &str, what: &str, image: &str) -> Result<String, Error> {
    below_root(path).ok_or_else(|| {
        let why = format!("{what} of it is {path:?}, which is no path below /");
        Error::new(Code::ImageInvalid, "use the image", why).on(image)
    })
}

/// What nobody can follow of this configuration.
fn ignored(config: &ImageDefaults, publish_all: bool) -> Vec<String> {
    let stop = Some(&config.stop_signal).filter(|text| !text.is_empty() && signal(text).is_none());
    let stop = stop.map(|text| format!("the image's stop signal {text:?} is none: it is SIGTERM"));
    let ports = config.ports.iter().filter_map(|text| match ports(text) {
        None => Some(format!("the image's port {text:?} is none, and left out")),
        Some(_) if publish_all && is_sctp(text) => {
            Some(format!("the image's port {text} is not published: only those of tcp and udp can be"))
        }
        Some(_) => None,
    });
    stop.into_iter().chain(ports).collect()
}

/// Is it a port that an image may expose and nobody can publish?
fn is_sctp(port: &str) -> bool {
    port.rsplit_once('/').is_some_and(|(_, proto)| proto.eq_ignore_ascii_case("sctp"))
}

/// The command: docker's rules for Entrypoint and Cmd. A command replaces Cmd; an entrypoint of the caller's replaces the
/// image's and drops its Cmd; an empty one leaves the command alone.
#[must_use]
pub fn args(spec: &Spec, config: &ImageDefaults) -> Vec<String> {
    let (entrypoint, cmd) = match &spec.image.entrypoint {
        Some(own) => (own, &[][..]),
        None => (&config.entrypoint, &config.cmd[..]),
    };
    let rest = if spec.args.is_empty() { cmd } else { &spec.args[..] };
    entrypoint.iter().chain(rest).cloned().collect()
}

/// The working directory of an image: the caller's, the image's, `/`.
#[must_use]
pub fn workdir(spec: &Spec, config: &ImageDefaults) -> String {
    // Docker makes it absolute when it builds; other builders don't.
    cleaned(spec.process.workdir.as_deref().unwrap_or(&config.workdir))
}

/// The ports to publish for `--publish-all`, each on a free port of the host, but for those that the caller publishes.
pub fn published(spec: &Spec, facts: &ImageFacts, problems: &mut Problems) -> Vec<String> {
    let own: Vec<(u16, Proto)> = spec
        .network
        .publish
        .iter()
        .filter_map(|text| publish::parse(text).ok())
        .flatten()
        .map(|publish| (publish.container_port, publish.proto))
        .collect();
    let mut texts = Vec::new();
    for text in facts.config.ports.iter().filter(|text| ports(text).is_none() || !is_sctp(text)) {
        // A port of the host's is the caller's to name, not the image's.
        let parsed = publish::parse(text).ok().filter(|_| !text.contains(':'));
        match parsed {
            Some(ports) => {
                texts.extend(ports.iter().filter(|port| !own.contains(&(port.container_port, port.proto))).map(
                    |Publish { container_port, proto, .. }| match proto {
                        Proto::Tcp => format!("{container_port}"),
                        Proto::Udp => format!("{container_port}/udp"),
                    },
                ))
            }
            None => problems.push(
                Error::new(Code::ImageInvalid, "publish the ports of the image", format!("{text:?} is no port"))
                    .on(&facts.name)
                    .hint(format!("leave {PUBLISH_ALL} out, and publish by {PUBLISH}")),
            ),
        }
    }
    texts
}

#[cfg(test)]
#[path = "image_tests.rs"]
mod tests;
