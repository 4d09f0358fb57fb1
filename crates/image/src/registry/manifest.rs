//! Manifests: what an image consists of, or which images there are.
//!
//! What is read here was written by strangers: its size is bounded, its digest verified, and a document that could be
//! read as two things is refused (CVE-2021-41190).

use nsrs_base::error::{Code, Error, Result};
use nsrs_store::digest::Digest;
use nsrs_store::platform::Platform;
use nsrs_store::reference::Reference;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap};
use reqwest::{Method, Response, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use super::auth::Scope;
use super::client::Client;
use super::endpoint::Endpoint;
use super::failure::{self, Asked, Purpose};
use super::http::Ask;
use super::untrusted::tame;
use crate::progress::ProgressEvent;

/// The largest manifest that is read: what registries take (distribution specification).
pub const MOST: usize = 4 << 20;
/// The most images of one index, and layers of one image, that we believe in.
const MOST_ENTRIES: usize = 10_000;

/// The types of OCI and docker, in the order in which we like them.
const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// How a document refers to a blob or another document (descriptor.md of the image specification).
#[derive(Clone, Debug, Deserialize)]
pub struct Descriptor {
    /// Media type of the blob.
    #[serde(rename = "mediaType", default)]
    pub media_type: String,
    /// Digest of the blob, by which it is fetched and verified.
    pub digest: Digest,
    /// Size of the blob in bytes.
    pub size: u64,
    /// The platform of an image, in an index.
    #[serde(default)]
    pub platform: Option<Platform>,
}

/// The manifest of one image.
#[derive(Clone, Debug, Deserialize)]
pub struct ImageManifest {
    /// The blob of the configuration.
    pub config: Descriptor,
    /// The blobs of the layers, the lowest first.
    #[serde(default)]
    pub layers: Vec<Descriptor>,
}

/// The content of a document.
#[derive(Clone, Debug)]
pub enum ManifestKind {
    /// The manifest of one image.
    Image(ImageManifest),
    /// An index of images for different platforms.
    Index(Vec<Descriptor>),
}

/// A document of a registry, verified.
#[derive(Clone, Debug)]
pub struct Document {
    /// Its bytes, as its digest covers them.
    pub bytes: Vec<u8>,
    /// The digest of `bytes`.
    pub digest: Digest,
    /// Its media type, as the registry or the document itself says.
    pub media_type: String,
    /// What `bytes` say, parsed.
    pub kind: ManifestKind,
}

/// What the registry has under a name.
#[derive(Clone, Debug)]
pub struct ResolvedImage {
    /// What the name stands for: an index, or the image itself.
    pub top: Document,
    /// The image for the platform, where `top` is an index.
    pub chosen: Option<Document>,
    /// What the index says that image is for.
    pub platform: Option<Platform>,
}

impl ResolvedImage {
    /// The document of the image.
    #[must_use]
    pub fn document(&self) -> &Document {
        self.chosen.as_ref().unwrap_or(&self.top)
    }

    /// The image.
    ///
    /// # Errors
    /// The document is another index: an index in an index in an index.
    pub fn image(&self) -> Result<&ImageManifest> {
        match &self.document().kind {
            ManifestKind::Image(image) => Ok(image),
            ManifestKind::Index(_) => {
                Err(invalid(&self.document().digest.to_string(), "an index where an image should be"))
            }
        }
    }
}

fn invalid(subject: &str, why: impl Into<String>) -> Error {
    Error::new(Code::ImageInvalid, "read the manifest", why).on(subject)
}

/// Reads a document. `content_type` is what the server calls it; the document's own word counts, and both must agree.
///
/// # Errors
/// It's malformed, ambiguous, or of a type that isn't known.
pub fn read(bytes: &[u8], content_type: Option<&str>, subject: &str) -> Result<(String, ManifestKind)> {
    let bad = |why: String| invalid(subject, why);
    let value: Value =
        serde_json::from_slice(bytes).map_err(|error| bad(format!("invalid JSON: {}", tame(&error.to_string()))))?;
    let has = |name: &str| value.get(name).is_some();
    let version = value.get("schemaVersion").and_then(Value::as_u64);
    let declared = match value.get("mediaType") {
        None => None,
        Some(Value::String(text)) => Some(text.as_str()),
        Some(_) => return Err(bad("its mediaType is not a string".into())),
    };
    let content_type = content_type.map(|text| text.split(';').next().unwrap_or(text).trim());
    let named = content_type.filter(|name| is_specific(name));
    if version == Some(1) || declared.or(named).is_some_and(|name| name.contains("distribution.manifest.v1")) {
        return Err(Error::new(Code::Unsupported, "read the manifest", "docker's old schema 1 is not supported")
            .on(subject)
            .hint("the owner of the image has to push it with a current tool; skopeo copy converts it"));
    }
    if has("manifests") && (has("layers") || has("config")) {
        return Err(bad("ambiguous: it is both an image and an index".into()));
    }
    if let (Some(declared), Some(named)) = (declared, named)
        && declared != named
    {
        return Err(bad(format!("its type is {}, but the registry says {}", tame(declared), tame(named))));
    }
    let guessed = || match (has("manifests"), has("config")) {
        (true, _) => Some("application/vnd.oci.image.index.v1+json"),
        (_, true) => Some("application/vnd.oci.image.manifest.v1+json"),
        _ => None,
    };
    let media_type = declared.or(named).or_else(guessed).unwrap_or(content_type.unwrap_or("without a name"));
    let kind = match media_type {
        "application/vnd.oci.image.manifest.v1+json" | "application/vnd.docker.distribution.manifest.v2+json" => {
            let image: ImageManifest = serde_json::from_value(value.clone())
                .map_err(|error| bad(format!("invalid image manifest: {}", tame(&error.to_string()))))?;
            if image.layers.len() > MOST_ENTRIES {
                return Err(bad(format!("too many layers ({})", image.layers.len())));
            }
            ManifestKind::Image(image)
        }
        "application/vnd.oci.image.index.v1+json" | "application/vnd.docker.distribution.manifest.list.v2+json" => {
            let list = value.get("manifests").cloned().unwrap_or(Value::Null);
            let list: Vec<Descriptor> = serde_json::from_value(list)
                .map_err(|error| bad(format!("invalid index: {}", tame(&error.to_string()))))?;
            if list.len() > MOST_ENTRIES {
                return Err(bad(format!("too many images ({})", list.len())));
            }
            ManifestKind::Index(list)
        }
        other => {
            return Err(Error::new(Code::Unsupported, "read the manifest", format!("unknown type {}", tame(other)))
                .on(subject)
                .hint("nsrs supports images and indexes of OCI and of docker's schema 2"));
        }
    };
    Ok((media_type.to_owned(), kind))
}

/// Servers that keep files call everything one of these.
fn is_specific(content_type: &str) -> bool {
    !matches!(content_type, "" | "application/json" | "application/octet-stream" | "text/plain" | "binary/octet-stream")
}

/// The digest that the server gives an answer, if it is of a kind that we can verify.
fn named_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get("docker-content-digest")?.to_str().ok()?.parse().ok()
}

impl Client {
    /// The digest that a tag stands for now, by a HEAD request: nothing is transferred. `None` if the server doesn't say,
    /// or knows no such request.
    ///
    /// # Errors
    /// No server can be reached.
    pub fn head(&self, reference: &Reference) -> Result<Option<Digest>> {
        self.wait(self.first_of(reference, async |client: &Client, endpoint: &Endpoint| {
            let answer = client.ask_manifest(endpoint, reference, Method::HEAD, &reference.selector()).await?;
            Ok(named_digest(answer.headers()).filter(|_| answer.status() == StatusCode::OK))
        }))
    }

    /// What the registry has under this name, for this platform.
    ///
    /// # Errors
    /// Nobody has it or can be reached; it isn't there for this platform; a document is malformed or was altered.
    pub fn resolve(&self, reference: &Reference, platform: &Platform) -> Result<ResolvedImage> {
        self.wait(self.first_of(reference, async |client: &Client, endpoint: &Endpoint| {
            let top = client.document(endpoint, reference, &reference.selector(), reference.digest()).await?;
            let (mut chosen, mut meant): (Option<Document>, Option<Platform>) = (None, None);
            // An index may hold indexes, but that goes only so deep.
            for _ in 0..2 {
                let ManifestKind::Index(list) = &chosen.as_ref().unwrap_or(&top).kind else { break };
                let list: Vec<_> = list.iter().map(|item| (item.platform.clone(), item.clone())).collect();
                let item = platform.choose(&reference.familiar(), &list)?.clone();
                let document =
                    client.document(endpoint, reference, &item.digest.to_string(), Some(item.digest)).await?;
                (chosen, meant) = (Some(document), item.platform);
            }
            let resolved = ResolvedImage { top, chosen, platform: meant };
            resolved.image()?;
            Ok(resolved)
        }))
    }

    /// Asks mirrors first and the registry last. The failure of a mirror is reported and not an error; it isn't
    /// asked again.
    pub async fn first_of<T>(
        &self,
        reference: &Reference,
        ask: impl AsyncFn(&Client, &Endpoint) -> Result<T>,
    ) -> Result<T> {
        for endpoint in self.sources(reference) {
            match ask(self, &endpoint).await {
                Err(error) if endpoint.mirror => {
                    self.lose(&endpoint);
                    let message = format!("mirror {} of {} failed: {error}", endpoint.host(), reference.registry());
                    self.progress().report(&ProgressEvent::Warning { message });
                }
                result => return result,
            }
        }
        Err(Error::new(Code::SetupFailed, "pull", "no registry to ask").on(reference.familiar()))
    }

    async fn ask_manifest(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        method: Method,
        selector: &str,
    ) -> Result<Response> {
        let repository = endpoint.repository(reference.repository());
        let scope = Scope::pull(&repository);
        let path = format!("{repository}/manifests/{selector}");
        let head = method == Method::HEAD;
        let answer = self.send(endpoint, &Ask::new(method, &path, &scope).header(ACCEPT, ACCEPTED)).await?;
        // A refused HEAD has no words: the GET that follows gets them.
        if head || answer.status() == StatusCode::OK {
            return Ok(answer);
        }
        let (image, repository) = (reference.familiar(), reference.name());
        let asked = Asked {
            purpose: Purpose::Pull,
            image: &image,
            repository: &repository,
            host: endpoint.host(),
            registry: if endpoint.mirror { endpoint.host() } else { reference.registry() },
        };
        Err(failure::refusal(answer, asked).await)
    }

    /// Fetches and verifies a document.
    async fn document(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        selector: &str,
        wanted: Option<Digest>,
    ) -> Result<Document> {
        let subject = match wanted {
            Some(digest) => reference.with_digest(digest).familiar(),
            None => reference.familiar(),
        };
        let mut backoff = self.backoff(endpoint);
        let (headers, bytes) = loop {
            let answer = self.ask_manifest(endpoint, reference, Method::GET, selector).await?;
            let headers = answer.headers().clone();
            match failure::body(answer, MOST).await {
                Ok(bytes) => break (headers, bytes),
                Err(trouble) => self.pause(endpoint, &mut backoff, trouble).await?,
            }
        };
        let digest = Digest::of(&bytes);
        // Where only a tag was asked for, the server's word is all there is to hold it against.
        if let Some(wanted) = wanted.or_else(|| named_digest(&headers))
            && wanted != digest
        {
            return Err(invalid(
                &subject,
                format!("its content has the digest {digest}: it was altered in transit or in the registry"),
            ));
        }
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let (media_type, kind) = read(&bytes, content_type, &subject)?;
        Ok(Document { bytes, digest, media_type, kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn image(extra: &str) -> String {
        format!(r#"{{"schemaVersion":2{extra},"config":{{"digest":"{DIGEST}","size":1}},"layers":[]}}"#)
    }

    fn error(text: &str, content_type: Option<&str>) -> String {
        let error = read(text.as_bytes(), content_type, "a:b").unwrap_err();
        format!("{error}; {}", error.hint)
    }

    #[test]
    fn a_type_is_declared_named_or_plain_to_see() {
        let docker = "application/vnd.docker.distribution.manifest.v2+json";
        let oci = "application/vnd.oci.image.manifest.v1+json";
        assert_eq!(read(image("").as_bytes(), Some(&format!("{docker}; charset=utf-8")), "").unwrap().0, docker);
        assert_eq!(read(image("").as_bytes(), Some("application/json"), "").unwrap().0, oci);
        let declared = image(&format!(r#","mediaType":"{oci}""#));
        assert_eq!(read(declared.as_bytes(), None, "").unwrap().0, oci);
        let index =
            format!(r#"{{"schemaVersion":2,"manifests":[{{"digest":"{DIGEST}","size":1,"mediaType":"{oci}"}}]}}"#);
        assert!(matches!(read(index.as_bytes(), None, "").unwrap().1, ManifestKind::Index(list) if list.len() == 1));
    }

    #[test]
    fn what_could_be_two_things_is_refused() {
        let both = image(r#","manifests":[]"#);
        assert!(error(&both, None).contains("both an image and an index"));
        let declared = image(r#","mediaType":"application/vnd.oci.image.manifest.v1+json""#);
        assert!(error(&declared, Some("application/vnd.oci.image.index.v1+json")).contains("but the registry says"));
    }

    proptest::proptest! {
        // Whatever stands where in an otherwise sensible document, and whatever it is called.
        #[test]
        fn no_document_makes_the_reader_panic(at in 0usize..400, junk in "[\\[\\]{}\",:a-z0-9-]{0,40}", name in "[ -~]{0,60}") {
            let sound = image(r#","mediaType":"application/vnd.oci.image.manifest.v1+json","manifests":[{}]"#);
            let mut text = sound.clone();
            text.insert_str(at.min(sound.len()), &junk);
            let _ = read(text.as_bytes(), Some(&name), "a");
            let _ = read(junk.as_bytes(), Some(&name), "a");
        }
    }

    #[test]
    fn other_types_are_named() {
        assert!(error(r#"{"schemaVersion":1}"#, None).contains("schema 1"));
        let signed = "application/vnd.docker.distribution.manifest.v1+prettyjws";
        assert!(error("{}", Some(signed)).contains("schema 1"));
        assert!(
            error("{}", Some("application/vnd.example.thing+json"))
                .contains("unknown type application/vnd.example.thing+json")
        );
        assert!(error("{}", Some("text/plain")).contains("unknown type text/plain"));
        assert!(error("<html>", None).contains("invalid JSON"));
        let short = image("").replace(&DIGEST[7..], "12");
        assert!(error(&short, None).contains("64 hexadecimal digits"));
        let coloured = image("").replace(&DIGEST[7..], "\\u001b[31m");
        assert!(!error(&coloured, None).contains('\u{1b}'));
        let negative = image("").replace("\"size\":1", "\"size\":-1");
        assert!(error(&negative, None).contains("invalid image manifest"));
    }
}
