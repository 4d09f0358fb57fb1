//! A cache of what was found of images. An entry is valid as long as the store has not changed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::content::layout::{INDEX, LAYERS};
use super::store_access::StoreAccess;
use nsrs_base::error::Result;
use nsrs_base::host::Host;

/// How many images are cached.
const MAX_ENTRIES: usize = 16;
/// What in a store changes with its names and its unpacked layers.
const WATCHED: [&str; 2] = [INDEX, LAYERS];

/// The key of the cache: an image, and the state of the store before it was looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageQuery {
    image: String,
    platform: Option<String>,
    store: PathBuf,
    state: [Option<FileState>; WATCHED.len()],
}

/// Device, inode, and change time of a file in seconds and nanoseconds.
type FileState = (u64, u64, i64, i64);

impl ImageQuery {
    /// Asks for an image by the name that a user gave, for a platform, in the store as it is now.
    ///
    /// # Errors
    /// The user has no home directory.
    pub fn of(image: &str, platform: Option<&str>, host: &Host) -> Result<ImageQuery> {
        let store = StoreAccess::of_caller(host)?.directory;
        let state = WATCHED.map(|name| state(&store.join(name)));
        Ok(ImageQuery { image: image.to_owned(), platform: platform.map(str::to_owned), store, state })
    }

    /// Whether there is a store whose changes can be noticed.
    fn is_cacheable(&self) -> bool {
        self.state.iter().all(Option::is_some)
    }
}

fn state(path: &Path) -> Option<FileState> {
    let meta = fs::metadata(path).ok()?;
    Some((meta.dev(), meta.ino(), meta.ctime(), meta.ctime_nsec()))
}

/// What was found of images, the latest first.
#[derive(Debug)]
pub struct ImageLookups<T>(Vec<(ImageQuery, T)>);

impl<T> ImageLookups<T> {
    /// A cache that knows no image yet.
    #[must_use]
    pub const fn empty() -> ImageLookups<T> {
        ImageLookups(Vec::new())
    }

    /// What was found by an equal query, in a store that has not changed.
    #[must_use]
    pub fn get(&self, query: &ImageQuery) -> Option<&T> {
        self.0.iter().find(|(other, _)| other == query).map(|(_, found)| found)
    }

    /// Adds what was found, in place of what an earlier state of the store had.
    pub fn put(&mut self, query: ImageQuery, found: T) {
        let same = |other: &ImageQuery| {
            (&other.image, &other.platform, &other.store) == (&query.image, &query.platform, &query.store)
        };
        self.0.retain(|(other, _)| !same(other));
        if query.is_cacheable() {
            self.0.truncate(MAX_ENTRIES - 1);
            self.0.insert(0, (query, found));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_holds_until_a_name_or_a_layer_changes() {
        let store = std::env::temp_dir().join(format!("nsrs-lookups-{}", std::process::id()));
        let _ = fs::remove_dir_all(&store);
        fs::create_dir_all(store.join("layers/a")).unwrap();
        let query = |image: &str| {
            let state = WATCHED.map(|name| state(&store.join(name)));
            ImageQuery { image: image.into(), platform: None, store: store.clone(), state }
        };
        let mut memo = ImageLookups::empty();
        memo.put(query("app"), 1);
        assert_eq!(memo.get(&query("app")), None, "there are no names yet");

        fs::write(store.join("index.json"), "{}").unwrap();
        memo.put(query("app"), 2);
        assert_eq!(memo.get(&query("app")), Some(&2));
        assert_eq!(memo.get(&query("other")), None);
        assert_eq!(memo.get(&ImageQuery { platform: Some("linux/arm64".into()), ..query("app") }), None);

        fs::write(store.join("new"), "{}").unwrap();
        fs::rename(store.join("new"), store.join("index.json")).unwrap();
        assert_eq!(memo.get(&query("app")), None);
        memo.put(query("app"), 3);
        assert_eq!(memo.get(&query("app")), Some(&3));

        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::remove_dir(store.join("layers/a")).unwrap();
        assert_eq!(memo.get(&query("app")), None);
        for number in 0..100 {
            memo.put(query(&number.to_string()), number);
        }
        assert_eq!(memo.0.len(), MAX_ENTRIES);
        fs::remove_dir_all(&store).unwrap();
    }
}
