//! One server that may be asked: the registry, or a mirror of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use nsrs_base::error::{Code, Error, Result};
use reqwest::Url;

use super::auth::HostAuth;
use super::connection::{IDLE, MIRROR_PATIENCE};

/// How it is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Scheme {
    /// Not known yet: a server on this machine may speak either, see [`super::http`].
    Unknown,
    /// HTTP in the clear.
    Http,
    /// HTTP over TLS.
    Https,
}

/// A server, and what we have learnt of it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    host: String,
    prefix: String,
    /// Is it a mirror? A mirror may fail without an error, and is never pushed to.
    pub mirror: bool,
    /// What every user of this host shares.
    pub state: Arc<HostState>,
}

/// What was learnt of a host.
#[derive(Debug)]
pub struct HostState {
    scheme: AtomicU8,
    /// Whether it has answered at least once: then we are more patient with it.
    pub reached: AtomicBool,
    /// How to show who we are.
    pub auth: tokio::sync::Mutex<HostAuth>,
}

impl HostState {
    /// A host of which this is known.
    #[must_use]
    pub fn new(scheme: Scheme) -> HostState {
        HostState { scheme: AtomicU8::new(scheme as u8), reached: AtomicBool::new(false), auth: Default::default() }
    }
}

impl Endpoint {
    /// A server at this host and port, whose repositories stand below this path.
    #[must_use]
    pub fn new(host: &str, prefix: &str, mirror: bool, state: Arc<HostState>) -> Endpoint {
        Endpoint { host: host.to_owned(), prefix: prefix.trim_matches('/').to_owned(), mirror, state }
    }

    /// Host and port, as they stand in names: `quay.io`, `localhost:5000`.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// How long it may take for the head of an answer.
    #[must_use]
    pub fn patience(&self) -> Duration {
        if self.mirror { MIRROR_PATIENCE } else { IDLE }
    }

    /// The name of a repository at this server: mirrors keep those of a registry below a path of their own.
    #[must_use]
    pub fn repository(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}/{name}", self.prefix) }
    }

    /// How it is spoken to.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        match self.state.scheme.load(Ordering::Relaxed) {
            1 => Scheme::Http,
            2 => Scheme::Https,
            _ => Scheme::Unknown,
        }
    }

    /// It has turned out how it is spoken to.
    pub fn learn(&self, scheme: Scheme) {
        self.state.scheme.store(scheme as u8, Ordering::Relaxed);
        self.state.reached.store(true, Ordering::Relaxed);
    }

    /// The address of `path` below `/v2/` under this scheme.
    ///
    /// # Errors
    /// The host can't stand in a URL.
    pub fn url(&self, scheme: Scheme, path: &str) -> Result<Url> {
        let scheme = if scheme == Scheme::Https { "https" } else { "http" };
        Url::parse(&format!("{scheme}://{}/v2/{path}", self.host)).map_err(|error| {
            Error::new(Code::InvalidArgument, "reach the registry", error.to_string()).on(self.host.clone())
        })
    }

    /// Is this address on the very server that we talk to: same scheme, host and port? Only there credentials go.
    #[must_use]
    pub fn owns(&self, url: &Url) -> bool {
        self.url(self.scheme(), "").is_ok_and(|own| own.origin() == url.origin())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_belong_to_scheme_host_and_port() {
        let endpoint = Endpoint::new("quay.io", "", false, Arc::new(HostState::new(Scheme::Https)));
        let owns = |url: &str| endpoint.owns(&Url::parse(url).unwrap());
        assert!(owns("https://quay.io/v2/a") && owns("https://quay.io:443/"));
        assert!(!owns("http://quay.io/") && !owns("https://quay.io:444/") && !owns("https://quay.io.evil.example/"));
    }
}
