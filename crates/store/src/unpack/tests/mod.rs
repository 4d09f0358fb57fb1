mod benign;
mod entries;
mod hostile;
mod links;
mod overlay;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;

use super::*;
use crate::tar::write::Writer;
use crate::tar::{EntryKind, TarEntry};

/// A destination with a canary beside it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("nsrs-unpack-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("root")).unwrap();
        fs::write(path.join("canary"), "alive").unwrap();
        fs::create_dir(path.join("outside")).unwrap();
        Scratch(path)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.join("root").join(path)
    }

    fn unpack(&self, archive: &[u8]) -> Result<Unpacked> {
        unpack(archive, &self.0.join("root"), &options())
    }

    /// Nothing beside the destination was touched.
    fn untouched(&self) {
        let mut names: Vec<_> = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["canary", "outside", "root"]);
        assert_eq!(fs::read_to_string(self.0.join("canary")).unwrap(), "alive");
        let meta = fs::symlink_metadata(self.0.join("canary")).unwrap();
        assert_eq!((meta.nlink(), meta.mode() & 0o7777), (1, 0o644));
        assert_eq!(fs::read_dir(self.0.join("outside")).unwrap().count(), 0);
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        gone(&self.0);
    }
}

/// Removes a tree, also where its directories are closed to their owner.
fn gone(path: &std::path::Path) {
    let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    nsrs_base::tree::remove::remove(rustix::fs::CWD, &name).unwrap();
}

fn root() -> bool {
    rustix::process::geteuid().is_root()
}

fn options() -> UnpackOptions {
    UnpackOptions { squash: !root(), devices: root(), user_xattrs: !root(), ..UnpackOptions::default() }
}

fn entry(kind: EntryKind, path: &[u8]) -> TarEntry {
    TarEntry {
        path: path.to_vec(),
        link: Vec::new(),
        kind,
        mode: if kind == EntryKind::Directory { 0o755 } else { 0o644 },
        uid: 0,
        gid: 0,
        mtime: (1_000_000_000, 0),
        device: (0, 0),
        size: 0,
        sparse: None,
        xattrs: Vec::new(),
    }
}

/// Builds an archive.
struct Archive(Writer<Vec<u8>>);

impl Archive {
    fn new() -> Archive {
        Archive(Writer::new(Vec::new()))
    }

    fn put(mut self, entry: &TarEntry, data: &[u8]) -> Archive {
        self.0.entry(entry).unwrap();
        self.0.data(data).unwrap();
        self
    }

    fn file(self, path: impl AsRef<[u8]>, data: &str) -> Archive {
        let entry = TarEntry { size: data.len() as u64, ..entry(EntryKind::File, path.as_ref()) };
        self.put(&entry, data.as_bytes())
    }

    fn dir(self, path: impl AsRef<[u8]>) -> Archive {
        self.put(&entry(EntryKind::Directory, path.as_ref()), b"")
    }

    fn link(self, kind: EntryKind, path: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Archive {
        self.put(&TarEntry { link: to.as_ref().to_vec(), ..entry(kind, path.as_ref()) }, b"")
    }

    fn symlink(self, path: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Archive {
        self.link(EntryKind::Symlink, path, to)
    }

    fn hard(self, path: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Archive {
        self.link(EntryKind::HardLink, path, to)
    }

    fn end(self) -> Vec<u8> {
        self.0.finish().unwrap()
    }
}

fn sparse(parts: &[(u64, u64)], size: u64) -> Vec<u8> {
    let entry = TarEntry { size, sparse: Some(parts.to_vec()), ..entry(EntryKind::File, b"sparse") };
    let stored: u64 = parts.iter().map(|part| part.1).sum();
    Archive::new().put(&entry, &vec![b'x'; usize::try_from(stored).unwrap()]).end()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut writer, bytes).unwrap();
    writer.finish().unwrap()
}

fn xattr(path: &std::path::Path, name: &str) -> Option<Vec<u8>> {
    let mut value = [0_u8; 256];
    let count = rustix::fs::lgetxattr(path, name, &mut value).ok()?;
    Some(value[..count].to_vec())
}
