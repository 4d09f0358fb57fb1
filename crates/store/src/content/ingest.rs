//! Blobs on their way into the store.
//!
//! A blob that comes in is a file `ingest/HEX`, locked by who writes it: a second one who wants the same blob waits, and
//! finds it complete or goes on where the first ended. A killed writer leaves the file and no lock.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::{Store, altered, is_full, lock, with_room};
use crate::digest::{Digest, Hasher};
use nsrs_base::error::{At, Code, Error, Result};

/// How the ingestion of a blob begins.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one at a time, and taken apart at once")]
pub enum IngestStart {
    /// The blob is there already.
    Present,
    /// It is to be written.
    Write(Ingest),
    /// Another process or thread writes it just now ([`Store::try_ingest`] only).
    Busy,
}

/// How many bytes are written before the kernel is asked to start writing them to the disk.
const WRITEBACK: u64 = 8 << 20;

/// A blob on its way into the store. Dropped without [`Ingest::commit`], what was written stays for the next one to
/// resume.
#[derive(Debug)]
pub struct Ingest {
    store: Store,
    /// Not known beforehand for content that is only now named by its digest.
    digest: Option<Digest>,
    path: PathBuf,
    file: Arc<File>,
    hasher: Hasher,
    offset: u64,
    flushed: u64,
    size: Option<u64>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    written: u64,
    /// How it ended: verified, or not.
    end: Option<bool>,
}

impl Shared {
    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }
}

/// Reads a blob while it comes in: waits for more where it isn't there yet, and ends when the blob is complete _and_
/// verified. An ingestion that fails is an error.
#[derive(Debug)]
pub struct IngestReader {
    file: Arc<File>,
    shared: Arc<Shared>,
    position: u64,
}

impl Store {
    /// Begins to write a blob, or goes on where somebody ended. Waits while another process or thread writes the same
    /// one (in an async program: on a thread of its own, or [`Store::try_ingest`]).
    ///
    /// # Errors
    /// The file can't be made.
    pub fn ingest(&self, digest: &Digest) -> Result<IngestStart> {
        self.begin(digest, true)
    }

    /// The same, without waiting.
    ///
    /// # Errors
    /// The file can't be made.
    pub fn try_ingest(&self, digest: &Digest) -> Result<IngestStart> {
        self.begin(digest, false)
    }

    fn begin(&self, digest: &Digest, wait: bool) -> Result<IngestStart> {
        let step = "write the blob";
        let path = self.path(&format!("ingest/{}", digest.hex()));
        loop {
            if self.has(digest) {
                return Ok(IngestStart::Present);
            }
            let mut open = fs::OpenOptions::new();
            let file = open.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
            let file = file.at(step, digest).map_err(with_room)?;
            let how = if wait { FlockOperation::LockExclusive } else { FlockOperation::NonBlockingLockExclusive };
            match lock(&file, how) {
                Err(Errno::WOULDBLOCK) => return Ok(IngestStart::Busy),
                other => other.at(step, digest)?,
            }
            // Who had the lock before may have moved the file to its place, or removed it.
            let same = fs::metadata(&path)
                .is_ok_and(|meta| file.metadata().is_ok_and(|own| (own.dev(), own.ino()) == (meta.dev(), meta.ino())));
            if !same {
                continue;
            }
            let mut ingest = Ingest::new(self.clone(), Some(*digest), path, file);
            ingest.take_up()?;
            return Ok(IngestStart::Write(ingest));
        }
    }

    /// Begins to write a blob whose digest will only be known at its end.
    ///
    /// # Errors
    /// The file can't be made.
    pub fn ingest_unknown(&self) -> Result<Ingest> {
        let step = "write a blob";
        let mut random = [0; 16];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).at(step, "")?;
        let path = self.path(&format!("ingest/new-{:032x}", u128::from_ne_bytes(random)));
        let mut open = fs::OpenOptions::new();
        let file = open.read(true).write(true).create_new(true).mode(0o600).open(&path).at(step, path.display())?;
        lock(&file, FlockOperation::LockExclusive).at(step, path.display())?;
        Ok(Ingest::new(self.clone(), None, path, file))
    }
}

impl Ingest {
    fn new(store: Store, digest: Option<Digest>, path: PathBuf, file: File) -> Ingest {
        Ingest {
            store,
            digest,
            path,
            file: Arc::new(file),
            hasher: Hasher::default(),
            offset: 0,
            flushed: 0,
            size: None,
            shared: Arc::default(),
        }
    }

    fn subject(&self) -> String {
        self.digest.map_or_else(|| self.path.display().to_string(), |digest| digest.to_string())
    }

    /// Hashes what is there already.
    fn take_up(&mut self) -> Result<()> {
        let mut buffer = vec![0; 1 << 20];
        loop {
            match self.file.read_at(&mut buffer, self.offset) {
                Ok(0) => break,
                Ok(count) => {
                    self.hasher.update(&buffer[..count]);
                    self.offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::os("read the part that is there of", self.subject(), &error)),
            }
        }
        let offset = self.offset;
        self.flushed = offset;
        self.shared.set(|state| state.written = offset);
        Ok(())
    }

    /// How many bytes are there: where a broken download goes on.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Says how large the blob is (by its descriptor): more is refused at once, less at the end.
    pub fn expect_size(&mut self, size: u64) {
        self.size = Some(size);
    }

    /// Throws away what is there: the other side can't continue, or sends something else.
    ///
    /// # Errors
    /// The file can't be truncated.
    pub fn restart(&mut self) -> Result<()> {
        self.file.set_len(0).at("write the blob", self.subject())?;
        self.hasher = Hasher::default();
        (self.offset, self.flushed) = (0, 0);
        self.shared.set(|state| state.written = 0);
        Ok(())
    }

    /// Appends bytes to the blob.
    ///
    /// # Errors
    /// More than the expected size (`ImageInvalid`; what is there is removed); the disk is full (what is there is removed,
    /// which frees its space) or refuses.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let end = self.offset + bytes.len() as u64;
        if let Some(size) = self.size.filter(|size| end > *size) {
            let error = Error::new(Code::ImageInvalid, "write the blob", format!("larger than its {size} bytes"))
                .on(self.subject());
            self.remove();
            return Err(error);
        }
        if let Err(error) = self.file.write_all_at(bytes, self.offset) {
            let error = Error::os("write the blob", self.subject(), &error);
            if is_full(&error) {
                self.remove();
            }
            return Err(with_room(error));
        }
        self.hasher.update(bytes);
        self.offset = end;
        if end - self.flushed >= WRITEBACK {
            // So that the fsync at the end has little left to wait for.
            nsrs_base::sys::file::begin_writeback(&self.file, self.flushed, end - self.flushed);
            self.flushed = end;
        }
        self.shared.set(|state| state.written = end);
        Ok(())
    }

    /// Reads along while it comes in. May be called several times, also before the first byte.
    #[must_use]
    pub fn follow(&self) -> IngestReader {
        IngestReader { file: self.file.clone(), shared: self.shared.clone(), position: 0 }
    }

    /// Verifies size and digest, brings everything to the disk and gives the blob its place. Returns its digest.
    ///
    /// # Errors
    /// Too few bytes (they stay, to be resumed); another digest (`ImageInvalid`, nothing stays); the disk refuses.
    pub fn commit(mut self) -> Result<Digest> {
        if let Some(size) = self.size.filter(|size| *size != self.offset) {
            let why = format!("{} of {size} bytes came", self.offset);
            return Err(Error::new(Code::ImageInvalid, "write the blob", why).on(self.subject()));
        }
        let found = std::mem::take(&mut self.hasher).finish();
        if let Some(digest) = self.digest.filter(|digest| *digest != found) {
            self.remove();
            return Err(altered(&digest, found));
        }
        let place = self.store.blob_path(&found);
        let settle = || -> io::Result<()> {
            self.file.sync_all()?;
            fs::rename(&self.path, &place)?;
            File::open(self.store.path("blobs/sha256"))?.sync_all()
        };
        settle().at("write the blob", self.subject()).map_err(with_room)?;
        self.shared.set(|state| state.end = Some(true));
        Ok(found)
    }

    /// Removes what is there. Nothing can be committed any more.
    fn remove(&mut self) {
        let _ = fs::remove_file(&self.path);
        self.shared.set(|state| state.end = Some(false));
    }

    /// Gives up: what was written is removed, and nobody can resume it.
    pub fn discard(mut self) {
        self.remove();
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        self.shared.set(|state| state.end = state.end.or(Some(false)));
        if self.digest.is_none() {
            // Nobody could resume it. After a commit it has another name.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Write for Ingest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ingest::write(self, bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for IngestReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.written <= self.position && state.end.is_none() {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.end == Some(false) {
            return Err(io::Error::other("the blob didn't come in whole"));
        }
        let there = state.written.saturating_sub(self.position);
        drop(state);
        let most = buffer.len().min(usize::try_from(there).unwrap_or(usize::MAX));
        let count = self.file.read_at(&mut buffer[..most], self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}
