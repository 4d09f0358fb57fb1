//! The client: what it knows of hosts, which authorities it trusts, and the runtime that its requests run on.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nsrs_base::error::{Code, Error, Result};
use nsrs_store::reference::Reference;
use reqwest::Url;
use tokio::runtime::Runtime;

use super::auth::Service;
use super::connection::explain;
use super::endpoint::{Endpoint, HostState, Scheme};
use super::loopback::is_loopback;
use super::options::RegistryOptions;
use super::tls;
use crate::progress::Progress;

/// How long a server may take for a connection.
const CONNECT: Duration = Duration::from_secs(15);

/// A client of registries. Cheap to clone; what was learnt of a host is shared.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// In an option only so that it can be shut down without waiting.
    runtime: Option<Runtime>,
    options: RegistryOptions,
    progress: Progress,
    hosts: Mutex<HashMap<(String, bool), Arc<HostState>>>,
    clients: Mutex<HashMap<ClientKey, reqwest::Client>>,
    /// The addresses of mirrors that aren't asked any more.
    lost: Mutex<HashSet<String>>,
}

/// HTTP clients differ in the authorities that they trust, and in whether they use a proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct ClientKey {
    https: bool,
    loopback: bool,
    authorities: Vec<PathBuf>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Service for Client {
    fn client_for(&self, url: &Url) -> Result<reqwest::Client> {
        let host = url.host_str().unwrap_or_default();
        let named = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let https = url.scheme() == "https";
        let mut key = ClientKey { https, loopback: is_loopback(host), authorities: Vec::new() };
        if https {
            key.authorities.extend(self.shared.options.ca_file.clone());
            key.authorities.extend(tls::files_of(&named));
        }
        let mut clients = self.shared.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let config = if https { tls::config(&key.authorities)? } else { tls::none()? };
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("nsrs/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .http1_only()
            .connect_timeout(CONNECT)
            .tls_backend_preconfigured(config);
        if key.loopback {
            // A proxy can't reach our loopback, and must not be asked to.
            builder = builder.no_proxy();
        }
        let client = builder
            .build()
            .map_err(|error| Error::new(Code::SetupFailed, "set up the HTTP client", explain(&error)))?;
        clients.insert(key, client.clone());
        Ok(client)
    }
}

impl Client {
    /// A client with these options, which reports to `progress` what it has to wait for.
    ///
    /// # Errors
    /// Its threads can't be started.
    pub fn new(options: RegistryOptions, progress: Progress) -> Result<Client> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(4)
            .thread_name("nsrs-net")
            .enable_all()
            .build()
            .map_err(|error| Error::os("start the threads of the network", "", &error))?;
        let shared = Shared {
            runtime: Some(runtime),
            options,
            progress,
            hosts: Mutex::default(),
            clients: Mutex::default(),
            lost: Mutex::default(),
        };
        Ok(Client { shared: Arc::new(shared) })
    }

    /// Runs a future on the client's threads, and blocks this one until it is ready.
    pub fn wait<T>(&self, what: impl Future<Output = T>) -> T {
        self.runtime().block_on(what)
    }

    /// Starts a future on the client's threads, and doesn't wait for it.
    pub fn spawn(&self, what: impl Future<Output = ()> + Send + 'static) {
        self.runtime().spawn(what);
    }

    fn runtime(&self) -> &Runtime {
        self.shared.runtime.as_ref().expect("it lives as long as the client")
    }

    /// The options that the client was made with.
    #[must_use]
    pub fn options(&self) -> &RegistryOptions {
        &self.shared.options
    }

    /// Where it reports what happens.
    #[must_use]
    pub fn progress(&self) -> &Progress {
        &self.shared.progress
    }

    /// The registry of this image itself.
    #[must_use]
    pub fn registry(&self, reference: &Reference) -> Endpoint {
        self.registry_at(reference.host())
    }

    /// The registry at this host.
    #[must_use]
    pub fn registry_at(&self, host: &str) -> Endpoint {
        let scheme = match (self.shared.options.plain_http, is_loopback(host)) {
            (true, _) => Scheme::Http,
            (false, true) => Scheme::Unknown,
            (false, false) => Scheme::Https,
        };
        Endpoint::new(host, "", false, self.state(host, false, scheme))
    }

    /// The servers to ask for an image: mirrors first, except those that have failed, the registry itself last.
    #[must_use]
    pub fn sources(&self, reference: &Reference) -> Vec<Endpoint> {
        let mirrors = self.shared.options.mirrors.iter().filter(|mirror| mirror.of == reference.registry());
        let mirrors = mirrors.map(|mirror| {
            let host = mirror.url.host_str().unwrap_or_default();
            let host = mirror.url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
            let scheme = if mirror.url.scheme() == "http" { Scheme::Http } else { Scheme::Https };
            Endpoint::new(&host, mirror.url.path(), true, self.state(&host, true, scheme))
        });
        mirrors.filter(|mirror| !self.is_lost(mirror)).chain([self.registry(reference)]).collect()
    }

    /// Asks a mirror no more. Says whether that is new.
    pub fn lose(&self, mirror: &Endpoint) -> bool {
        self.shared.lost.lock().unwrap_or_else(PoisonError::into_inner).insert(mirror.repository(mirror.host()))
    }

    /// Is this mirror asked no more?
    #[must_use]
    pub fn is_lost(&self, mirror: &Endpoint) -> bool {
        let lost = self.shared.lost.lock().unwrap_or_else(PoisonError::into_inner);
        mirror.mirror && lost.contains(&mirror.repository(mirror.host()))
    }

    fn state(&self, host: &str, mirror: bool, scheme: Scheme) -> Arc<HostState> {
        let mut hosts = self.shared.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.entry((host.to_owned(), mirror)).or_insert_with(|| Arc::new(HostState::new(scheme))).clone()
    }
}
