//! Layers that lie unpacked in the store (`import` of a directory, archives of older dockers), packed on their way to a
//! registry, as docker and skopeo do.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::write::GzEncoder;
use nsrs_base::error::{At, Code, Error, Result};
use nsrs_store::content::Store;
use nsrs_store::digest::Hasher;
use rustix::fs::{CWD, Mode, OFlags};

use crate::registry::manifest::Descriptor;

/// The type of a layer when it's packed. `None`: it is packed already, or no layer.
#[must_use]
pub fn packed_type(media_type: &str) -> Option<&'static str> {
    match media_type {
        "application/vnd.oci.image.layer.v1.tar" => Some("application/vnd.oci.image.layer.v1.tar+gzip"),
        "application/vnd.docker.image.rootfs.diff.tar" => Some("application/vnd.docker.image.rootfs.diff.tar.gzip"),
        _ => None,
    }
}

/// Packs a layer into a file without a name, which goes with its descriptor. The same layer gives the same bytes each time:
/// a registry that has them isn't sent them again.
///
/// # Errors
/// The layer isn't there or was altered; the disk is full.
pub fn pack(store: &Store, layer: &Descriptor, media_type: &str) -> Result<(File, Descriptor)> {
    let step = "pack the layer";
    let mut input = Hashed::of(store.open_blob(&layer.digest)?);
    let file = nameless(store)?;
    let output = Hashed::of(BufWriter::with_capacity(256 << 10, &file));
    let mut encoder = GzEncoder::new(output, flate2::Compression::default());
    let mut buffer = vec![0; 256 << 10];
    let packed = (|| {
        loop {
            match input.read(&mut buffer)? {
                0 => break,
                count => encoder.write_all(&buffer[..count])?,
            }
        }
        let mut output = encoder.finish()?;
        output.flush()?;
        io::Result::Ok((output.hasher, output.size))
    })();
    let (hasher, size) = packed
        .at(step, layer.digest)
        .map_err(|error| error.hint("a packed layer takes room until it was sent: make some (nsrs image prune)"))?;
    let found = input.hasher.finish();
    if found != layer.digest {
        return Err(Error::new(Code::ImageInvalid, "verify the blob", format!("its content has the digest {found}"))
            .on(layer.digest.to_string())
            .hint("it was altered on disk; pull or load the image again"));
    }
    let descriptor = Descriptor {
        media_type: media_type.to_owned(),
        digest: hasher.finish(),
        size,
        platform: layer.platform.clone(),
    };
    Ok((file, descriptor))
}

/// A file on the store's disk that is gone when we are.
fn nameless(store: &Store) -> Result<File> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let directory = store.root().join("ingest");
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    if let Ok(file) = rustix::fs::openat(CWD, &directory, flags, Mode::from(0o600)) {
        return Ok(file.into());
    }
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = directory.join(format!("push-{}.{number}", std::process::id()));
    let open = fs::OpenOptions::new().read(true).write(true).create_new(true).open(&path);
    let file = open.at("pack the layer", path.display())?;
    fs::remove_file(&path).at("pack the layer", path.display())?;
    Ok(file)
}

/// Hashes and counts what goes through.
struct Hashed<T> {
    inner: T,
    hasher: Hasher,
    size: u64,
}

impl<T> Hashed<T> {
    fn of(inner: T) -> Hashed<T> {
        Hashed { inner, hasher: Hasher::default(), size: 0 }
    }

    fn note(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
    }
}

impl<T: Read> Read for Hashed<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.note(&buffer[..count]);
        Ok(count)
    }
}

impl<T: Write> Write for Hashed<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.note(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
