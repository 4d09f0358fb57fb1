//! Removing what no image needs any more.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use serde::Serialize;
use serde_json::Value;

use super::layout::{LAYERS, LOCK, PACKED, SETTLED, STACKED};
use super::{Store, lock};
use crate::config::chain_ids;
use crate::digest::Digest;
use nsrs_base::error::{At, Code, Error, Result};

/// Whether to wait until nobody writes to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PruneWait {
    /// As long as it takes.
    Yes,
    /// A moment: then nothing is removed.
    No,
}

/// A supervisor that holds layers only for prewarmed containers lets go of them soon after their image loses its name. A
/// layer that is still held after this time is in use.
const PATIENCE: Duration = Duration::from_millis(300);

/// A process that is just being made has a copy of the lock of whoever makes it, until its exec.
const MOMENT: Duration = Duration::from_millis(50);

/// What a prune has removed and what it has left, as `nsrs prune` reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pruned {
    /// Manifests, configurations and packed layers.
    pub blobs: u64,
    /// Unpacked layers that were removed.
    pub layers: u64,
    /// Unpacked layers that no image needs and a container still uses.
    pub in_use: u64,
    /// Bytes of the removed blobs and, by the size of their archives, of the removed layers.
    pub bytes: u64,
    /// Images that can't be read, so that what they need isn't known.
    #[serde(skip)]
    pub damaged: Vec<DamagedImage>,
}

/// An image of the index that can't be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedImage {
    /// Its name, or its digest.
    pub name: String,
    /// Why it can't be read.
    pub error: Error,
}

/// What the images of the index need.
#[derive(Debug, Default)]
struct Needed {
    blobs: HashSet<String>,
    layers: HashSet<String>,
    chains: HashSet<String>,
    damaged: Vec<DamagedImage>,
}

impl Store {
    /// Removes every blob and every unpacked layer that no image of the index needs, broken-off downloads (`partial`),
    /// and what killed processes left. A layer that is held stays.
    ///
    /// What an image needs whose manifest or configuration is damaged isn't known. With [`PruneWait::No`], as after other work,
    /// nothing is removed then: most of it may be there for when the image is mended. With [`PruneWait::Yes`] what no other
    /// image needs goes.
    ///
    /// Returns `None` if others write to the store and `wait` is [`PruneWait::No`].
    ///
    /// # Errors
    /// A manifest of the index can't be read though it may be whole: then nothing is removed. A file can't be removed.
    pub fn prune(&self, wait: PruneWait, partial: bool) -> Result<Option<Pruned>> {
        if !self.is_made() {
            return Ok(Some(Pruned::default()));
        }
        let file = self.lock_file(LOCK)?;
        match wait {
            PruneWait::Yes => {
                lock(&file, FlockOperation::LockExclusive).at("lock the store of images", self.root.display())?
            }
            PruneWait::No if !lock_until(&file, Instant::now() + MOMENT) => return Ok(None),
            PruneWait::No => {}
        }
        let needed = self.needed()?;
        let mut pruned = Pruned { damaged: needed.damaged.clone(), ..Pruned::default() };
        if wait == PruneWait::No && !pruned.damaged.is_empty() {
            return Ok(Some(pruned));
        }
        self.prune_layers(&needed, &mut pruned)?;
        self.prune_blobs(&needed, &mut pruned)?;
        self.prune_leftovers(partial)?;
        self.prune_notes(&needed)?;
        Ok(Some(pruned))
    }

    fn needed(&self) -> Result<Needed> {
        let mut needed = Needed::default();
        for image in self.images()? {
            match self.needs(image.descriptor.digest().to_string(), &mut needed) {
                Err(error) if matches!(error.code, Code::ImageInvalid | Code::ImageNotFound) => {
                    let name = image.name.unwrap_or_else(|| image.descriptor.digest().to_string());
                    needed.damaged.push(DamagedImage { name, error });
                }
                other => other?,
            }
        }
        Ok(needed)
    }

    /// What one image of the index needs.
    fn needs(&self, listed: String, needed: &mut Needed) -> Result<()> {
        let mut next = vec![(listed, 0)];
        let mut damaged = Ok(());
        while let Some((digest, depth)) = next.pop() {
            // Seen before. A damaged one is reported again, for it has another name.
            if depth > 8 || !needed.blobs.insert(digest.clone()) && depth > 0 {
                continue;
            }
            // Not ours: a digest of another algorithm, which we don't store; a platform that wasn't pulled.
            let Ok(known) = digest.parse::<Digest>() else { continue };
            if depth > 0 && !self.has(&known) {
                continue;
            }
            let manifest = match self.parse(&known) {
                Err(error) if error.code == Code::ImageInvalid || error.code == Code::ImageNotFound => {
                    damaged = Err(error);
                    continue;
                }
                other => other?,
            };
            let digests = |list: &Value| -> Vec<String> {
                list.as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|entry| entry["digest"].as_str())
                    .map(str::to_owned)
                    .collect()
            };
            next.extend(digests(&manifest["manifests"]).into_iter().map(|digest| (digest, depth + 1)));
            needed.blobs.extend(digests(&manifest["layers"]));
            if let Some(config) = manifest["config"]["digest"].as_str() {
                needed.blobs.insert(config.to_owned());
                match self.needs_layers(config, needed) {
                    Err(error) if error.code == Code::ImageInvalid => damaged = Err(error),
                    other => other?,
                }
            }
        }
        damaged
    }

    fn needs_layers(&self, config: &str, needed: &mut Needed) -> Result<()> {
        let Ok(digest) = config.parse::<Digest>() else { return Ok(()) };
        if !self.has(&digest) {
            return Ok(());
        }
        let config = self.parse(&digest)?;
        let diff_ids: Vec<Digest> = config["rootfs"]["diff_ids"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|id| id.as_str()?.parse().ok())
            .collect();
        let chains = chain_ids(&diff_ids);
        needed.layers.extend(chains.iter().map(|id| format!("chain-{}", id.hex())));
        needed.chains.extend(chains.iter().map(Digest::hex));
        needed.layers.extend(diff_ids.iter().map(Digest::hex));
        Ok(())
    }

    fn parse(&self, digest: &Digest) -> Result<Value> {
        // What isn't JSON (an artifact that somebody listed) needs nothing further.
        let size = self.size(digest).unwrap_or(0);
        if size > super::MOST_METADATA {
            return Ok(Value::Null);
        }
        Ok(serde_json::from_slice(&self.read(digest)?).unwrap_or_default())
    }

    fn prune_layers(&self, needed: &Needed, pruned: &mut Pruned) -> Result<()> {
        let patience = Instant::now() + PATIENCE;
        for (name, path) in list(&self.root.join(LAYERS))? {
            if needed.layers.contains(&name) {
                continue;
            }
            // Whoever makes layers holds the store's lock: one that is half made was left by a crash.
            let record = fs::File::open(path.join("layer.json"));
            if !name.starts_with('.') {
                if let Ok(record) = &record {
                    if !lock_until(record, patience) {
                        pruned.in_use += 1;
                        continue;
                    }
                    let size =
                        serde_json::from_reader::<_, Value>(record).ok().and_then(|record| record["size"].as_u64());
                    pruned.bytes += size.unwrap_or(0);
                    // First the record: without it there is no layer, whatever happens next.
                    fs::remove_file(path.join("layer.json")).at("remove the layer", path.display())?;
                }
                pruned.layers += 1;
            }
            self.remove_tree(&path)?;
            // Locked until it is gone.
            drop(record);
        }
        Ok(())
    }

    fn prune_blobs(&self, needed: &Needed, pruned: &mut Pruned) -> Result<()> {
        for (name, path) in list(&self.root.join("blobs/sha256"))? {
            if needed.blobs.contains(&format!("sha256:{name}")) {
                continue;
            }
            pruned.bytes += fs::symlink_metadata(&path).map_or(0, |meta| meta.len());
            pruned.blobs += 1;
            fs::remove_file(&path).at("remove the blob", path.display())?;
        }
        Ok(())
    }

    /// Notes of layers and blobs that are gone.
    fn prune_notes(&self, needed: &Needed) -> Result<()> {
        let remove = |folder: &str, stays: &dyn Fn(&str) -> bool| {
            let folder = self.root.join(folder);
            if !folder.exists() {
                return Ok(());
            }
            for (name, path) in list(&folder)?.iter().filter(|(name, _)| !stays(name)) {
                fs::remove_file(path).at("remove the note of", name)?;
            }
            Ok(())
        };
        remove(SETTLED, &|name| self.root.join(LAYERS).join(name).exists())?;
        remove(PACKED, &|name| self.root.join("blobs/sha256").join(name).exists())?;
        remove(STACKED, &|name| needed.chains.contains(name))
    }

    fn prune_leftovers(&self, partial: bool) -> Result<()> {
        for (name, path) in list(&self.root.join("ingest"))? {
            let resumable = Digest::from_hex(&name).is_ok();
            if resumable && !partial {
                continue;
            }
            fs::remove_file(&path).at("remove the leftover", path.display())?;
        }
        Ok(())
    }
}

/// Takes a lock for itself, unless somebody else has it all the time until then.
fn lock_until(file: &fs::File, end: Instant) -> bool {
    loop {
        if flock(file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn list(folder: &Path) -> Result<Vec<(String, std::path::PathBuf)>> {
    let step = "list the store of images";
    fs::read_dir(folder)
        .at(step, folder.display())?
        .map(|entry| {
            let entry = entry.at(step, folder.display())?;
            Ok((entry.file_name().to_string_lossy().into_owned(), entry.path()))
        })
        .collect::<Result<_, Error>>()
}
