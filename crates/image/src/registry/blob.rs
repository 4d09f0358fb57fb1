//! Downloading a blob into the store: again where the connection breaks, from where it broke.

use bytes::Bytes;
use nsrs_base::error::{Code, Error, Result};
use nsrs_store::content::Ingest;
use nsrs_store::digest::Digest;
use nsrs_store::reference::Reference;
use reqwest::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, HeaderName, RANGE};
use reqwest::{Method, Response, StatusCode};
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::auth::Scope;
use super::client::Client;
use super::connection::{IDLE, explain};
use super::endpoint::Endpoint;
use super::failure::{self, Asked, Purpose};
use super::http::Ask;
use super::retry::{Backoff, Trouble};

/// How many pieces wait between the network and the disk. A piece is some 10 to 400 kB.
const PIECES: usize = 8;
/// A server that breaks every connection but gets us further by so many bytes is better than none. One that brings less would
/// be asked without end.
const PROGRESS: u64 = 64 << 10;

/// A blob to download, and the image that it belongs to.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The image whose blob it is.
    pub reference: Reference,
    /// The digest that its content must have.
    pub digest: Digest,
    /// Its size by its descriptor.
    pub size: u64,
    /// Whether mirrors may be asked, before the registry itself.
    pub mirrors: bool,
}

impl Client {
    /// Downloads the rest of a blob into the store's file; it is not committed yet. `told` is called with the number of
    /// bytes that are there, and ends the download by an error.
    ///
    /// # Errors
    /// It isn't there, can't be reached, is larger or smaller than it should be, or can't be written. What
    /// was received stays, to be resumed.
    pub fn download(
        &self,
        wanted: &Wanted,
        ingest: &mut Ingest,
        mut told: impl FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        ingest.expect_size(wanted.size);
        if ingest.offset() > wanted.size {
            ingest.restart()?;
        }
        told(ingest.offset())?;
        if ingest.offset() == wanted.size {
            return Ok(());
        }
        let (sender, receiver) = mpsc::channel(PIECES);
        let (client, wanted, from) = (self.clone(), wanted.clone(), ingest.offset());
        // The network goes on while this thread hashes and writes.
        self.spawn(async move { Pump { client, wanted, at: from, counted_from: from, sender }.run().await });
        drain(receiver, ingest, &mut told)
    }
}

fn drain(
    mut receiver: Receiver<Result<Bytes>>,
    ingest: &mut Ingest,
    told: &mut impl FnMut(u64) -> Result<()>,
) -> Result<()> {
    while let Some(piece) = receiver.blocking_recv() {
        ingest.write(&piece?)?;
        told(ingest.offset())?;
    }
    Ok(())
}

/// Fetches from one server after the other until everything is there. Ends early when the receiver is gone.
struct Pump {
    client: Client,
    wanted: Wanted,
    /// How much was sent on.
    at: u64,
    /// How much that was when failures began to be counted.
    counted_from: u64,
    sender: Sender<Result<Bytes>>,
}

/// How a response that was not a failure ended.
enum End {
    Complete,
    Abandoned,
}

impl Pump {
    async fn run(mut self) {
        let mut sources = self.client.sources(&self.wanted.reference);
        sources.retain(|endpoint| self.wanted.mirrors || !endpoint.mirror);
        for endpoint in sources {
            // Another layer may have found that out in the meantime.
            if self.client.is_lost(&endpoint) {
                continue;
            }
            match self.from(&endpoint).await {
                Ok(End::Complete | End::Abandoned) => return,
                Err((error, is_out)) if endpoint.mirror => {
                    if !is_out || self.client.lose(&endpoint) {
                        let message = format!("mirror {} failed: {error}", endpoint.host());
                        self.client.progress().warn(message);
                    }
                }
                Err((error, _)) => drop(self.sender.send(Err(error)).await),
            }
        }
    }

    /// Fetches from one server. A failure says whether it was out of reach: then other blobs can't be had there either.
    async fn from(&mut self, endpoint: &Endpoint) -> Result<End, (Error, bool)> {
        let client = self.client.clone();
        let mut backoff = client.backoff(endpoint);
        self.counted_from = self.at;
        loop {
            match self.once(endpoint, &mut backoff).await {
                Ok(end) => return Ok(end),
                Err(trouble) => {
                    let is_out = matches!(trouble, Trouble::Passing { .. });
                    client.pause(endpoint, &mut backoff, trouble).await.map_err(|error| (error, is_out))?;
                }
            }
        }
    }

    async fn once(&mut self, endpoint: &Endpoint, backoff: &mut Backoff) -> Result<End, Trouble> {
        let repository = endpoint.repository(self.wanted.reference.repository());
        let scope = Scope::pull(&repository);
        let path = format!("{repository}/blobs/{}", self.wanted.digest);
        let mut ask = Ask::new(Method::GET, &path, &scope);
        if self.at > 0 {
            ask = ask.header(RANGE, &format!("bytes={}-", self.at));
        }
        let answer = self.client.send_once(endpoint, &ask).await?;
        let skip = self.begin(endpoint, &answer)?;
        match skip {
            Some(skip) => self.pass_on(answer, skip, backoff).await,
            None => Err(self.refused(endpoint, answer).await.into()),
        }
    }

    /// How many bytes of this answer we have already; `None`: it is a refusal.
    fn begin(&self, endpoint: &Endpoint, answer: &Response) -> Result<Option<u64>> {
        if let Some(size) = size_of(answer).filter(|size| *size != self.wanted.size) {
            // It would be the same with the next attempt.
            let why = format!("{} has {size} bytes, but the manifest says {}", endpoint.host(), self.wanted.size);
            return Err(Error::new(Code::ImageInvalid, "pull", why).on(self.blob()));
        }
        match answer.status() {
            // The server ignores ranges and begins anew: what we have is read over.
            StatusCode::OK => Ok(Some(self.at)),
            StatusCode::PARTIAL_CONTENT if self.at > 0 => {
                let range = header(answer, &CONTENT_RANGE);
                let start = range.and_then(start_of);
                match start {
                    Some(start) if start <= self.at => Ok(Some(self.at - start)),
                    _ => failure::nonsense(
                        endpoint.host(),
                        format!("wrong range {range:?} for {} from byte {}", self.wanted.digest, self.at),
                    ),
                }
            }
            _ => Ok(None),
        }
    }

    async fn refused(&self, endpoint: &Endpoint, answer: Response) -> Error {
        let reference = &self.wanted.reference;
        let image = self.blob();
        let repository = reference.name();
        let asked = Asked {
            purpose: Purpose::Pull,
            image: &image,
            repository: &repository,
            host: endpoint.host(),
            registry: if endpoint.mirror { endpoint.host() } else { reference.registry() },
        };
        failure::refusal(answer, asked).await
    }

    async fn pass_on(&mut self, mut answer: Response, mut skip: u64, backoff: &mut Backoff) -> Result<End, Trouble> {
        loop {
            let piece = match tokio::time::timeout(IDLE, answer.chunk()).await {
                Err(_) => return Err(self.cut("the connection stalled")),
                Ok(Err(error)) => return Err(self.cut(&explain(&error))),
                Ok(Ok(None)) if self.at < self.wanted.size => return Err(self.cut("the connection closed early")),
                Ok(Ok(None)) => return Ok(End::Complete),
                Ok(Ok(Some(piece))) => piece,
            };
            let over = skip.min(piece.len() as u64);
            skip -= over;
            let piece = piece.slice(usize::try_from(over).unwrap_or(piece.len())..);
            if piece.is_empty() {
                continue;
            }
            self.at += piece.len() as u64;
            if self.at > self.wanted.size {
                let why = format!("the response has more than its {} bytes", self.wanted.size);
                return Err(Error::new(Code::ImageInvalid, "pull", why).on(self.blob()).into());
            }
            if self.at - self.counted_from >= PROGRESS {
                self.counted_from = self.at;
                backoff.reset();
            }
            if self.sender.send(Ok(piece)).await.is_err() {
                return Ok(End::Abandoned);
            }
        }
    }

    /// The blob, as the user reads it.
    fn blob(&self) -> String {
        format!("{} of {}", self.wanted.digest, self.wanted.reference.familiar())
    }

    fn cut(&self, why: &str) -> Trouble {
        let digest = self.wanted.digest.short();
        Trouble::passing(format!("{digest}: download interrupted at byte {} of {}: {why}", self.at, self.wanted.size))
    }
}

fn header<'a>(answer: &'a Response, name: &HeaderName) -> Option<&'a str> {
    answer.headers().get(name)?.to_str().ok()
}

/// How large the whole blob is, where the answer says it.
fn size_of(answer: &Response) -> Option<u64> {
    match answer.status() {
        // Packed on the way, the length is another.
        StatusCode::OK if !answer.headers().contains_key(CONTENT_ENCODING) => {
            header(answer, &CONTENT_LENGTH)?.parse().ok()
        }
        StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => total_of(header(answer, &CONTENT_RANGE)?),
        _ => None,
    }
}

/// The size of the whole in `bytes 5-9/10`; `None` where it isn't given.
fn total_of(range: &str) -> Option<u64> {
    range.strip_prefix("bytes ")?.split_once('/')?.1.trim().parse().ok()
}

/// The first byte of `bytes 5-9/10`.
fn start_of(range: &str) -> Option<u64> {
    range.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_begins_with_its_first_byte() {
        assert_eq!(start_of("bytes 5-9/10"), Some(5));
        assert_eq!(start_of("bytes */10"), None);
        assert_eq!(start_of("5-9"), None);
    }

    #[test]
    fn a_range_ends_with_the_size_of_the_whole() {
        assert_eq!(total_of("bytes 5-9/10"), Some(10));
        assert_eq!(total_of("bytes */10"), Some(10));
        assert_eq!(total_of("bytes 5-9/*"), None);
        assert_eq!(total_of("bytes 5-9"), None);
    }
}
