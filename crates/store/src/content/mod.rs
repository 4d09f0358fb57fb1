//! The store of images: a directory in the standard OCI image layout (image-layout.md), readable by other tools, with
//! the unpacked layers beside it.
//!
//! ```text
//! oci-layout, index.json     the names, changed under index.lock
//! blobs/sha256/HEX           manifests, configurations, layers as they were published
//! ingest/HEX                 blobs that are still coming in, each locked by who fetches it
//! layers/HEX/fs              unpacked layers by the digest of their uncompressed archive (diff id)
//! settled/HEX                which of them have reached the disk
//! packed/HEX                 which of them a blob was seen to unpack to
//! stacked/HEX                chains whose last layer stands over those below as it is
//! containers/ID              what a running container has changed; locked by its supervisor
//! lock                       shared by all who write, exclusive for who removes
//! ```
//!
//! Nothing is ever changed in place: what is new is made under a name of its own, verified, and renamed. So a process
//! that is killed at any moment leaves leftovers at most, which the next one continues or [`Store::prune`] removes.

mod index;
mod ingest;
mod layers;
pub(crate) mod layout;
mod prune;
mod repair;
#[cfg(test)]
mod tests;
mod unpacked_blobs;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

pub(crate) use index::check_name;
pub use index::{INDEX_DIGEST, IndexEntry, claimed_digest, digest_of, unknown};
pub use ingest::{Ingest, IngestReader, IngestStart};
pub use layers::{LayerRecord, UnpackedLayer};
pub use prune::{DamagedImage, PruneWait, Pruned};

use super::digest::Digest;
use layout::{LAYERS, LOCK, OCI_LAYOUT};
use nsrs_base::error::{At, Code, Error, Result};
use nsrs_base::host::Host;

/// The largest manifest or configuration that is read into memory, in bytes: as much as registries take.
pub const MOST_METADATA: u64 = 4 << 20;

/// A store of images. Cheap to clone; usable from several threads and processes at once.
#[derive(Clone, Debug)]
pub struct Store {
    root: Arc<Path>,
}

/// Keeps [`Store::prune`] away: what was added stays until it is named, however long that takes.
#[derive(Debug)]
pub struct PruneGuard(#[allow(dead_code, reason = "held for its lock")] Option<File>);

/// Where the store is: `NSRS_IMAGE_DIR`, /var/lib/nsrs/images for root, `$XDG_DATA_HOME/nsrs/images`, or
/// ~/.local/share/nsrs/images.
///
/// # Errors
/// The user has no home directory.
pub fn directory(host: &Host) -> Result<PathBuf> {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(directory) = from("NSRS_IMAGE_DIR") {
        // Whoever outlives the command leaves the caller's directory.
        return Ok(std::path::absolute(&directory).unwrap_or(directory));
    }
    if host.uid == 0 {
        return Ok("/var/lib/nsrs/images".into());
    }
    let home = || from("HOME").or_else(|| host.home.clone().map(PathBuf::from)).map(|home| home.join(".local/share"));
    match from("XDG_DATA_HOME").filter(|path| path.is_absolute()).or_else(home) {
        Some(data) => Ok(data.join("nsrs/images")),
        None => Err(Error::new(Code::SetupFailed, "find the store of images", "this user has no home directory")
            .hint("set NSRS_IMAGE_DIR to a directory of your own")),
    }
}

impl Store {
    /// Opens the store in this directory, and makes it (mode 0700) if there is none.
    ///
    /// # Errors
    /// It can't be made or written, is a directory of other files, or an image layout of a version that isn't known.
    pub fn open(path: &Path) -> Result<Store> {
        let step = "open the store of images";
        let make = |path: &Path| {
            fs::DirBuilder::new().mode(0o700).recursive(true).create(path).at(step, path.display()).map_err(|error| {
                error.hint("set NSRS_IMAGE_DIR to a directory of your own, on a file system with room for images")
            })
        };
        make(path)?;
        let path = fs::canonicalize(path).at(step, path.display())?;
        not_foreign(&path)?;
        own(&path)?;
        for folder in ["blobs/sha256", "ingest", LAYERS] {
            make(&path.join(folder))?;
        }
        // Files of images may be set-user-ID: no other user of the host may reach them.
        let layers = path.join(LAYERS);
        if fs::metadata(&layers).at(step, layers.display())?.mode() & 0o7777 != 0o700 {
            fs::set_permissions(&layers, fs::Permissions::from_mode(0o700)).at(step, layers.display())?;
        }
        let store = Store { root: path.into() };
        let layout = store.path(OCI_LAYOUT);
        match fs::read_to_string(&layout) {
            Ok(text) => {
                let version = serde_json::from_str::<serde_json::Value>(&text)
                    .ok()
                    .and_then(|value| value["imageLayoutVersion"].as_str().map(str::to_owned));
                if !version.as_deref().is_some_and(|version| version.starts_with("1.")) {
                    return Err(Error::new(Code::Unsupported, step, "not an image layout of version 1")
                        .on(layout.display().to_string())
                        .hint("set NSRS_IMAGE_DIR to another directory"));
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                store.replace(OCI_LAYOUT, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
            }
            Err(error) => return Err(Error::os(step, layout.display().to_string(), &error)),
        }
        Ok(store)
    }

    /// Opens the store in this directory to read it. A missing store is not made, and has no images.
    ///
    /// # Errors
    /// Those of [`Store::open`].
    pub fn look(path: &Path) -> Result<Store> {
        let made = Store { root: path.into() }.is_made();
        if !made {
            not_foreign(path)?;
            return Ok(Store { root: path.into() });
        }
        Store::open(path)
    }

    /// Is there anything of a store in its directory?
    fn is_made(&self) -> bool {
        [OCI_LAYOUT, LAYERS].iter().any(|name| self.path(name).exists())
    }

    /// The directory of the store.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Where the blob of this digest is, if it is there.
    #[must_use]
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path(&format!("blobs/sha256/{}", digest.hex()))
    }

    /// Is the blob there, complete?
    #[must_use]
    pub fn has(&self, digest: &Digest) -> bool {
        self.blob_path(digest).is_file()
    }

    /// The size of a blob in bytes; `None`: it isn't there.
    #[must_use]
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        fs::metadata(self.blob_path(digest)).ok().map(|meta| meta.len())
    }

    /// Reads a manifest or a configuration, and holds it against its digest.
    ///
    /// # Errors
    /// It isn't there (`ImageNotFound`), was altered or is larger than [`MOST_METADATA`] (`ImageInvalid`).
    pub fn read(&self, digest: &Digest) -> Result<Vec<u8>> {
        let step = "read the blob";
        let mut bytes = Vec::new();
        self.open_blob(digest)?.take(MOST_METADATA + 1).read_to_end(&mut bytes).at(step, digest)?;
        if bytes.len() as u64 > MOST_METADATA {
            return Err(Error::new(Code::ImageInvalid, step, format!("larger than {MOST_METADATA} bytes"))
                .on(digest.to_string()));
        }
        if Digest::of(&bytes) != *digest {
            return Err(altered(digest, Digest::of(&bytes)));
        }
        Ok(bytes)
    }

    /// Opens a blob. What is read is _not_ held against the digest here: the unpacker does that with the diff id, and
    /// whoever copies with a [`super::digest::Hasher`].
    ///
    /// # Errors
    /// It isn't there (`ImageNotFound`), or can't be opened.
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        File::open(self.blob_path(digest)).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::new(Code::ImageNotFound, "read the blob", "not in the store")
                .on(digest.to_string())
                .hint("pull or load the image again"),
            _ => Error::os("read the blob", digest.to_string(), &error),
        })
    }

    /// Adds a blob that is in memory: a manifest, a configuration.
    ///
    /// # Errors
    /// It can't be written.
    pub fn add(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        if let IngestStart::Write(mut ingest) = self.ingest_anew(&digest)? {
            ingest.write(bytes)?;
            ingest.commit()?;
        }
        Ok(digest)
    }

    /// Keeps [`Store::prune`] from running while this is held. Whoever adds blobs and names them later holds one from
    /// before the first blob until after the name.
    ///
    /// # Errors
    /// The lock file can't be opened.
    pub fn guard(&self) -> Result<PruneGuard> {
        if !self.is_made() {
            return Ok(PruneGuard(None));
        }
        let file = match self.lock_file(LOCK) {
            // Where nothing can be written nothing is pruned from here, and who only reads goes on. Somebody may have
            // mounted it so, and prune it elsewhere.
            Err(error) if error.errno == Some(Errno::ROFS.raw_os_error()) => {
                let there = File::open(self.path(LOCK)).or_else(|_| File::open(&*self.root));
                there.at("lock the store of images", self.root.display())?
            }
            other => other?,
        };
        lock(&file, FlockOperation::LockShared).at("lock the store of images", self.root.display())?;
        Ok(PruneGuard(Some(file)))
    }

    fn lock_file(&self, name: &str) -> Result<File> {
        let path = self.path(name);
        let open = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        open.at("lock the store of images", path.display())
    }

    /// Writes a file of the store's root anew: another name, fsync, rename, fsync of the directory.
    fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let path = self.path(name);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let temporary = self.path(&format!("ingest/{name}.{}.{number}", std::process::id()));
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(&*self.root)?.sync_all()
        };
        write().at("write", path.display()).map_err(with_room).inspect_err(|_| drop(fs::remove_file(&temporary)))
    }
}

/// Makes sure that no store is made among somebody's files. Some stand beside one: those are nobody's concern.
fn not_foreign(path: &Path) -> Result<()> {
    if path.join(OCI_LAYOUT).exists() {
        return Ok(());
    }
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.at("open the store of images", path.display())?,
    };
    match entries.flatten().find(|entry| !layout::ALL.iter().any(|own| entry.file_name() == *own)) {
        None => Ok(()),
        Some(entry) => {
            let why = format!("the directory contains other files ({})", entry.file_name().display());
            Err(Error::new(Code::SetupFailed, "open the store of images", why)
                .on(path.display().to_string())
                .hint("set NSRS_IMAGE_DIR to a new or empty directory"))
        }
    }
}

/// Makes sure that nobody else can change the store: they would choose what our containers run.
fn own(path: &Path) -> Result<()> {
    let step = "open the store of images";
    let meta = fs::metadata(path).at(step, path.display())?;
    let why = match (meta.uid() == rustix::process::geteuid().as_raw(), meta.mode() & 0o022) {
        (true, 0) => return Ok(()),
        (false, _) => "owned by another user",
        (true, _) => "writable by other users",
    };
    Err(Error::new(Code::SetupFailed, step, why)
        .on(path.display().to_string())
        .hint("set NSRS_IMAGE_DIR to a directory of your own with mode 0700"))
}

/// flock(2), again after a signal.
fn lock(file: &File, how: FlockOperation) -> rustix::io::Result<()> {
    loop {
        match flock(file, how) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Whether it failed because the disk, or this user's quota, is full.
#[must_use]
pub fn is_full(error: &Error) -> bool {
    [Errno::NOSPC, Errno::DQUOT].iter().any(|full| error.errno == Some(full.raw_os_error()))
}

/// The same failure of something in the store, with what helps where the disk is full and nothing better is known.
pub(crate) fn with_room(error: Error) -> Error {
    match is_full(&error) && error.hint.is_empty() {
        true => error.hint("free disk space (nsrs image prune), or set NSRS_IMAGE_DIR to another disk"),
        false => error,
    }
}

/// The error for content that isn't what its digest says.
pub(crate) fn altered(digest: &Digest, found: Digest) -> Error {
    Error::new(Code::ImageInvalid, "verify the blob", format!("its content has the digest {found}"))
        .on(digest.to_string())
        .hint("it was altered in transit or on disk; pull or load the image again")
}
