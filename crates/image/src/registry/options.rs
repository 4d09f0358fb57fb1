//! How registries are reached: what the caller and the environment say.

use std::path::PathBuf;

use nsrs_base::error::{Error, Result};
use nsrs_store::reference::parse_registry;
use reqwest::Url;

/// Where mirrors stand, see [`mirrors`].
pub const MIRRORS: &str = "NSRS_REGISTRY_MIRRORS";

/// How registries are reached: encryption, trust, credentials and mirrors.
#[derive(Clone, Debug, Default)]
pub struct RegistryOptions {
    /// Registries that aren't on this machine are spoken to without encryption too (`--plain-http`).
    pub plain_http: bool,
    /// A file of certificates that are trusted besides those of the system (`--ca-file`).
    pub ca_file: Option<PathBuf>,
    /// The file of credentials (`--authfile`); by default those of docker and podman.
    pub auth_file: Option<PathBuf>,
    /// Servers that are asked first when something is pulled.
    pub mirrors: Vec<Mirror>,
}

/// A server that has copies of what a registry has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The registry it has copies of: `docker.io`.
    pub of: String,
    /// Where it is: `https://mirror.example:5000`, with the path that its copies of the repositories stand below, if they
    /// do: `https://cache.example/docker` has `library/busybox` as `docker/library/busybox`.
    pub url: Url,
}

impl RegistryOptions {
    /// What the environment says, and nothing else.
    ///
    /// # Errors
    /// The list of mirrors is malformed, or a proxy is.
    pub fn from_environment() -> Result<RegistryOptions> {
        super::proxy::check()?;
        let list = std::env::var(MIRRORS).unwrap_or_default();
        Ok(RegistryOptions { mirrors: mirrors(&list)?, ..RegistryOptions::default() })
    }
}

/// Reads a list of mirrors: `[REGISTRY=]URL`, separated by spaces or commas, for example
/// `https://mirror.example quay.io=https://cache.example/quay`. Without `REGISTRY=` it mirrors `docker.io`. They are asked in
/// this order, and the registry itself last. A mirror with `http://` is spoken to without encryption.
///
/// # Errors
/// One of them is malformed; the error quotes it.
pub fn mirrors(list: &str) -> Result<Vec<Mirror>> {
    let items = list.split([' ', ',', '\t', '\n']).filter(|item| !item.is_empty());
    items.map(|item| mirror(item).map_err(|why| Error::invalid_value(MIRRORS, item, why))).collect()
}

fn mirror(item: &str) -> Result<Mirror, String> {
    let (of, url) = match item.split_once('=') {
        // An equals sign inside a URL is not ours.
        Some((of, url)) if !of.contains("://") => (of, url),
        _ => ("docker.io", item),
    };
    let of = parse_registry(of).map_err(|error| error.reason)?;
    let url = Url::parse(url).map_err(|error| format!("invalid URL: {error}"))?;
    if !matches!(url.scheme(), "https" | "http") || url.host_str().is_none() {
        return Err("it must start with https:// or http://".into());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("credentials don't belong here: log in to the mirror".into());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("it must have no query and no fragment".into());
    }
    Ok(Mirror { of, url })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_of_docker_unless_said() {
        let list = mirrors("https://a.example, quay.io=http://b.example:5000/quay").unwrap();
        let list: Vec<_> = list.iter().map(|mirror| (mirror.of.as_str(), mirror.url.as_str())).collect();
        assert_eq!(list, [("docker.io", "https://a.example/"), ("quay.io", "http://b.example:5000/quay")]);
        assert_eq!(mirrors(" ").unwrap(), []);
    }

    #[test]
    fn what_is_no_mirror_is_refused() {
        for (list, why) in [
            ("a.example", "invalid URL"),
            ("ftp://a.example", "must start with"),
            ("https://me:secret@a.example", "credentials"),
            ("a/b=https://a.example", "leave the path out"),
            ("https://a.example?x=1", "no query"),
        ] {
            let error = mirrors(list).unwrap_err().to_string();
            assert!(error.contains(why), "{list}: {error}");
        }
    }
}
