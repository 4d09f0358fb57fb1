//! References to images: `busybox`, `quay.io/a/b:tag`, `name@sha256:…`, by the rules of docker.
//!
//! Pure: a reference is read, completed and written; nothing is asked of a registry or the store.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use nsrs_base::error::{Error, Result};

/// The registry of names without one.
const DEFAULT_REGISTRY: &str = "docker.io";
/// Where images without an owner live in the default registry.
const OFFICIAL: &str = "library";
/// The tag of names without tag and digest.
const DEFAULT_TAG: &str = "latest";
/// The longest path of a repository, `library/` included.
const MAX_REPOSITORY: usize = 255;
/// The longest tag, in characters, by the distribution specification.
const MAX_TAG: usize = 128;

/// A reference to an image: registry, repository, and a tag or a digest.
///
/// A tag before a digest says nothing: it is read and dropped, as docker does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Reads a reference as a user writes it and completes it: registry `docker.io`, `library/`, tag `latest`.
    ///
    /// The part before the first `/` is a registry if it has a `.`, a `:` or an upper case letter, or is `localhost`.
    ///
    /// # Errors
    /// It is not a valid reference: the error quotes it and says what is wrong.
    pub fn parse(text: &str) -> Result<Reference> {
        read(text).map_err(|why| Error::invalid_value("image reference", shortened(text), why))
    }

    /// The registry as names have it, with its port: `docker.io`, `localhost:5000`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The host (and port) that serves this registry: `registry-1.docker.io` for `docker.io`, else the registry.
    #[must_use]
    pub fn host(&self) -> &str {
        host_of(&self.registry)
    }

    /// The path of the repository in its registry: `library/busybox`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if there is one.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of the manifest or index, if it was given.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Registry and repository, without tag and digest: `docker.io/library/busybox`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// What the registry is asked for: the digest, else the tag.
    #[must_use]
    pub fn selector(&self) -> String {
        match (self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => DEFAULT_TAG.to_owned(),
        }
    }

    /// The same repository under this digest and no tag.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Reference {
        Reference { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The short form that people write: `busybox:latest`, `me/tool:1`, `quay.io/a/b:c`.
    #[must_use]
    pub fn familiar(&self) -> String {
        // A name that reads as an id or a digest keeps its `library/`.
        let reads_as_digest = |rest: &str| rest == "sha256" && self.tag.is_some();
        let official = self
            .repository
            .strip_prefix("library/")
            .filter(|rest| !rest.contains('/') && !reads_as_id(rest) && !reads_as_digest(rest));
        let name = match (self.registry.as_str(), official) {
            // `library/a.b` would be fine, but a first part that reads as a registry must not stand first.
            (DEFAULT_REGISTRY, Some(rest)) => rest.to_owned(),
            (DEFAULT_REGISTRY, None) if !reads_as_registry(first_part(&self.repository)) => self.repository.clone(),
            _ => self.name(),
        };
        name + &self.suffix()
    }

    fn suffix(&self) -> String {
        let tag = self.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
        let digest = self.digest.map(|digest| format!("@{digest}")).unwrap_or_default();
        tag + &digest
    }
}

/// 64 hexadecimal digits are the id of an image.
fn reads_as_id(path: &str) -> bool {
    path.len() == 64 && path.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The full form, `docker.io/library/busybox:latest`; reading it gives the same reference.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.registry, self.repository, self.suffix())
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Reference> {
        Reference::parse(text)
    }
}

impl TryFrom<String> for Reference {
    type Error = Error;

    fn try_from(text: String) -> Result<Reference> {
        Reference::parse(&text)
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> String {
        reference.to_string()
    }
}

/// Reads the name of a registry alone, as `login` takes it: `quay.io`, `localhost:5000`, `docker.io`.
///
/// What people paste is taken: a scheme in front, docker's `https://index.docker.io/v1/`, a `/` at the end.
///
/// # Errors
/// It is not a host with an optional port.
pub fn parse_registry(text: &str) -> Result<String> {
    let invalid = |why: String| Error::invalid_value("registry", shortened(text), why);
    let bare = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    let bare = bare.strip_suffix("/v1/").or_else(|| bare.strip_suffix("/v2/")).unwrap_or(bare).trim_end_matches('/');
    if bare.contains('/') {
        return Err(invalid("a registry is a host and a port; leave the path out".to_owned()));
    }
    check_registry(bare).map_err(invalid)?;
    Ok(canonical(bare).to_owned())
}

/// The host (and port) that serves a registry: `registry-1.docker.io` for `docker.io`, else the registry itself.
#[must_use]
pub fn host_of(registry: &str) -> &str {
    match registry {
        DEFAULT_REGISTRY => "registry-1.docker.io",
        registry => registry,
    }
}

/// Names of the default registry are one registry.
fn canonical(registry: &str) -> &str {
    match registry {
        "index.docker.io" | "registry-1.docker.io" => DEFAULT_REGISTRY,
        registry => registry,
    }
}

/// An error quotes what was given, but not a megabyte of it.
fn shortened(text: &str) -> String {
    if text.chars().count() <= 300 {
        return text.to_owned();
    }
    text.chars().take(300).chain(['…']).collect()
}

fn first_part(name: &str) -> &str {
    name.split('/').next().unwrap_or(name)
}

fn reads_as_registry(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.chars().any(|c| c.is_ascii_uppercase())
}

fn read(text: &str) -> Result<Reference, String> {
    if text.is_empty() {
        return Err("it is empty".into());
    }
    if let Some(scheme) =
        ["https://", "http://", "docker://", "oci://"].iter().find(|scheme| text.starts_with(**scheme))
    {
        return Err(format!("leave {scheme} out"));
    }
    if let Some(bad) = text.chars().find(|c| !c.is_ascii_graphic()) {
        return Err(format!("the character {bad:?} is not allowed"));
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(read_digest(digest)?)),
        None => (text, None),
    };
    // A colon after the last slash starts the tag; one before it belongs to the port.
    let slash = rest.rfind('/').map_or(0, |at| at + 1);
    let (name, tag) = match rest[slash..].split_once(':') {
        Some((_, tag)) => (&rest[..rest.len() - tag.len() - 1], Some(tag)),
        None => (rest, None),
    };
    let (registry, path) = match name.split_once('/') {
        Some((first, path)) if reads_as_registry(first) => (first, path),
        _ => (DEFAULT_REGISTRY, name),
    };
    check_registry(registry)?;
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    if digest.is_none() && reads_as_id(path) {
        return Err("64 hexadecimal digits are an image's id, not its name; for a digest write name@sha256:…".into());
    }
    check_path(path)?;
    let registry = canonical(registry);
    let repository = match registry {
        DEFAULT_REGISTRY if !path.contains('/') => format!("{OFFICIAL}/{path}"),
        _ => path.to_owned(),
    };
    if repository.len() > MAX_REPOSITORY {
        return Err(format!("the repository has {} characters, {MAX_REPOSITORY} are allowed", repository.len()));
    }
    let tag = digest.is_none().then(|| tag.unwrap_or(DEFAULT_TAG).to_owned());
    Ok(Reference { registry: registry.to_owned(), repository, tag, digest })
}

fn read_digest(text: &str) -> Result<Digest, String> {
    text.parse::<Digest>().map_err(|error| format!("expected a digest after the @: {}", error.reason))
}

/// A host name, an IPv4 address or an IPv6 address in brackets, and an optional port.
fn check_registry(registry: &str) -> Result<(), String> {
    let bad = |why: &str| Err(format!("the registry {registry:?} {why}"));
    let (host, port) = match registry.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => {
                (None, if port.is_empty() { None } else { Some(port.strip_prefix(':').unwrap_or("")) })
            }
            _ => return bad("has no IPv6 address in its brackets"),
        },
        None => match registry.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(registry), None),
        },
    };
    if let Some(port) = port
        && (port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) || port.parse::<u16>().is_err())
    {
        return bad("has no port number after its colon");
    }
    let Some(host) = host else { return Ok(()) };
    if host.is_empty() {
        return bad("has no host");
    }
    if host.len() > 253 {
        return bad("is longer than a host name can be");
    }
    for label in host.split('.') {
        if label.is_empty() {
            return bad("has an empty part between dots");
        }
        if let Some(c) = label.chars().find(|c| !c.is_ascii_alphanumeric() && *c != '-') {
            return bad(&format!("has the character {c:?}, which no host name has"));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return bad("has a part that starts or ends with a hyphen");
        }
    }
    Ok(())
}

/// Parts of lower case letters and digits, joined inside by `.`, `_`, `__` or hyphens.
fn check_path(path: &str) -> Result<(), String> {
    if path.is_empty() {
        return Err("the repository's name is missing".into());
    }
    if path.chars().any(|c| c.is_ascii_uppercase()) {
        return Err(format!("the repository {path:?} must be in lower case"));
    }
    for part in path.split('/') {
        if part.is_empty() {
            return Err("there is nothing between two slashes, or before the first or after the last".into());
        }
        if let Some(c) = part.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-')) {
            return Err(format!("the character {c:?} is not allowed in a repository's name"));
        }
        let edge = |c: char| !c.is_ascii_alphanumeric();
        if part.starts_with(edge) || part.ends_with(edge) {
            return Err(format!("{part:?} must start and end with a letter or a digit"));
        }
        for separator in part.split(|c: char| c.is_ascii_alphanumeric()).filter(|separator| !separator.is_empty()) {
            if !matches!(separator, "." | "_" | "__") && !separator.bytes().all(|b| b == b'-') {
                return Err(format!("{separator:?} in {part:?} is not allowed: use one of . _ __ or hyphens"));
            }
        }
    }
    Ok(())
}

fn check_tag(tag: &str) -> Result<(), String> {
    if tag.is_empty() {
        return Err("there is no tag after the colon".into());
    }
    if tag.len() > MAX_TAG {
        return Err(format!("the tag has {} characters, {MAX_TAG} are allowed", tag.len()));
    }
    if tag.starts_with(['.', '-']) {
        return Err(format!("the tag {tag:?} must not start with a dot or a hyphen"));
    }
    match tag.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '.' | '-')) {
        Some(c) => Err(format!("the character {c:?} is not allowed in a tag")),
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "reference_tests.rs"]
mod tests;
