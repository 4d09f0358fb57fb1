//! A root file system becomes an image of one layer: a tar archive as `docker export` or debootstrap make it, or a
//! directory.

use std::io::{self, Read};
use std::path::Path;

use serde_json::{Value, json};

use super::load::descriptor;
use super::{CONFIG, MANIFEST};
use crate::archive::pack::Packer;
use crate::compression::Compression;
use crate::content::{IndexEntry, Ingest, PruneWait, Store};
use crate::digest::Digest;
use crate::reference::Reference;
use crate::stored_image::host_architecture;
use crate::time;
use crate::unpack::UnpackOptions;
use nsrs_base::error::{Code, Error, Result};
use nsrs_base::tree::merge::walk;

/// Name and metadata of the new image, as the caller gives them.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// The name that it gets in the store, completed by docker's rules; `None`: it is listed without a name.
    pub name: Option<String>,
    /// A remark, for its history.
    pub message: String,
    /// Its `config`: `Env`, `Cmd`, `Entrypoint` and the others, by the names of the specification.
    pub config: Value,
    /// The processor it is for, by Go's name; by default this machine's.
    pub architecture: Option<String>,
}

/// Reads on and keeps what is read.
struct Tee<'a, R> {
    input: R,
    ingest: &'a mut Ingest,
    start: Vec<u8>,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        if self.start.len() < 6 {
            self.start.extend_from_slice(&buffer[..count.min(6)]);
        }
        self.ingest.write(&buffer[..count]).map_err(io::Error::other)?;
        Ok(count)
    }
}

/// Imports an archive of a root file system, packed by gzip or zstd or not at all; it is stored as it comes, and unpacked while it does.
///
/// # Errors
/// Those of [`crate::unpack::unpack`]; the store refuses. Nothing stays of an import that failed.
pub fn import(store: &Store, input: impl Read + Send, about: &About, options: &UnpackOptions) -> Result<IndexEntry> {
    let name = name(about)?;
    let guard = store.guard()?;
    let result = (|| {
        let mut ingest = store.ingest_unknown()?;
        let mut tee = Tee { input, ingest: &mut ingest, start: Vec::new() };
        let layer = store.unpack_unknown(&mut tee, options)?;
        // The archive may have ended before its file did.
        io::copy(&mut tee, &mut io::sink()).map_err(crate::tar::read_error)?;
        let compression = Compression::detect(&tee.start)?;
        let size = ingest.offset();
        let digest = ingest.commit()?;
        let diff_id = layer.record.unpacked.diff_id;
        if layer.record.unpacked.entries == 0 {
            return Err(Error::new(Code::ImageInvalid, "import the root file system", "the archive is empty"));
        }
        store.note_pair(&digest, &diff_id)?;
        finish(store, about, name.as_deref(), (digest, size, compression), &diff_id)
    })();
    drop(guard);
    settled(store, result)
}

/// Imports a directory: what is in it, with owners, modes, times and attributes. Returns also how many of its entries belong
/// to nobody: where ids are mapped these are the owners who aren't.
///
/// # Errors
/// A file can't be read, or the store refuses.
pub fn import_directory(
    store: &Store,
    directory: &Path,
    about: &About,
    options: &UnpackOptions,
) -> Result<(IndexEntry, u64)> {
    let name = name(about)?;
    let guard = store.guard()?;
    let mut nobodys = 0;
    let result = (|| {
        let mut packer = Packer::new(io::BufWriter::with_capacity(256 << 10, store.ingest_unknown()?));
        walk(&[directory], true, &mut packer)?;
        nobodys = packer.nobodys;
        let ingest = packer.finish()?.into_inner().map_err(|error| crate::tar::read_error(error.into_error()))?;
        let size = ingest.offset();
        let digest = ingest.commit()?;
        store.unpack_blob(&digest, &digest, store.open_blob(&digest)?, options)?;
        finish(store, about, name.as_deref(), (digest, size, Compression::None), &digest)
    })();
    drop(guard);
    settled(store, result).map(|named| (named, nobodys))
}

fn settled(store: &Store, result: Result<IndexEntry>) -> Result<IndexEntry> {
    if result.is_err() {
        // As for archives of images: what came in is of no use.
        let _ = store.prune(PruneWait::No, false);
    }
    result
}

fn name(about: &About) -> Result<Option<String>> {
    about.name.as_deref().map(|name| Reference::parse(name).map(|name| name.to_string())).transpose()
}

fn finish(
    store: &Store,
    about: &About,
    name: Option<&str>,
    (layer, size, compression): (Digest, u64, Compression),
    diff_id: &Digest,
) -> Result<IndexEntry> {
    let created = time::format(time::now());
    let mut config = json!({
        "created": created,
        "architecture": about.architecture.as_deref().unwrap_or(host_architecture()),
        "os": "linux",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": [diff_id.to_string()] },
        "history": [{ "created": created, "created_by": "nsrs import", "comment": about.message }],
    });
    if about.config.is_object() {
        config["config"] = about.config.clone();
    }
    let config = config.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": { "mediaType": CONFIG, "digest": store.add(&config)?.to_string(), "size": config.len() },
        "layers": [{ "mediaType": compression.layer_media_type(), "digest": layer.to_string(), "size": size }],
    });
    let manifest = manifest.to_string().into_bytes();
    let descriptor = descriptor(&store.add(&manifest)?, manifest.len() as u64);
    match name {
        Some(name) => store.tag(name, &descriptor)?,
        None => store.list(&descriptor)?,
    }
    Ok(IndexEntry { name: name.map(str::to_owned), descriptor })
}
