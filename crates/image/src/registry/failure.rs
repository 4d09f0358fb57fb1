//! What a registry's refusal means for the user: which registry, which repository, and what to do.

use nsrs_base::calls::LOGIN;
use nsrs_base::error::{Code, Error, Result};
use reqwest::{Response, StatusCode};
use serde::Deserialize;

use super::connection::{IDLE, explain};
use super::retry::Trouble;
use super::untrusted::tame;

/// The most that is read of an answer that is not a blob.
pub const MOST_TEXT: usize = 64 << 10;

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Reading from a repository, for `nsrs pull`.
    Pull,
    /// Writing to a repository, for `nsrs push`.
    Push,
}

impl Purpose {
    fn verb(self) -> &'static str {
        match self {
            Purpose::Pull => "pull",
            Purpose::Push => "push",
        }
    }
}

/// What was asked, as an error says it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// What the request was for.
    pub purpose: Purpose,
    /// The image, as the user reads it.
    pub image: &'a str,
    /// The repository, with its registry.
    pub repository: &'a str,
    /// The host that answered, which may be a mirror.
    pub host: &'a str,
    /// The registry's name as `nsrs login` takes it.
    pub registry: &'a str,
}

#[derive(Deserialize)]
struct Envelope {
    errors: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// What the body of a refusal says, in the registry's own words; empty if it says nothing.
#[must_use]
pub fn words(body: &[u8]) -> String {
    if let Ok(envelope) = serde_json::from_slice::<Envelope>(body) {
        let items = envelope.errors.iter().map(|item| match (item.code.as_str(), item.message.as_str()) {
            (code, "") => code.to_owned(),
            ("", message) => message.to_owned(),
            (code, message) => format!("{message} ({code})"),
        });
        return tame(&items.collect::<Vec<_>>().join("; "));
    }
    let text = String::from_utf8_lossy(&body[..body.len().min(1000)]);
    // A page for browsers helps nobody on a terminal.
    if text.contains('<') { String::new() } else { tame(&text) }
}

/// Reads an answer into memory, up to `most` bytes.
///
/// # Errors
/// There is more, which stays so; the connection failed.
pub async fn body(mut answer: Response, most: usize) -> Result<Vec<u8>, Trouble> {
    let host = answer.url().host_str().unwrap_or_default().to_owned();
    let mut bytes = Vec::new();
    loop {
        match tokio::time::timeout(IDLE, answer.chunk()).await {
            Err(_) => return Err(Trouble::passing("the response stopped half-way")),
            Ok(Err(error)) => return Err(Trouble::passing(explain(&error))),
            Ok(Ok(None)) => return Ok(bytes),
            Ok(Ok(Some(chunk))) if bytes.len() + chunk.len() > most => {
                return Ok(nonsense(&host, format!("larger than the allowed {most} bytes"))?);
            }
            Ok(Ok(Some(chunk))) => bytes.extend_from_slice(&chunk),
        }
    }
}

/// The error for a response that isn't a success.
pub async fn refusal(answer: Response, asked: Asked<'_>) -> Error {
    let status = answer.status();
    let body = body(answer, MOST_TEXT).await.unwrap_or_default();
    of_status(status, &words(&body), asked)
}

/// The error for this status, with what the registry says.
#[must_use]
pub fn of_status(status: StatusCode, words: &str, asked: Asked<'_>) -> Error {
    let Asked { purpose, image, repository, host, registry } = asked;
    let step = purpose.verb();
    let said = if words.is_empty() { String::new() } else { format!(": {words}") };
    let code = if status == StatusCode::NOT_FOUND { Code::ImageNotFound } else { Code::SetupFailed };
    let error = |why: String| Error::new(code, step, format!("{why}{said}")).on(image);
    let login = LOGIN.of(registry);
    match status.as_u16() {
        // Docker's registry answers so for repositories that don't exist, too.
        401 => error(format!("{host} requires a login for {repository}, or has no such repository"))
            .hint(format!("check the name; for a private image: {login}")),
        403 => error(format!("{host} denies access to {repository}"))
            .hint(format!("log in with an account that may {step} there: {login}")),
        404 if purpose == Purpose::Push => error(format!("{host} has no repository {repository}"))
            .hint("some registries need a repository to be created before the first push"),
        404 => error(format!("{host} has no such image in {repository}"))
            .hint(format!("check the name and the tag; for a private repository: {login}")),
        405 => error(format!("{host} does not allow it")).hint("the registry may be read-only, a mirror or a cache"),
        413 => error(format!("too large for {host}")),
        429 => {
            error(format!("rate limit of {host} exceeded")).hint(format!("wait, or log in for a higher limit: {login}"))
        }
        _ => error(format!("{host} responded with {status}")),
    }
}

/// The error for a response that violates the protocol.
pub fn nonsense<T>(host: &str, why: impl Into<String>) -> Result<T> {
    Err(Error::new(Code::SetupFailed, "read the response of the registry", why).on(host))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nsrs_base::options::Front;

    #[test]
    fn what_the_registry_says_does_nothing_to_the_terminal() {
        let body = br#"{"errors":[{"code":"DENIED","message":"no\u001b[31m way\n"},{"code":"X"}]}"#;
        assert_eq!(words(body), r"no\x1b[31m way (DENIED); X");
        assert_eq!(words(b"<html>502</html>"), "");
        assert!(words("x ".repeat(9999).as_bytes()).len() < 400);
    }

    #[test]
    fn refusals_name_registry_repository_and_remedy() {
        let asked =
            Asked { purpose: Purpose::Pull, image: "a.io/b:1", repository: "a.io/b", host: "a.io", registry: "a.io" };
        for status in [401, 403, 404] {
            let error = of_status(StatusCode::from_u16(status).unwrap(), "says so", asked);
            let text = error.to_string();
            assert!(text.contains("a.io/b:1") && text.contains("a.io/b") && text.ends_with("says so"), "{text}");
            assert!(error.clone().in_words_of(Front::Shell).hint.contains("nsrs login a.io"), "{}", error.hint);
        }
    }
}
