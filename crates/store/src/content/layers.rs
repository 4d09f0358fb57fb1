//! Unpacked layers, each in a directory named by its diff id, shared by all images that have it.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, openat};
use serde::{Deserialize, Serialize};

use super::layout::{LAYERS, SETTLED};
use super::{Store, lock, with_room};
use crate::digest::Digest;
use crate::unpack::{self, UnpackOptions, Unpacked};
use nsrs_base::error::{At, Code, Error, Result};
use nsrs_base::host::boot::boot_id;
use nsrs_base::tree::remove::remove;

const RECORD: &str = "layer.json";

/// What is known of an unpacked layer (`layers/HEX/layer.json`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerRecord {
    /// The boot of the host in which it was unpacked. Its files may not all have reached the disk before the host went
    /// down: one of another boot counts only if [`Store::settle`] was there.
    pub boot: String,
    /// A random number of its own: the note that it has reached the disk names it.
    pub unique: String,
    /// What the unpacker found: the diff id, the size, and what overlayfs must know.
    #[serde(flatten)]
    pub unpacked: Unpacked,
}

/// An unpacked layer. While this is held, [`Store::prune`] leaves it alone.
#[derive(Debug)]
pub struct UnpackedLayer {
    /// Its root directory, a layer for overlayfs.
    pub path: PathBuf,
    /// What is known of it.
    pub record: LayerRecord,
    lease: File,
}

impl UnpackedLayer {
    /// The descriptor whose lock keeps the layer, to be handed to who goes on using it.
    #[must_use]
    pub fn into_lease(self) -> File {
        self.lease
    }
}

/// A random number that nothing else has, as 32 hexadecimal digits.
fn unique() -> Result<String> {
    let mut random = [0; 16];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).at("get a random number", "")?;
    Ok(format!("{:032x}", u128::from_ne_bytes(random)))
}

impl Store {
    fn layer_path(&self, key: &str) -> PathBuf {
        self.root.join(LAYERS).join(key)
    }

    /// The unpacked layer of this diff id, if it is there.
    ///
    /// # Errors
    /// What is there can't be read.
    pub fn layer(&self, diff_id: &Digest) -> Result<Option<UnpackedLayer>> {
        self.layer_of(&diff_id.hex())
    }

    /// Does somebody hold the unpacked layer just now?
    ///
    /// # Errors
    /// What is there can't be opened.
    pub fn is_held(&self, diff_id: &Digest) -> Result<bool> {
        let path = self.layer_path(&diff_id.hex()).join(RECORD);
        match File::open(&path) {
            Ok(file) => match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
                other => other.map(|()| false).at("open the unpacked layer", path.display()),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::os("open the unpacked layer", path.display().to_string(), &error)),
        }
    }

    pub(crate) fn layer_of(&self, key: &str) -> Result<Option<UnpackedLayer>> {
        let step = "open the unpacked layer";
        let directory = self.layer_path(key);
        let path = directory.join(RECORD);
        let mut lease = match File::open(&path) {
            Ok(lease) => lease,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::os(step, path.display().to_string(), &error)),
        };
        lock(&lease, FlockOperation::LockShared).at(step, path.display())?;
        if lease.metadata().at(step, path.display())?.nlink() == 0 {
            return Ok(None);
        }
        let mut text = String::new();
        lease.read_to_string(&mut text).at(step, path.display())?;
        // A record that was cut short by a crash of the host doesn't count.
        let Ok(record) = serde_json::from_str::<LayerRecord>(&text) else { return Ok(None) };
        if record.boot != boot_id() && !self.has_settled(key, &record) {
            return Ok(None);
        }
        let path = directory.join("fs");
        // A tree that somebody removed is unpacked again.
        Ok(path.is_dir().then_some(UnpackedLayer { path, record, lease }))
    }

    /// Unpacks a layer, unless it is there. The diff id of what is read must be this one. Waits while another process
    /// unpacks the same.
    ///
    /// # Errors
    /// Those of [`unpack::unpack`]; nothing stays of a layer that failed.
    pub fn unpack_layer(
        &self,
        diff_id: &Digest,
        input: impl Read + Send,
        options: &UnpackOptions,
    ) -> Result<UnpackedLayer> {
        self.make_layer(&diff_id.hex(), |directory| {
            let mut options = options.clone();
            options.diff_id = Some(*diff_id);
            unpack::unpack(input, directory, &options)
        })
    }

    /// Unpacks a layer whose diff id will only be known at its end.
    ///
    /// # Errors
    /// Those of [`unpack::unpack`]; nothing stays of a layer that failed.
    pub fn unpack_unknown(&self, input: impl Read + Send, options: &UnpackOptions) -> Result<UnpackedLayer> {
        let step = "unpack the layer";
        let _guard = self.guard()?;
        // Its name begins with a dot, as of all that isn't complete: the next prune removes what a crash leaves.
        let temporary = self.layer_path(&format!(".import-{}", unique()?));
        fs::DirBuilder::new().mode(0o755).create(&temporary).at(step, temporary.display())?;
        let result = unpack::unpack(input, &temporary, options).and_then(|unpacked| {
            self.make_layer(&unpacked.diff_id.hex(), |directory| {
                fs::rename(&temporary, directory).at(step, directory.display())?;
                Ok(unpacked.clone())
            })
        });
        if temporary.exists() {
            let _ = self.remove_tree(&temporary);
        }
        result.map_err(with_room)
    }

    /// Makes a layer in a directory of its own, and gives it its place when it is complete.
    pub(crate) fn make_layer(&self, key: &str, make: impl FnOnce(&Path) -> Result<Unpacked>) -> Result<UnpackedLayer> {
        let step = "unpack the layer";
        if let Some(layer) = self.layer_of(key)? {
            return Ok(layer);
        }
        let _guard = self.guard()?;
        let lock_name = format!("ingest/layer-{key}");
        let lock_path = self.root.join(&lock_name);
        let lock_file = loop {
            let file = self.lock_file(&lock_name)?;
            lock(&file, FlockOperation::LockExclusive).at(step, key)?;
            if fs::metadata(&lock_path).is_ok_and(|meta| file.metadata().is_ok_and(|own| own.ino() == meta.ino())) {
                break file;
            }
        };
        if let Some(layer) = self.layer_of(key)? {
            let _ = fs::remove_file(&lock_path);
            return Ok(layer);
        }
        // Whatever is there under either name was left by a crash.
        let temporary = self.layer_path(&format!(".new-{key}"));
        let place = self.layer_path(key);
        self.remove_tree(&temporary)?;
        let result = (|| {
            let root = temporary.join("fs");
            fs::DirBuilder::new().mode(0o700).create(&temporary).at(step, temporary.display())?;
            fs::DirBuilder::new().mode(0o755).create(&root).at(step, root.display())?;
            let record = LayerRecord { boot: boot_id().to_owned(), unique: unique()?, unpacked: make(&root)? };
            let text =
                serde_json::to_vec(&record).map_err(|error| Error::new(Code::SetupFailed, step, error.to_string()))?;
            let path = temporary.join(RECORD);
            let mut file = File::create(&path).at(step, path.display())?;
            file.write_all(&text).at(step, path.display())?;
            self.remove_tree(&place)?;
            fs::rename(&temporary, &place).at(step, place.display())
        })();
        if result.is_err() {
            let _ = self.remove_tree(&temporary);
        }
        let _ = fs::remove_file(&lock_path);
        drop(lock_file);
        result.map_err(with_room)?;
        self.layer_of(key)?.ok_or_else(|| {
            Error::new(Code::InUse, step, "it was removed as soon as it was there").on(key).hint("try again")
        })
    }

    fn has_settled(&self, key: &str, record: &LayerRecord) -> bool {
        fs::read_to_string(self.root.join(SETTLED).join(key)).is_ok_and(|unique| unique == record.unique)
    }

    /// The layers that may not have reached the disk yet: their names and numbers. Read without a lock: the note
    /// of one that is removed in the meantime does no harm.
    fn unsettled(&self) -> Vec<(String, String)> {
        let entries = fs::read_dir(self.root.join(LAYERS)).into_iter().flatten().flatten();
        let here = boot_id();
        entries
            .filter_map(|entry| {
                let key = entry.file_name().into_string().ok()?;
                let record: LayerRecord = serde_json::from_slice(&fs::read(entry.path().join(RECORD)).ok()?).ok()?;
                // Of another boot and not settled: not to be trusted, ever.
                (record.boot == here && !self.has_settled(&key, &record)).then_some((key, record.unique))
            })
            .collect()
    }

    /// Have all unpacked layers reached the disk?
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.unsettled().is_empty()
    }

    /// Writes all unpacked layers to the disk (syncfs(2)) and notes that they are there, so that they survive a crash of
    /// the host. Takes as long as the disk does; no layer waits for it, and none is held.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn settle(&self) -> Result<()> {
        let step = "write the layers to the disk";
        let open = self.unsettled();
        if open.is_empty() {
            return Ok(());
        }
        let notes = self.root.join(SETTLED);
        match fs::DirBuilder::new().mode(0o700).create(&notes) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(Error::os(step, notes.display().to_string(), &error));
            }
            _ => {}
        }
        // Held since before the wait: whoever removes the store in the meantime must not find it made again.
        let held = File::open(&notes).at(step, notes.display())?;
        let folder = self.root.join(LAYERS);
        let root = File::open(&folder).at(step, folder.display())?;
        rustix::fs::syncfs(&root).at(step, folder.display())?;
        for (key, unique) in &open {
            // One that a crash cuts short doesn't count, and one that nobody needs is removed by the next prune.
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let note = openat(&held, key.as_str(), flags, Mode::from(0o600)).at(step, notes.join(key).display())?;
            File::from(note).write_all(unique.as_bytes()).at(step, notes.join(key).display())?;
        }
        Ok(())
    }

    /// Removes a tree of the store's.
    pub(super) fn remove_tree(&self, path: &Path) -> Result<()> {
        let step = "remove";
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
        let directory = File::open(parent).at(step, path.display())?;
        let name = CString::new(name.as_bytes()).at(step, path.display())?;
        remove(&directory, &name).at(step, path.display())
    }
}
