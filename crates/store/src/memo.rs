//! Images that were looked for before: as long as nothing has changed in the store, what was found holds.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::identity;
use nsrs_base::error::Result;
use nsrs_base::host::Host;

/// Most images that are remembered.
const MOST: usize = 16;
/// What changes with the names, and with the unpacked layers, of a store.
const WATCHED: [&str; 2] = ["index.json", "layers"];

/// An image that is asked for, and the state of the store at that time. Taken before the image is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    image: String,
    platform: Option<String>,
    store: PathBuf,
    state: [Option<File>; WATCHED.len()],
}

/// A file, and when it was last changed.
type File = (u64, u64, i64, i64);

impl Wish {
    /// An image by the name that a user gave, and one of its platforms.
    ///
    /// # Errors
    /// The user has no home directory.
    pub fn of(image: &str, platform: Option<&str>, host: &Host) -> Result<Wish> {
        let store = identity::outside(host)?.directory;
        let state = WATCHED.map(|name| state(&store.join(name)));
        Ok(Wish { image: image.to_owned(), platform: platform.map(str::to_owned), store, state })
    }

    fn is_known(&self) -> bool {
        self.state.iter().all(Option::is_some)
    }
}

fn state(path: &Path) -> Option<File> {
    let meta = fs::metadata(path).ok()?;
    Some((meta.dev(), meta.ino(), meta.ctime(), meta.ctime_nsec()))
}

/// What was found of images.
#[derive(Debug)]
pub struct Memo<T>(Vec<(Wish, T)>);

impl<T> Memo<T> {
    /// Nothing yet.
    #[must_use]
    pub const fn empty() -> Memo<T> {
        Memo(Vec::new())
    }

    /// What was found of this image in a store that is still the same.
    #[must_use]
    pub fn get(&self, wish: &Wish) -> Option<&T> {
        self.0.iter().find(|(other, _)| other == wish).map(|(_, found)| found)
    }

    /// Keeps what was found.
    pub fn put(&mut self, wish: Wish, found: T) {
        let same =
            |other: &Wish| (&other.image, &other.platform, &other.store) == (&wish.image, &wish.platform, &wish.store);
        self.0.retain(|(other, _)| !same(other));
        if wish.is_known() {
            self.0.truncate(MOST - 1);
            self.0.insert(0, (wish, found));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_holds_until_a_name_or_a_layer_changes() {
        let store = std::env::temp_dir().join(format!("nsrs-memo-{}", std::process::id()));
        let _ = fs::remove_dir_all(&store);
        fs::create_dir_all(store.join("layers/a")).unwrap();
        let wish = |image: &str| {
            let state = WATCHED.map(|name| state(&store.join(name)));
            Wish { image: image.into(), platform: None, store: store.clone(), state }
        };
        let mut memo = Memo::empty();
        memo.put(wish("app"), 1);
        assert_eq!(memo.get(&wish("app")), None, "there are no names yet");

        fs::write(store.join("index.json"), "{}").unwrap();
        memo.put(wish("app"), 2);
        assert_eq!(memo.get(&wish("app")), Some(&2));
        assert_eq!(memo.get(&wish("other")), None);
        assert_eq!(memo.get(&Wish { platform: Some("linux/arm64".into()), ..wish("app") }), None);

        fs::write(store.join("new"), "{}").unwrap();
        fs::rename(store.join("new"), store.join("index.json")).unwrap();
        assert_eq!(memo.get(&wish("app")), None);
        memo.put(wish("app"), 3);
        assert_eq!(memo.get(&wish("app")), Some(&3));

        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::remove_dir(store.join("layers/a")).unwrap();
        assert_eq!(memo.get(&wish("app")), None);
        for number in 0..100 {
            memo.put(wish(&number.to_string()), number);
        }
        assert_eq!(memo.0.len(), MOST);
        fs::remove_dir_all(&store).unwrap();
    }
}
