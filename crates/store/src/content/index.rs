//! The names of images: `index.json` of the image layout.
//!
//! Entries and fields that others put there stay as they are; only the entries that are named are touched.

use std::collections::{HashMap, HashSet};
use std::fs;

use oci_spec::image::Descriptor;
use rustix::fs::FlockOperation;
use serde_json::{Value, json};

use super::layout::{INDEX, INDEX_LOCK};
use super::{Store, lock};
use crate::digest::Digest;
use crate::reference::Reference;
use nsrs_base::calls::{LIST, PULL};
use nsrs_base::error::{At, Code, Error, Result};

/// The annotation that holds a name (OCI image specification, annotations.md).
pub(super) const NAME: &str = "org.opencontainers.image.ref.name";

/// The annotation of a name with the digest of the index that a pull chose the image from. It lets the next pull see in
/// one request that nothing has changed, and the image be found by that digest. An archive can't bring it.
pub const INDEX_DIGEST: &str = "dev.nsrs.index.digest";

/// An image of the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Its name; `None`: it was loaded without one.
    pub name: Option<String>,
    /// Its manifest, or an index of manifests.
    pub descriptor: Descriptor,
}

impl IndexEntry {
    /// The digest of the manifest.
    ///
    /// # Errors
    /// It's of an algorithm that isn't known.
    pub fn digest(&self) -> Result<Digest> {
        digest_of(&self.descriptor)
    }

    /// Whether this is the image's digest, or that of the index that it was pulled by.
    #[must_use]
    pub fn has_digest(&self, digest: &Digest) -> bool {
        has_digest(&self.descriptor, digest)
    }
}

fn has_digest(descriptor: &Descriptor, digest: &Digest) -> bool {
    let index = descriptor.annotations().as_ref().and_then(|notes| notes.get(INDEX_DIGEST));
    [Some(descriptor.digest().as_ref()), index.map(String::as_str)].contains(&Some(&digest.to_string()))
}

/// The digest that a name ends in: that of `NAME@DIGEST`.
#[must_use]
pub fn claimed_digest(name: &str) -> Option<Digest> {
    name.rsplit_once('@')?.1.parse().ok()
}

/// Makes sure that a name with a digest is given to nothing else.
///
/// # Errors
/// It has another digest (`ImageInvalid`).
pub(crate) fn check_name(name: &str, descriptor: &Descriptor) -> Result<()> {
    match claimed_digest(name).filter(|digest| !has_digest(descriptor, digest)) {
        None => Ok(()),
        Some(_) => {
            let why = format!("the image has the digest {}, not that of its name", descriptor.digest());
            Err(Error::new(Code::ImageInvalid, "name the image", why).on(name))
        }
    }
}

/// The digest that a descriptor points to.
///
/// # Errors
/// It's of an algorithm that isn't known.
pub fn digest_of(descriptor: &Descriptor) -> Result<Digest> {
    descriptor.digest().as_ref().parse()
}

impl Store {
    fn index(&self) -> Result<Value> {
        let path = self.path(INDEX);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(json!({
                    "schemaVersion": 2,
                    "mediaType": "application/vnd.oci.image.index.v1+json",
                    "manifests": [],
                }));
            }
            Err(error) => return Err(Error::os("read the index of images", path.display().to_string(), &error)),
        };
        let bad = |why: String| {
            Error::new(Code::ImageInvalid, "read the index of images", why)
                .on(path.display().to_string())
                .hint("repair it, or remove it and pull the images again (their layers are still there)")
        };
        let index: Value = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
        match index["manifests"].is_array() {
            true => Ok(index),
            false => Err(bad("no list of manifests".into())),
        }
    }

    /// All images, in the order in which they were named.
    ///
    /// # Errors
    /// The index can't be read.
    pub fn images(&self) -> Result<Vec<IndexEntry>> {
        let index = self.index()?;
        let entries = index["manifests"].as_array().into_iter().flatten();
        // What others put there and isn't a descriptor is not ours to complain of.
        Ok(entries
            .filter_map(|entry| serde_json::from_value::<Descriptor>(entry.clone()).ok())
            .map(|descriptor| IndexEntry {
                name: descriptor.annotations().as_ref().and_then(|all| all.get(NAME)).cloned(),
                descriptor,
            })
            .collect())
    }

    /// Changes the index under its lock.
    fn change(&self, change: impl FnOnce(&mut Vec<Value>) -> Result<()>) -> Result<()> {
        let file = self.lock_file(INDEX_LOCK)?;
        lock(&file, FlockOperation::LockExclusive).at("lock the index of images", self.root.display())?;
        let mut index = self.index()?;
        let before = index.clone();
        if let Some(entries) = index["manifests"].as_array_mut() {
            change(entries)?;
        }
        if index == before {
            return Ok(());
        }
        let text = serde_json::to_vec(&index)
            .map_err(|error| Error::new(Code::ImageInvalid, "write the index of images", error.to_string()))?;
        self.replace(INDEX, &text)
    }

    /// Gives a manifest (or index of manifests) a name. One that had the name before loses it.
    ///
    /// # Errors
    /// The manifest isn't in the store, the name is invalid or has another digest, or the index can't be written.
    pub fn tag(&self, name: &str, descriptor: &Descriptor) -> Result<()> {
        self.put(&[IndexEntry { name: Some(name.to_owned()), descriptor: descriptor.clone() }])
    }

    /// Lists a manifest without a name, unless it is listed already.
    ///
    /// # Errors
    /// The manifest isn't in the store, or the index can't be written.
    pub fn list(&self, descriptor: &Descriptor) -> Result<()> {
        self.put(&[IndexEntry { name: None, descriptor: descriptor.clone() }])
    }

    /// Does [`Store::tag`] or [`Store::list`] for all of these at once: readers see either none of them or all. The last of
    /// several with one name has it.
    ///
    /// # Errors
    /// Those of [`Store::tag`]: then nothing has changed.
    pub(crate) fn put(&self, images: &[IndexEntry]) -> Result<()> {
        let new: Vec<Value> = images.iter().map(|image| self.index_value(image)).collect::<Result<_>>()?;
        let named = || new.iter().enumerate().filter_map(|(at, entry)| Some((name_of(entry)?, at)));
        let last: HashMap<&str, usize> = named().collect();
        let found_names: HashSet<&str> = named().filter_map(|(_, at)| new[at]["digest"].as_str()).collect();
        self.change(|entries| {
            entries.retain(|other| match (name_of(other), other["digest"].as_str()) {
                (Some(name), _) => !last.contains_key(name),
                // An entry without a name of the same image has found its name.
                (None, digest) => digest.is_none_or(|digest| !found_names.contains(digest)),
            });
            let listed = entries.iter().filter_map(|entry| entry["digest"].as_str());
            let mut listed: HashSet<String> = listed.chain(found_names.iter().copied()).map(str::to_owned).collect();
            for (at, entry) in new.iter().enumerate() {
                let is_new = match name_of(entry) {
                    Some(name) => last.get(name) == Some(&at),
                    None => listed.insert(entry["digest"].as_str().unwrap_or_default().to_owned()),
                };
                if is_new {
                    entries.push(entry.clone());
                }
            }
            Ok(())
        })
    }

    /// The entry of an image in the index.
    fn index_value(&self, image: &IndexEntry) -> Result<Value> {
        let step = "name the image";
        if let Some(name) = &image.name {
            if name.is_empty() || name.len() > 1024 || name.chars().any(|c| c.is_control() || c.is_whitespace()) {
                return Err(Error::new(Code::InvalidArgument, step, "invalid name").on(format!("{name:?}")));
            }
            check_name(name, &image.descriptor)?;
        }
        let digest = image.digest()?;
        if !self.has(&digest) {
            return Err(Error::new(Code::ImageNotFound, step, "its manifest isn't in the store").on(digest.to_string()));
        }
        let mut entry = serde_json::to_value(&image.descriptor)
            .map_err(|error| Error::new(Code::ImageInvalid, step, error.to_string()))?;
        if let Some(annotations) = entry["annotations"].as_object_mut() {
            annotations.remove(NAME);
        }
        if let Some(name) = &image.name {
            entry["annotations"][NAME] = name.as_str().into();
        }
        if entry["annotations"].as_object().is_none_or(serde_json::Map::is_empty)
            && let Some(entry) = entry.as_object_mut()
        {
            entry.remove("annotations");
        }
        Ok(entry)
    }

    /// The manifest (or index of manifests) of this name.
    ///
    /// # Errors
    /// There is no such image (`ImageNotFound`); the hint has the nearest names.
    pub fn resolve(&self, name: &str) -> Result<Descriptor> {
        let images = self.images()?;
        let found = images.iter().find(|image| image.name.as_deref() == Some(name));
        found.map(|image| image.descriptor.clone()).ok_or_else(|| unknown(name, &images))
    }

    /// Takes a name away. The content stays until [`Store::prune`].
    ///
    /// # Errors
    /// There is no such name (`ImageNotFound`); the index can't be written.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.change(|entries| {
            let before = entries.len();
            entries.retain(|entry| name_of(entry) != Some(name));
            if entries.len() == before {
                return Err(unknown(name, &self.images()?));
            }
            Ok(())
        })
    }

    /// Takes all entries of this manifest away, named or not.
    ///
    /// # Errors
    /// The index can't be written.
    pub fn remove_digest(&self, digest: &Digest) -> Result<()> {
        let digest = digest.to_string();
        self.change(|entries| {
            entries.retain(|entry| entry["digest"] != digest.as_str());
            Ok(())
        })
    }
}

fn name_of(entry: &Value) -> Option<&str> {
    entry["annotations"][NAME].as_str()
}

/// A name as people write it.
fn familiar(name: &str) -> String {
    let short = Reference::parse(name).map_or_else(|_| name.to_owned(), |reference| reference.familiar());
    short.strip_suffix(":latest").map_or(short.clone(), str::to_owned)
}

/// The repository of a name, as people write it, and its tag.
fn parts(name: &str) -> (String, String) {
    let reference = Reference::parse(name).or_else(|_| Reference::parse(&name.to_lowercase()));
    let short = reference.map_or_else(|_| name.to_owned(), |reference| reference.familiar());
    let bare = short.split('@').next().unwrap_or_default();
    match bare.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository.to_owned(), tag.to_owned()),
        _ => (bare.to_owned(), "latest".to_owned()),
    }
}

/// The error for a name that isn't there, with the nearest that are.
pub fn unknown(name: &str, images: &[IndexEntry]) -> Error {
    let error = Error::new(Code::ImageNotFound, "find the image", "not in the store").on(name);
    let (repository, tag) = parts(name);
    let last = repository.rsplit('/').next().unwrap_or_default();
    // Other tags of the repository come first, whatever they are; of others the repository must be spelled alike.
    let mut near: Vec<(usize, bool, usize, String)> = images
        .iter()
        .filter_map(|image| image.name.as_deref())
        .filter_map(|other| {
            let (other_repository, other_tag) = parts(other);
            let far = distance(&repository, &other_repository);
            let is_near = far <= last.len().max(4) / 3 || other_repository.contains(&repository);
            is_near.then(|| (far, !other_tag.starts_with(&tag), distance(&tag, &other_tag), familiar(other)))
        })
        .collect();
    near.sort_unstable();
    near.dedup();
    near.truncate(3);
    match near.is_empty() {
        true => error.hint(format!("{LIST} lists what is in the store; {PULL} fetches an image")),
        false => error.did_you_mean(near.into_iter().map(|(.., name)| name).collect()),
    }
}

/// How many letters must change, appear, go or swap with the next (Damerau), in texts of at most 200.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(200).collect(), b.chars().take(200).collect());
    let mut before = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let change = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = change.min(row[j - 1] + 1).min(above[j] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_damerau() {
        assert_eq!(distance("bsae", "base"), 1);
        assert_eq!(distance("ab", "ba"), 1);
        assert_eq!(distance("abc", "ca"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("same", "same"), 0);
    }
}
