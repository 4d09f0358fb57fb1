//! Showing a registry who we are: basic authentication and bearer tokens (docker's token specification).
//!
//! Nothing is shown before a registry asks (401), and then only to that registry: not to where it redirects, and its
//! token service must be reached by https, unless the registry itself is spoken to without encryption.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use nsrs_base::calls::LOGIN;
use nsrs_base::error::{Code, Error, Result};
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use super::connection::{Failure, IDLE, timely};
use super::credentials::{Credential, Secret};
use super::failure;
use super::retry::{Trouble, asked_wait, is_passing};
use super::untrusted::tame;

/// How long a token lives if nothing else is said (token specification).
const USUAL_LIFE: u64 = 60;
/// A token is not used in its last moments: it has a way to go.
const MARGIN: Duration = Duration::from_secs(5);
/// The most that is read of a token service's answer.
const MOST_ANSWER: usize = 1 << 20;

/// What we want to do in a registry: the scopes of the token specification, separated by spaces.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope(pub String);

impl Scope {
    /// Permission to read a repository.
    #[must_use]
    pub fn pull(repository: &str) -> Scope {
        Scope(format!("repository:{repository}:pull"))
    }

    /// To write a repository, and to read these.
    #[must_use]
    pub fn push(repository: &str, from: &[&str]) -> Scope {
        let from = from.iter().map(|from| format!(" repository:{from}:pull"));
        Scope(format!("repository:{repository}:pull,push{}", from.collect::<String>()))
    }

    /// Nothing but to be known: a login.
    #[must_use]
    pub fn none() -> Scope {
        Scope(String::new())
    }

    /// The repository's path, for the credentials that are kept of it alone.
    #[must_use]
    pub fn repository(&self) -> &str {
        self.0.split(':').nth(1).unwrap_or_default()
    }
}

/// What a registry wants to see, from its `WWW-Authenticate`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// A user and a password with each request (RFC 7617).
    Basic,
    /// A token of this service.
    Bearer {
        /// The address of the token service.
        realm: String,
        /// Under which name it knows the registry.
        service: Option<String>,
    },
}

impl Challenge {
    /// What is wanted; a token, if there is a choice.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Challenge> {
        let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let mut basic = None;
        for value in values {
            for challenge in http_auth::parser::ChallengeParser::new(value).flatten() {
                let param = |name: &str| {
                    let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                    found.map(|(_, value)| value.to_unescaped())
                };
                if challenge.scheme.eq_ignore_ascii_case("bearer") {
                    if let Some(realm) = param("realm") {
                        return Some(Challenge::Bearer { realm, service: param("service") });
                    }
                } else if challenge.scheme.eq_ignore_ascii_case("basic") {
                    basic = Some(Challenge::Basic);
                }
            }
        }
        basic
    }
}

/// What was learnt of one host: what it wants to see, and the tokens it was shown.
#[derive(Default)]
pub struct HostAuth {
    /// What it asked for; nothing before it has.
    pub challenge: Option<Challenge>,
    /// Who we are there; `None` before it was looked up.
    pub credential: Option<Option<Credential>>,
    tokens: HashMap<Scope, Token>,
}

impl std::fmt::Debug for HostAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HostAuth({:?})", self.challenge)
    }
}

struct Token {
    header: HeaderValue,
    ends: Instant,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    expires_in: Option<u64>,
}

/// Sends a request to a token service, without following it elsewhere.
pub trait Service {
    /// The client that reaches this address.
    ///
    /// # Errors
    /// It can't be set up.
    fn client_for(&self, url: &Url) -> Result<reqwest::Client>;
}

impl HostAuth {
    /// The header to show for this scope, if we have one at hand or can get it. `refused` is the header that was just
    /// answered with 401: it is not shown again.
    ///
    /// # Errors
    /// The token service refuses, or can't be reached.
    pub async fn header(
        &mut self,
        service: &impl Service,
        plain: bool,
        host: &str,
        scope: &Scope,
        refused: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>, Trouble> {
        let Some(challenge) = self.challenge.clone() else { return Ok(None) };
        let credential = self.credential.clone().flatten();
        let (realm, name) = match challenge {
            Challenge::Basic => {
                return Ok(credential.as_ref().and_then(|credential| basic(&credential.secret)));
            }
            Challenge::Bearer { realm, service } => (realm, service),
        };
        if let Some(Credential { secret: Secret::Bearer(token), .. }) = &credential {
            return Ok(bearer(token));
        }
        if let Some(token) = self.tokens.get(scope)
            && token.ends > Instant::now()
            && refused != Some(&token.header)
        {
            return Ok(Some(token.header.clone()));
        }
        let realm = check_realm(&realm, plain, host)?;
        let token = fetch(service, &realm, name.as_deref(), host, scope, credential.as_ref()).await?;
        let header = token.header.clone();
        self.tokens.insert(scope.clone(), token);
        Ok(Some(header))
    }
}

fn secret_header(text: String) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(&text).ok()?;
    header.set_sensitive(true);
    Some(header)
}

fn bearer(token: &str) -> Option<HeaderValue> {
    secret_header(format!("Bearer {token}"))
}

fn basic(secret: &Secret) -> Option<HeaderValue> {
    match secret {
        Secret::Password { user, password } => {
            secret_header(format!("Basic {}", BASE64.encode(format!("{user}:{password}"))))
        }
        Secret::Identity(_) | Secret::Bearer(_) => None,
    }
}

/// A registry may send us to any token service, but our password does not travel there in the clear.
fn check_realm(realm: &str, plain: bool, host: &str) -> Result<Url> {
    let refused = |why: &str| {
        Error::new(Code::SetupFailed, "get a token for", format!("its token service {} {why}", tame(realm))).on(host)
    };
    let url = Url::parse(realm).map_err(|_| refused("is not a URL"))?;
    match url.scheme() {
        "https" => Ok(url),
        "http" if plain => Ok(url),
        "http" => Err(refused("is reached without encryption, so no credentials are sent to it")
            .hint("ask the registry's operator for a realm that starts with https://")),
        _ => Err(refused("is neither https nor http")),
    }
}

async fn fetch(
    service: &impl Service,
    realm: &Url,
    name: Option<&str>,
    host: &str,
    scope: &Scope,
    credential: Option<&Credential>,
) -> Result<Token, Trouble> {
    let asked = Instant::now();
    let mut url = realm.clone();
    let scopes = || scope.0.split(' ').filter(|scope| !scope.is_empty());
    let client = service.client_for(realm)?;
    let identity = match credential.map(|credential| &credential.secret) {
        Some(Secret::Identity(token)) => Some(token),
        _ => None,
    };
    let request = if let Some(token) = identity {
        // The grant of an identity token is a form (token specification, OAuth 2).
        let mut form = vec![("grant_type", "refresh_token"), ("client_id", "nsrs"), ("refresh_token", token)];
        form.extend(name.map(|name| ("service", name)));
        form.push(("scope", &scope.0));
        let body = encoded(&form);
        client.request(Method::POST, url).header("content-type", "application/x-www-form-urlencoded").body(body)
    } else {
        let mut query = url.query_pairs_mut();
        query.extend_pairs(name.map(|name| ("service", name)));
        query.extend_pairs(scopes().map(|scope| ("scope", scope)));
        if let Some(Credential { secret: Secret::Password { user, .. }, .. }) = credential {
            query.append_pair("account", user);
        }
        drop(query);
        let request = client.get(url);
        match credential.and_then(|credential| basic(&credential.secret)) {
            Some(header) => request.header("authorization", header),
            None => request,
        }
    };
    let answer = timely(IDLE, request.send()).await.map_err(|why| match why {
        Failure::Slow => {
            Trouble::passing(format!("its token service {} does not respond", realm.host_str().unwrap_or_default()))
        }
        broken => broken.of(host),
    })?;
    let status = answer.status();
    let wait = asked_wait(answer.headers(), std::time::SystemTime::now());
    let body = failure::body(answer, MOST_ANSWER).await?;
    if is_passing(status) {
        return Err(Trouble::Passing {
            why: format!("the token service responded with {status}"),
            asked: wait,
            is_rate_limit: status == StatusCode::TOO_MANY_REQUESTS,
        });
    }
    if status != StatusCode::OK {
        return Err(refused(status, &failure::words(&body), realm, host, credential).into());
    }
    let answer: Answer = serde_json::from_slice(&body).map_err(|_| no_token(host))?;
    let token = if answer.token.is_empty() { answer.access_token } else { answer.token };
    let header = Some(token).filter(|token| !token.is_empty()).and_then(|token| bearer(&token));
    let life = Duration::from_secs(answer.expires_in.unwrap_or(USUAL_LIFE).clamp(USUAL_LIFE, 24 * 3600));
    Ok(Token { header: header.ok_or_else(|| no_token(host))?, ends: asked + life - MARGIN })
}

/// A form as the body of a request.
fn encoded(form: &[(&str, &str)]) -> String {
    let address = Url::parse_with_params("form:", form);
    address.ok().and_then(|address| address.query().map(str::to_owned)).unwrap_or_default()
}

fn no_token(host: &str) -> Error {
    Error::new(Code::SetupFailed, "get a token for", "the response of its token service has no token").on(host)
}

fn refused(status: StatusCode, words: &str, realm: &Url, host: &str, credential: Option<&Credential>) -> Error {
    let service = realm.host_str().unwrap_or_default();
    let said = if words.is_empty() { status.to_string() } else { format!("{status}: {words}") };
    let registry = if host == "registry-1.docker.io" { "docker.io" } else { host };
    let login = LOGIN.of(registry);
    match credential {
        Some(credential) if matches!(status.as_u16(), 400 | 401 | 403) => {
            let why = format!("{service} refuses the credentials of {}: {said}", credential.who());
            Error::new(Code::SetupFailed, "get a token for", why).on(host).hint(login)
        }
        None if matches!(status.as_u16(), 401 | 403) => {
            let why = format!("{service} requires a login: {said}");
            Error::new(Code::SetupFailed, "get a token for", why).on(host).hint(login)
        }
        _ => Error::new(Code::SetupFailed, "get a token for", format!("{service} responded with {said}")).on(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(values: &[&'static str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(value));
        }
        Challenge::of(&headers)
    }

    #[test]
    fn a_token_is_preferred_to_a_password() {
        let bearer = Some(Challenge::Bearer { realm: "https://a/t".into(), service: Some("r, \"q\"".into()) });
        assert_eq!(challenge(&["Basic realm=\"x\"", "Bearer realm=\"https://a/t\",service=\"r, \\\"q\\\"\""]), bearer);
        assert_eq!(challenge(&["Basic realm=\"x\", bearer realm=\"https://a/t\",service=\"r, \\\"q\\\"\""]), bearer);
        assert_eq!(challenge(&["Basic realm=\"x\""]), Some(Challenge::Basic));
        assert_eq!(challenge(&["Bearer"]), None);
        assert_eq!(challenge(&["Negotiate"]), None);
        assert_eq!(challenge(&[]), None);
    }

    #[test]
    fn a_password_does_not_travel_in_the_clear() {
        assert!(check_realm("https://auth.example/token", false, "r.example").is_ok());
        assert!(check_realm("http://auth.example/token", true, "localhost:5000").is_ok());
        let error = check_realm("http://auth.example/token", false, "r.example").unwrap_err();
        assert!(error.to_string().contains("without encryption"), "{error}");
        assert!(check_realm("file:///etc/passwd", true, "localhost:5000").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_challenge_makes_the_reader_panic(text in "[ -~]{0,120}") {
            let mut headers = HeaderMap::new();
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(&text).unwrap());
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(&format!("Bearer realm={text}")).unwrap());
            let _ = Challenge::of(&headers);
        }
    }

    #[test]
    fn forms_are_encoded() {
        assert_eq!(encoded(&[("a", "b c"), ("d", "e&f=ä")]), "a=b+c&d=e%26f%3D%C3%A4");
    }

    #[test]
    fn scopes_are_those_of_the_specification() {
        assert_eq!(Scope::push("a/b", &["c"]).0, "repository:a/b:pull,push repository:c:pull");
        assert_eq!((Scope::pull("a/b").repository(), Scope::none().repository()), ("a/b", ""));
    }
}
