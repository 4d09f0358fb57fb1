//! One request to one server: its scheme, who we are, where it sends us, and again if it went wrong.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use nsrs_base::error::{Code, Error, Result};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Body, Method, Response, StatusCode, Url};

use super::auth::{Challenge, Scope, Service};
use super::client::Client;
use super::connection::{Failure, timely};
use super::credentials::{self, Credential};
use super::endpoint::{Endpoint, Scheme};
use super::failure;
use super::retry::{Backoff, MAX_ASKED, Trouble, asked_wait, is_passing};
use super::untrusted::tame;
use crate::progress::ProgressEvent;

/// How many times something is tried with a server that has never answered: a wrong name should be said soon. And how many
/// times with one that has answered before.
const ATTEMPTS: (u32, u32) = (3, 6);
/// The same of a mirror: behind it is somebody else to ask.
const MIRROR_ATTEMPTS: (u32, u32) = (1, 3);
/// A body up to here is sent at once, and then an answer must come.
const SMALL: u64 = 4 << 20;
/// How many times a server may send us elsewhere.
const REDIRECTS: u32 = 8;

/// A body that can be made again for another attempt, and its length.
pub type MakeBody<'a> = &'a (dyn Fn() -> Result<(Body, u64)> + Sync);

/// What is asked of a server.
#[derive(Clone)]
pub struct Ask<'a> {
    /// The HTTP method.
    pub method: Method,
    /// The address, as a path of the registry or in full.
    pub target: Target<'a>,
    /// Headers besides those of authentication.
    pub headers: HeaderMap,
    /// The body, made anew for each attempt; `None`: an empty one.
    pub body: Option<MakeBody<'a>>,
    /// What a token must allow.
    pub scope: &'a Scope,
}

/// The address of a request.
#[derive(Clone)]
pub enum Target<'a> {
    /// A path below `/v2/` of the server that is asked.
    Path(&'a str),
    /// An address that the server gave us.
    Url(&'a Url),
}

impl<'a> Ask<'a> {
    /// A request without body for a path below `/v2/`.
    #[must_use]
    pub fn new(method: Method, path: &'a str, scope: &'a Scope) -> Ask<'a> {
        Ask { method, target: Target::Path(path), headers: HeaderMap::new(), body: None, scope }
    }

    /// The same with a header.
    #[must_use]
    pub fn header(mut self, name: reqwest::header::HeaderName, value: &str) -> Ask<'a> {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }
}

impl Client {
    /// Asks, and asks again while it seems worth it. The answer may still be a refusal, which is the caller's to read.
    ///
    /// # Errors
    /// No answer came.
    pub async fn send(&self, endpoint: &Endpoint, ask: &Ask<'_>) -> Result<Response> {
        let mut backoff = self.backoff(endpoint);
        loop {
            match self.send_once(endpoint, ask).await {
                Ok(answer) => return Ok(answer),
                Err(trouble) => self.pause(endpoint, &mut backoff, trouble).await?,
            }
        }
    }

    /// How patient we are with this server.
    #[must_use]
    pub fn backoff(&self, endpoint: &Endpoint) -> Backoff {
        let (first, more) = attempts(endpoint);
        Backoff::new(if endpoint.state.reached.load(Ordering::Relaxed) { more } else { first })
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// It was the last attempt.
    pub async fn pause(&self, endpoint: &Endpoint, backoff: &mut Backoff, trouble: Trouble) -> Result<()> {
        let (why, asked, is_rate_limit) = match trouble {
            Trouble::Final(error) => return Err(error),
            Trouble::Passing { why, asked, is_rate_limit } => (why, asked, is_rate_limit),
        };
        let host = endpoint.host();
        // It may have answered for the first time since the first attempt.
        if endpoint.state.reached.load(Ordering::Relaxed) {
            backoff.extend(attempts(endpoint).1);
        }
        let Some(wait) = backoff.next(asked) else {
            return Err(given_up(host, &why, asked, is_rate_limit, backoff.failures()));
        };
        let milliseconds = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.progress().report(&ProgressEvent::Retry { message: format!("{host}: {why}"), wait: milliseconds });
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// Asks once. Answers that say "not now" are trouble that passes.
    ///
    /// # Errors
    /// No answer came, or one that says "not now".
    pub async fn send_once(&self, endpoint: &Endpoint, ask: &Ask<'_>) -> Result<Response, Trouble> {
        let answer = match endpoint.scheme() {
            Scheme::Unknown => self.find_out(endpoint, ask).await?,
            scheme => self.authorised(endpoint, scheme, ask).await?,
        };
        endpoint.state.reached.store(true, Ordering::Relaxed);
        let status = answer.status();
        if !is_passing(status) {
            return Ok(answer);
        }
        let asked = asked_wait(answer.headers(), SystemTime::now());
        let body = failure::body(answer, failure::MOST_TEXT).await.unwrap_or_default();
        let words = failure::words(&body);
        let said = if words.is_empty() { String::new() } else { format!(": {words}") };
        let is_rate_limit = status == StatusCode::TOO_MANY_REQUESTS;
        Err(Trouble::Passing { why: format!("response {status}{said}"), asked, is_rate_limit })
    }

    /// The first request to a server on this machine: in the clear, and by TLS if the answer is none or a 400, which is
    /// what a TLS server says to that. Nobody else sees loopback, and no credentials are sent before the answer.
    async fn find_out(&self, endpoint: &Endpoint, ask: &Ask<'_>) -> Result<Response, Trouble> {
        // What has a body is not sent on the off chance.
        let probe = Ask::new(Method::GET, "", ask.scope);
        let itself = ask.body.is_none() && matches!(ask.method, Method::GET | Method::HEAD);
        let first = if itself { ask } else { &probe };
        let plain = match self.follow(endpoint, Scheme::Http, first, None).await {
            Ok(answer) if answer.status() != StatusCode::BAD_REQUEST => {
                return self.known(endpoint, Scheme::Http, ask, itself.then_some(answer)).await;
            }
            Err(Failed::Sent(Failure::Broken(error))) if error.is_connect() => {
                return Err(Failure::Broken(error).of(endpoint.host()));
            }
            // It answered, and what it said would not be better by TLS.
            Err(Failed::Final(error)) => return Err(error.into()),
            plain => plain,
        };
        match self.follow(endpoint, Scheme::Https, first, None).await {
            Ok(answer) => self.known(endpoint, Scheme::Https, ask, itself.then_some(answer)).await,
            // It speaks no TLS: what it said in the clear stands.
            Err(Failed::Sent(failure)) if failure.is_no_tls() => plain.map_err(|failed| failed.of(endpoint.host())),
            Err(failed) => Err(failed.of(endpoint.host())),
        }
    }

    /// Notes the scheme that a server speaks. The response that showed it counts, if it answers what was asked.
    async fn known(
        &self,
        endpoint: &Endpoint,
        scheme: Scheme,
        ask: &Ask<'_>,
        answer: Option<Response>,
    ) -> Result<Response, Trouble> {
        endpoint.learn(scheme);
        match answer {
            Some(answer) => self.challenged(endpoint, scheme, ask, answer, None).await,
            None => self.authorised(endpoint, scheme, ask).await,
        }
    }

    /// Asks, and shows who we are if that is wanted.
    async fn authorised(&self, endpoint: &Endpoint, scheme: Scheme, ask: &Ask<'_>) -> Result<Response, Trouble> {
        let (host, plain) = (endpoint.host(), scheme == Scheme::Http);
        let header = {
            let mut auth = endpoint.state.auth.lock().await;
            auth.header(self, plain, host, ask.scope, None).await?
        };
        let answer = self.follow(endpoint, scheme, ask, header.as_ref()).await.map_err(|failed| failed.of(host))?;
        self.challenged(endpoint, scheme, ask, answer, header).await
    }

    /// If an answer asks who we are, asks again and shows it. `shown` was shown already.
    async fn challenged(
        &self,
        endpoint: &Endpoint,
        scheme: Scheme,
        ask: &Ask<'_>,
        answer: Response,
        shown: Option<HeaderValue>,
    ) -> Result<Response, Trouble> {
        let (host, plain) = (endpoint.host(), scheme == Scheme::Http);
        // Whom it sent us to may ask, too, but gets nothing.
        if answer.status() != StatusCode::UNAUTHORIZED || !endpoint.owns(answer.url()) {
            return Ok(answer);
        }
        let Some(challenge) = Challenge::of(answer.headers()) else { return Ok(answer) };
        let again = {
            let mut auth = endpoint.state.auth.lock().await;
            auth.challenge = Some(challenge);
            if auth.credential.is_none() {
                auth.credential = Some(self.credential(endpoint, ask.scope).await?);
            }
            auth.header(self, plain, host, ask.scope, shown.as_ref()).await?
        };
        if again.is_none() || again == shown {
            return Ok(answer);
        }
        drop(answer);
        self.follow(endpoint, scheme, ask, again.as_ref()).await.map_err(|failed| failed.of(host))
    }

    /// Who we are to this server, by the files of credentials. A helper may take its time, so on a thread for that.
    async fn credential(&self, endpoint: &Endpoint, scope: &Scope) -> Result<Option<Credential>> {
        let named = self.options().auth_file.clone();
        let registry = match endpoint.host() {
            "registry-1.docker.io" => "docker.io".to_owned(),
            host => host.to_owned(),
        };
        let repository = scope.repository().to_owned();
        let find = move || match credentials::files(named.as_deref()) {
            Ok(files) => credentials::find(&files, &registry, &repository),
            // Nowhere to look is nothing found.
            Err(_) => Ok(None),
        };
        let found = tokio::task::spawn_blocking(find).await;
        found.unwrap_or_else(|_| Err(Error::new(Code::SetupFailed, "look for credentials", "the search panicked")))
    }

    /// Asks, and goes where the server sends us. Credentials stay with the server that they are for.
    async fn follow(
        &self,
        endpoint: &Endpoint,
        scheme: Scheme,
        ask: &Ask<'_>,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, Failed> {
        let own = endpoint.url(scheme, "")?;
        let mut url = match ask.target {
            Target::Path(path) => endpoint.url(scheme, path)?,
            Target::Url(url) => url.clone(),
        };
        for _ in 0..=REDIRECTS {
            let mut request =
                self.client_for(&url)?.request(ask.method.clone(), url.clone()).headers(ask.headers.clone());
            if let Some(header) = authorization
                && url.origin() == own.origin()
            {
                request = request.header(AUTHORIZATION, header);
            }
            let mut large = false;
            if let Some(make) = ask.body {
                let (body, length) = make()?;
                large = length > SMALL;
                request = request.header(reqwest::header::CONTENT_LENGTH, length).body(body);
            }
            // How long a body takes is for the one who makes it to watch (upload.rs).
            let answer = match large {
                true => request.send().await.map_err(Failure::Broken),
                false => timely(endpoint.patience(), request.send()).await,
            };
            let answer = answer.map_err(Failed::Sent)?;
            let moved = matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            if !moved || !matches!(ask.method, Method::GET | Method::HEAD) {
                return Ok(answer);
            }
            let next = answer.headers().get(LOCATION).and_then(|location| url.join(location.to_str().ok()?).ok());
            let Some(next) = next else {
                return Err(Failed::Final(lost(endpoint.host(), "without a location")));
            };
            if !matches!(next.scheme(), "http" | "https") {
                let whither = format!("to {}, which is neither https nor http", tame(next.as_str()));
                return Err(Failed::Final(lost(endpoint.host(), &whither)));
            }
            if url.scheme() == "https" && next.scheme() != "https" {
                return Err(Failed::Final(lost(endpoint.host(), "from https to http")));
            }
            url = next;
        }
        Err(Failed::Final(lost(endpoint.host(), "in a loop")))
    }
}

fn attempts(endpoint: &Endpoint) -> (u32, u32) {
    if endpoint.mirror { MIRROR_ATTEMPTS } else { ATTEMPTS }
}

/// Why [`Client::follow`] has no answer.
enum Failed {
    Sent(Failure),
    Final(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed::Final(error)
    }
}

impl Failed {
    fn of(self, host: &str) -> Trouble {
        match self {
            Failed::Sent(failure) => failure.of(host),
            Failed::Final(error) => Trouble::Final(error),
        }
    }
}

fn lost(host: &str, whither: &str) -> Error {
    Error::new(Code::SetupFailed, "reach the registry", format!("it redirects {whither}")).on(host)
}

fn given_up(host: &str, why: &str, asked: Option<Duration>, is_rate_limit: bool, attempts: u32) -> Error {
    let error = |why: String| Error::new(Code::SetupFailed, "reach the registry", why).on(host);
    let often = if attempts > 1 { format!(" ({attempts} attempts)") } else { String::new() };
    match asked {
        Some(asked) if asked > MAX_ASKED => error(format!("{why} (retry after {} s)", asked.as_secs()))
            .hint("wait that long, or log in for a higher limit"),
        _ if is_rate_limit => error(format!("{why}{often}")).hint("wait, or log in for a higher limit"),
        _ => error(format!("{why}{often}")).hint("check the name, the network and the proxy variables"),
    }
}
