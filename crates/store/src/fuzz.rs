//! What fuzzers feed: everything that reads what strangers wrote, as functions of bytes that must return.
//!
//! The targets in `fuzz/` call them, and the ordinary tests replay the corpora there.

use std::io::BufReader;

use oci_spec::image::{ImageIndex, ImageManifest};

use super::compression;
use super::config::{ImageConfig, chain_ids};
use super::digest::Digest;
use super::reference::Reference;
use super::tar::EntryKind;
use super::tar::read::TarReader;
use super::time;
use super::unpack::destination::clean;

/// So much of an archive is read; the rest would only take time.
const MOST: u64 = 16 << 20;

/// An archive, packed or not: all entries with their data.
pub fn archive(bytes: &[u8]) {
    let Ok(input) = compression::unpacked(bytes) else { return };
    let mut reader = TarReader::new(BufReader::new(std::io::Read::take(input, MOST)));
    while let Ok(Some(entry)) = reader.next_entry() {
        let _ = clean(&entry.path).map(|path| {
            assert!(!path.starts_with(b"/") && !path.split(|byte| *byte == b'/').any(|name| name == b".."));
        });
        assert!(entry.kind == EntryKind::File || entry.size == 0);
        if let Some(parts) = &entry.sparse {
            assert!(parts.iter().all(|(offset, length)| offset + length <= entry.size));
        }
        while let Ok(data) = reader.data() {
            if data.is_empty() {
                break;
            }
            let count = data.len();
            reader.consume(count);
        }
    }
}

/// A manifest, an index of manifests, or a configuration.
pub fn manifest(bytes: &[u8]) {
    let _ = serde_json::from_slice::<ImageManifest>(bytes);
    let _ = serde_json::from_slice::<ImageIndex>(bytes);
    if let Ok(config) = ImageConfig::parse(bytes) {
        assert_eq!(chain_ids(&config.diff_ids).len(), config.diff_ids.len());
        let _ = (config.env(), config.volumes(), config.exposed_ports(), config.labels(), config.platform());
        let _ = config.spec.created().as_deref().map(time::parse);
    }
}

/// A reference or a digest; what is read is written as it was meant.
pub fn reference(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(reference) = Reference::parse(text) {
        assert_eq!(Reference::parse(&reference.to_string()).ok().as_ref(), Some(&reference));
        assert_eq!(Reference::parse(&reference.familiar()).ok().as_ref(), Some(&reference));
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
    }
    let _ = time::parse(text);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    fn replay(name: &str, feed: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
        let mut count = 0;
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            // The name is on the screen if it is the one.
            println!("{}", path.display());
            feed(&bytes);
            // And what is near it.
            for cut in [bytes.len() / 2, bytes.len().saturating_sub(1)] {
                feed(&bytes[..cut]);
            }
            count += 1;
        }
        assert!(count > 5, "{count} files in {}", folder.display());
    }

    #[test]
    fn the_fuzzer_s_archives_are_read() {
        replay("archive", super::archive);
    }

    #[test]
    fn the_fuzzer_s_manifests_are_read() {
        replay("manifest", super::manifest);
    }

    #[test]
    fn the_fuzzer_s_references_are_read() {
        replay("reference", super::reference);
    }
}
