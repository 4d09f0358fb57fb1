//! Why a connection failed, and whether another attempt would fail the same way.

use std::future::Future;
use std::time::Duration;

use nsrs_base::error::{Code, Errno, Error, Result};
use nsrs_base::options::PLAIN_HTTP;
use reqwest::Response;

use super::loopback::is_loopback;
use super::retry::Trouble;
use super::untrusted::tame;
use super::{proxy, tls};

/// How long a server may send nothing.
pub const IDLE: Duration = Duration::from_secs(60);
/// How long a mirror may take for the head of a response, including the connection.
pub const MIRROR_PATIENCE: Duration = Duration::from_secs(15);

/// Why there is no response.
#[derive(Debug)]
pub enum Failure {
    /// The server sent nothing for too long.
    Slow,
    /// The connection could not be made, or broke.
    Broken(reqwest::Error),
}

impl Failure {
    /// The same as trouble with somebody: final if it would end the same way again.
    #[must_use]
    pub fn of(self, who: &str) -> Trouble {
        match self {
            Failure::Slow => Trouble::passing(format!("{who} does not respond")),
            Failure::Broken(error) => {
                let elsewhere = elsewhere(&error, who);
                let no_trust = |why: String, hint: String| {
                    let at = elsewhere.as_deref().unwrap_or(who);
                    Error::new(Code::SetupFailed, "reach the registry", why).on(at).hint(hint)
                };
                match (certificate_problem(&error), rustls_error(&error)) {
                    (Some(why), _) => {
                        Trouble::Final(no_trust(format!("invalid certificate: {why}"), tls::trust_hint()))
                    }
                    (None, Some(rustls::Error::InvalidMessage(_))) => Trouble::Final(no_trust(
                        "the server does not use TLS".into(),
                        format!("to connect without encryption: {PLAIN_HTTP}"),
                    )),
                    _ => {
                        let why = format!("{}{}", explain(&error), through(&error));
                        Trouble::passing(match &elsewhere {
                            Some(host) => format!("redirect to {host}: {why}"),
                            None => why,
                        })
                    }
                }
            }
        }
    }

    /// Whether the server doesn't use TLS. One with an untrusted certificate does.
    #[must_use]
    pub fn is_no_tls(&self) -> bool {
        match self {
            Failure::Slow => false,
            Failure::Broken(error) => {
                certificate_problem(error).is_none() && (rustls_error(error).is_some() || hung_up_in_handshake(error))
            }
        }
    }
}

/// Waits for the head of a response, but not forever.
pub async fn timely(
    patience: Duration,
    answer: impl Future<Output = reqwest::Result<Response>>,
) -> Result<Response, Failure> {
    match tokio::time::timeout(patience, answer).await {
        Err(_) => Err(Failure::Slow),
        Ok(Err(error)) if error.is_timeout() => Err(Failure::Slow),
        Ok(answer) => answer.map_err(Failure::Broken),
    }
}

/// The innermost reason of a failure, in lower case: reqwest's own text names only the address.
#[must_use]
pub fn explain(error: &reqwest::Error) -> String {
    let mut inner = String::new();
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        inner = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error) {
            Some(errno) => Errno(errno).to_string(),
            None => tame(&error.to_string()),
        };
        next = error.source();
    }
    match error {
        error if error.is_connect() => format!("connection failed: {inner}"),
        _ => inner,
    }
}

/// Whom the connection was to, if that isn't the one that was asked: a token service, or where a redirect leads.
fn elsewhere(error: &reqwest::Error, who: &str) -> Option<String> {
    let url = error.url()?;
    let host = url.host_str()?;
    let named = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let whole = format!("{host}:{}", url.port_or_known_default()?);
    (![named.as_str(), whole.as_str()].iter().any(|own| own.eq_ignore_ascii_case(who))).then_some(named)
}

/// The proxy that a connection that isn't made was to go through, in words.
fn through(error: &reqwest::Error) -> String {
    let far = error.url().filter(|url| error.is_connect() && !url.host_str().is_some_and(is_loopback));
    match far.and_then(proxy::variable_for) {
        Some(name) => format!(" (through the proxy in {name}, unless NO_PROXY excludes it)"),
        None => String::new(),
    }
}

/// An error and what caused it, the outermost first.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    let first: &(dyn std::error::Error + 'static) = error;
    std::iter::successors(Some(first), |error| {
        // An io::Error names the source of what it holds, not what it holds.
        match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(held) => Some(held as &(dyn std::error::Error + 'static)),
            None => error.source(),
        }
    })
}

fn rustls_error(error: &reqwest::Error) -> Option<rustls::Error> {
    causes(error).find_map(|error| error.downcast_ref::<rustls::Error>()).cloned()
}

/// The server closed the connection instead of a TLS handshake, which tokio-rustls makes an end of file.
fn hung_up_in_handshake(error: &reqwest::Error) -> bool {
    let is_end = |error: &std::io::Error| error.kind() == std::io::ErrorKind::UnexpectedEof;
    error.is_connect() && causes(error).any(|error| error.downcast_ref().is_some_and(is_end))
}

fn certificate_problem(error: &reqwest::Error) -> Option<String> {
    match rustls_error(error)? {
        rustls::Error::InvalidCertificate(why) => Some(match why {
            rustls::CertificateError::UnknownIssuer => "unknown issuer".to_owned(),
            why => tame(&why.to_string()),
        }),
        rustls::Error::NoCertificatesPresented => Some("none presented".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of a request by TLS where whoever connects is answered with these bytes.
    async fn failure_of(answer: &'static [u8]) -> Failure {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}/", server.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let hello = &mut [0; 4096];
            std::io::Read::read(&mut stream, hello).unwrap();
            std::io::Write::write_all(&mut stream, answer).unwrap();
        });
        let client = reqwest::Client::builder().no_proxy().tls_backend_preconfigured(tls::none().unwrap());
        timely(Duration::from_secs(30), client.build().unwrap().get(url).send()).await.unwrap_err()
    }

    #[tokio::test]
    async fn a_server_without_tls_is_recognised() {
        for answer in [&b""[..], b"HTTP/1.1 400 Bad Request\r\n\r\n"] {
            assert!(failure_of(answer).await.is_no_tls(), "{answer:?}");
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_not_one_without_tls() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}/", server.local_addr().unwrap());
        drop(server);
        let client = reqwest::Client::builder().no_proxy().tls_backend_preconfigured(tls::none().unwrap());
        let failure = timely(Duration::from_secs(30), client.build().unwrap().get(url).send()).await.unwrap_err();
        assert!(!failure.is_no_tls());
    }
}
