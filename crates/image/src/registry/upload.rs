//! Uploading blobs and manifests to a registry.
//!
//! A blob goes in one PUT, which every registry takes. If that breaks, what follows goes in pieces: after each the
//! registry is asked how much it has, and only the rest is sent.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use nsrs_base::error::{At, Code, Error, Result};
use nsrs_store::digest::Digest;
use nsrs_store::reference::Reference;
use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderMap, LOCATION, RANGE};
use reqwest::{Body, Method, Response, StatusCode, Url};

use super::auth::Scope;
use super::client::Client;
use super::endpoint::Endpoint;
use super::failure::{self, Asked, Purpose};
use super::http::{Ask, Target};
use super::retry::Trouble;

/// How much is read from the disk at once.
const READ: usize = 256 << 10;
/// The pieces of an upload that broke. Some registries take no larger ones.
const PIECE: u64 = 4 << 20;
/// A registry may write a large blob to its own store before it answers.
const STALL: Duration = Duration::from_secs(120);

/// How a blob got into the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uploaded {
    /// The registry had it already.
    Existed,
    /// The registry took it from another of its repositories.
    Mounted,
    /// We sent all of it.
    Sent,
}

/// The repository that is pushed to, and the scope of the tokens that allow it.
#[derive(Debug)]
pub struct UploadTarget<'a> {
    reference: &'a Reference,
    endpoint: Endpoint,
    scope: Scope,
}

/// One push into one repository.
#[derive(Debug)]
pub struct Push<'a> {
    client: &'a Client,
    to: UploadTarget<'a>,
}

impl Client {
    /// Begins a push. `from` are other repositories of the same registry that blobs may be taken from.
    #[must_use]
    pub fn push<'a>(&'a self, reference: &'a Reference, from: &[&str]) -> Push<'a> {
        let scope = Scope::push(reference.repository(), from);
        Push { client: self, to: UploadTarget { reference, endpoint: self.registry(reference), scope } }
    }
}

impl Push<'_> {
    fn path(&self, rest: &str) -> String {
        format!("{}/{rest}", self.to.reference.repository())
    }

    async fn send(&self, ask: &Ask<'_>) -> Result<Response> {
        self.client.send(&self.to.endpoint, ask).await
    }

    async fn refused(&self, answer: Response, what: &str) -> Error {
        let reference = self.to.reference;
        let (image, repository) = (format!("{what} to {}", reference.familiar()), reference.name());
        let asked = Asked {
            purpose: Purpose::Push,
            image: &image,
            repository: &repository,
            host: self.to.endpoint.host(),
            registry: reference.registry(),
        };
        failure::refusal(answer, asked).await
    }

    /// Makes sure that the registry has this blob: looks, lets it take it from the repository `from`, or sends it.
    /// `told` is called with the number of bytes that were sent.
    ///
    /// # Errors
    /// The registry refuses, or can't be reached.
    pub fn blob(&self, digest: &Digest, file: File, from: Option<&str>, told: &dyn Fn(u64)) -> Result<Uploaded> {
        self.client.wait(async {
            if self.exists(digest).await? {
                return Ok(Uploaded::Existed);
            }
            let size = file.metadata().at("read the blob", digest)?.len();
            let source = Arc::new(BlobSource { file, size, sent: AtomicU64::new(0) });
            let mount = match from {
                Some(from) => format!("?mount={digest}&from={from}"),
                None => String::new(),
            };
            let Some(location) = self.begin(&mount).await? else { return Ok(Uploaded::Mounted) };
            match self.whole(digest, &source, &location, told).await {
                Ok(()) => Ok(Uploaded::Sent),
                Err(Trouble::Final(error)) => Err(error),
                Err(trouble) => {
                    let mut backoff = self.client.backoff(&self.to.endpoint);
                    self.client.pause(&self.to.endpoint, &mut backoff, trouble).await?;
                    self.in_pieces(digest, &source, told).await.map(|()| Uploaded::Sent)
                }
            }
        })
    }

    async fn exists(&self, digest: &Digest) -> Result<bool> {
        let path = self.path(&format!("blobs/{digest}"));
        let answer = self.send(&Ask::new(Method::HEAD, &path, &self.to.scope)).await?;
        match answer.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(self.refused(answer, &digest.to_string()).await),
        }
    }

    /// Opens an upload: where it goes. `None`: the registry has mounted the blob.
    async fn begin(&self, query: &str) -> Result<Option<Url>> {
        let path = self.path(&format!("blobs/uploads/{query}"));
        let empty = || Ok((Body::from(Vec::new()), 0));
        let ask = Ask { body: Some(&empty), ..Ask::new(Method::POST, &path, &self.to.scope) };
        let answer = self.send(&ask).await?;
        match answer.status() {
            StatusCode::CREATED if !query.is_empty() => Ok(None),
            StatusCode::ACCEPTED => self.location(&answer).map(Some),
            _ => Err(self.refused(answer, "a blob").await),
        }
    }

    fn location(&self, answer: &Response) -> Result<Url> {
        let location = answer.headers().get(LOCATION).and_then(|value| answer.url().join(value.to_str().ok()?).ok());
        match location {
            Some(url) if answer.url().scheme() == "https" && url.scheme() != "https" => {
                failure::nonsense(self.to.endpoint.host(), "redirects the upload to an unencrypted connection")
            }
            Some(url) => Ok(url),
            None => failure::nonsense(self.to.endpoint.host(), "no upload location"),
        }
    }

    /// Sends everything in one request.
    async fn whole(
        &self,
        digest: &Digest,
        source: &Arc<BlobSource>,
        location: &Url,
        told: &dyn Fn(u64),
    ) -> Result<(), Trouble> {
        let url = with_digest(location, digest);
        let answer = self.piece(Method::PUT, &url, source, 0..source.size, told).await?;
        match answer.status() {
            StatusCode::CREATED => Ok(()),
            _ => Err(self.refused(answer, &digest.to_string()).await.into()),
        }
    }

    /// Sends a part of the blob, and watches that it gets on.
    async fn piece(
        &self,
        method: Method,
        url: &Url,
        source: &Arc<BlobSource>,
        range: std::ops::Range<u64>,
        told: &dyn Fn(u64),
    ) -> Result<Response, Trouble> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, "application/octet-stream".parse().expect("it is a header"));
        if method == Method::PATCH
            && let Ok(value) = format!("{}-{}", range.start, range.end - 1).parse()
        {
            headers.insert(CONTENT_RANGE, value);
        }
        source.sent.store(range.start, Ordering::Relaxed);
        let body = || Ok((source.body(range.clone()), range.end - range.start));
        let ask = Ask { method, target: Target::Url(url), headers, body: Some(&body), scope: &self.to.scope };
        let sending = self.client.send_once(&self.to.endpoint, &ask);
        tokio::pin!(sending);
        let (mut last, mut since) = (range.start, SystemTime::now());
        loop {
            match tokio::time::timeout(Duration::from_millis(100), &mut sending).await {
                Ok(answer) => return answer,
                Err(_) => {
                    let sent = source.sent.load(Ordering::Relaxed);
                    told(sent);
                    if sent != last {
                        (last, since) = (sent, SystemTime::now());
                    }
                    if since.elapsed().is_ok_and(|still| still > STALL) {
                        return Err(Trouble::passing(format!("the upload stalled at byte {sent}")));
                    }
                }
            }
        }
    }

    /// Sends everything in pieces, each again until it is there.
    async fn in_pieces(&self, digest: &Digest, source: &Arc<BlobSource>, told: &dyn Fn(u64)) -> Result<()> {
        let lost = |why: &str| failure::nonsense(self.to.endpoint.host(), why.to_owned());
        let mut backoff = self.client.backoff(&self.to.endpoint);
        let mut upload = self.begin("").await?;
        let mut at = 0;
        while at < source.size {
            let Some(url) = &upload else { return lost("it mounted a blob without a request") };
            let end = source.size.min(at + PIECE);
            let trouble = match self.piece(Method::PATCH, url, source, at..end, told).await {
                Ok(answer) if answer.status() == StatusCode::ACCEPTED => {
                    upload = Some(self.location(&answer)?);
                    at = arrived(answer.headers()).unwrap_or(end).min(end);
                    backoff.reset();
                    continue;
                }
                // It has more or less than we think.
                Ok(answer) if answer.status() == StatusCode::RANGE_NOT_SATISFIABLE => {
                    Trouble::passing("it expects another part of the blob")
                }
                Ok(answer) => return Err(self.refused(answer, &digest.to_string()).await),
                Err(trouble) => trouble,
            };
            self.client.pause(&self.to.endpoint, &mut backoff, trouble).await?;
            match self.status(url).await? {
                Some((next, there)) if there <= source.size => (upload, at) = (Some(next), there),
                // It has forgotten the upload.
                _ => (upload, at) = (self.begin("").await?, 0),
            }
        }
        let Some(url) = upload else { return lost("it mounted a blob without a request") };
        let url = with_digest(&url, digest);
        let empty = || Ok((Body::from(Vec::new()), 0));
        let ask = Ask { target: Target::Url(&url), body: Some(&empty), ..Ask::new(Method::PUT, "", &self.to.scope) };
        let answer = self.send(&ask).await?;
        match answer.status() {
            StatusCode::CREATED => Ok(()),
            _ if self.exists(digest).await? => Ok(()),
            _ => Err(self.refused(answer, &digest.to_string()).await),
        }
    }

    /// How much of an upload has arrived, and where it goes on. `None`: the registry knows nothing of it.
    async fn status(&self, url: &Url) -> Result<Option<(Url, u64)>> {
        let ask = Ask { target: Target::Url(url), ..Ask::new(Method::GET, "", &self.to.scope) };
        let answer = self.send(&ask).await?;
        match answer.status() {
            StatusCode::NO_CONTENT | StatusCode::OK | StatusCode::ACCEPTED => {
                let next = self.location(&answer).unwrap_or_else(|_| url.clone());
                Ok(Some((next, arrived(answer.headers()).unwrap_or(0))))
            }
            _ => Ok(None),
        }
    }

    /// Gives the registry a manifest, under a tag or under its digest alone.
    ///
    /// # Errors
    /// The registry refuses, or understands something else by it.
    pub fn manifest(&self, bytes: &[u8], media_type: &str, tag: Option<&str>) -> Result<Digest> {
        let digest = Digest::of(bytes);
        let selector = tag.map_or_else(|| digest.to_string(), str::to_owned);
        self.client.wait(async {
            let path = self.path(&format!("manifests/{selector}"));
            let body = || Ok((Body::from(bytes.to_vec()), bytes.len() as u64));
            let ask = Ask { body: Some(&body), ..Ask::new(Method::PUT, &path, &self.to.scope) };
            let answer = self.send(&ask.header(CONTENT_TYPE, media_type)).await?;
            if answer.status() != StatusCode::CREATED {
                return Err(self.refused(answer, "the manifest").await);
            }
            let named = answer.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
            match named.and_then(|text| text.parse::<Digest>().ok()) {
                Some(other) if other != digest => {
                    let why = format!("the registry stored another manifest ({other})");
                    Err(Error::new(Code::ImageInvalid, "push the manifest", why).on(digest.to_string()))
                }
                _ => Ok(digest),
            }
        })
    }
}

fn with_digest(location: &Url, digest: &Digest) -> Url {
    let mut url = location.clone();
    url.query_pairs_mut().append_pair("digest", &digest.to_string());
    url
}

/// How many bytes an upload has, by `Range: 0-LAST`.
fn arrived(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(RANGE)?.to_str().ok()?;
    let (first, last) = range.strip_prefix("bytes=").unwrap_or(range).split_once('-')?;
    let last: u64 = last.trim().parse().ok()?;
    // An upload without a byte says 0-0 (docker's registry), as one with a single byte does.
    match (first.trim(), last) {
        ("0", 0) => Some(0),
        ("0", last) => last.checked_add(1),
        _ => None,
    }
}

/// A file that is sent, and how much of it was.
#[derive(Debug)]
struct BlobSource {
    file: File,
    size: u64,
    sent: AtomicU64,
}

impl BlobSource {
    /// A part of the file as a body. It is read where it is needed; the page cache has it, mostly.
    fn body(self: &Arc<Self>, range: std::ops::Range<u64>) -> Body {
        let start = (self.clone(), range.start);
        Body::wrap_stream(futures_util::stream::try_unfold(start, move |(source, at)| async move {
            if at >= range.end {
                return Ok::<_, std::io::Error>(None);
            }
            let most = usize::try_from(range.end - at).unwrap_or(READ).min(READ);
            let mut buffer = vec![0; most];
            let count = source.file.read_at(&mut buffer, at)?;
            if count == 0 {
                return Err(std::io::Error::other("the file became shorter"));
            }
            buffer.truncate(count);
            let next = at + count as u64;
            source.sent.fetch_max(next, Ordering::Relaxed);
            Ok(Some((Bytes::from(buffer), (source, next))))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_arrived_is_one_more_than_the_last_byte() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, text.parse().unwrap());
            arrived(&headers)
        };
        assert_eq!(of("0-99"), Some(100));
        assert_eq!(of("bytes=0-99"), Some(100));
        assert_eq!(of("0-0"), Some(0));
        assert_eq!(of("5-9"), None);
        assert_eq!(of("0-18446744073709551615"), None);
    }

    #[test]
    fn the_digest_joins_what_the_registry_put_into_the_address() {
        let url = Url::parse("https://a.example/up?state=x%2Fy").unwrap();
        let digest = Digest::of(b"");
        assert!(
            with_digest(&url, &digest).as_str().starts_with("https://a.example/up?state=x%2Fy&digest=sha256%3Ae3b0")
        );
    }
}
