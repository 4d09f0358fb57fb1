//! Layers on their way from an archive into a directory.
//!
//! The archive is hostile: whatever it says, nothing is made, changed or read outside of the directory. Names are taken
//! apart as text, the directory of an entry is opened by openat2(2) inside the destination (a link on the way leads
//! to where it leads in the image), and what is made there is made anew: nothing is written through a link, and what
//! stands in the way is removed.

mod attributes;
mod data;
pub(crate) mod destination;
mod errors;
mod links;
mod stream;
#[cfg(test)]
mod tests;
mod unpacker;
mod whiteout;

use std::fmt;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::limits::Limits;
use super::tar::read::TarReader;
use nsrs_base::error::show;
use nsrs_base::error::{Code, Error, Result};

/// Told how many bytes of the packed archive were read.
#[derive(Clone)]
pub struct ProgressCallback(pub Arc<dyn Fn(u64) + Send + Sync>);

impl fmt::Debug for ProgressCallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProgressCallback")
    }
}

/// How a layer is unpacked.
#[derive(Clone, Debug, Default)]
pub struct UnpackOptions {
    /// The diff id that it must have.
    pub diff_id: Option<Digest>,
    /// The marks for overlayfs are extended attributes `user.overlay.*`, as in a user namespace, and not
    /// `trusted.overlay.*`.
    pub user_xattrs: bool,
    /// Devices are made. Otherwise they are counted and left out.
    pub devices: bool,
    /// Files whose owner can't be had here belong to the unpacking user, and are counted. Otherwise that is an error.
    pub squash: bool,
    /// How much may come out.
    pub limits: Limits,
    /// Called with the bytes that were read of the packed archive so far, for progress reports.
    pub tell: Option<ProgressCallback>,
}

impl UnpackOptions {
    /// As the real root of the host unpacks.
    #[must_use]
    pub fn privileged() -> UnpackOptions {
        UnpackOptions { devices: true, ..UnpackOptions::default() }
    }

    /// As an ordinary user does, in a user namespace.
    #[must_use]
    pub fn unprivileged() -> UnpackOptions {
        UnpackOptions { user_xattrs: true, squash: true, ..UnpackOptions::default() }
    }
}

/// What an unpacked archive was and what could not be kept of it, recorded in `layer.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unpacked {
    /// The digest of the uncompressed archive.
    pub diff_id: Digest,
    /// Its size in bytes, uncompressed.
    pub size: u64,
    /// How many entries it had.
    pub entries: u64,
    /// It hides everything below it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub opaque: bool,
    /// The marks for overlayfs are `user.overlay.*`: the layer needs a mount with `userxattr`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub user_xattrs: bool,
    /// Whiteouts are files with an attribute, for devices couldn't be made: overlayfs knows them since Linux 6.7.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub xattr_whiteouts: bool,
    /// Devices that were left out.
    #[serde(default)]
    pub skipped_devices: u64,
    /// Entries whose owner couldn't be had.
    #[serde(default)]
    pub squashed: u64,
    /// Extended attributes that were left out: the file system doesn't support them, or they are overlayfs' own.
    #[serde(default)]
    pub dropped_xattrs: u64,
    /// Directories that have no entry of their own. They are root's, mode 0755, and say nothing of the same directory in
    /// a layer below.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub implicit: Vec<String>,
    /// Directories, except the root, that have whiteouts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub whiteouts: Vec<String>,
}

/// Unpacks a layer, packed as its first bytes say, into an empty directory.
///
/// # Errors
/// The archive is malformed, hostile or not the expected one (`ImageInvalid`), or the kernel refuses. What was made until
/// then stays; the caller removes the directory.
pub fn unpack(input: impl Read + Send, directory: &Path, options: &UnpackOptions) -> Result<Unpacked> {
    let packed = AtomicU64::new(0);
    let tell = options.tell.as_ref().map(|tell| &*tell.0);
    let mut place = unpacker::Unpacker::open(directory, options)?;
    std::thread::scope(|scope| {
        let (mut stream, sum) = stream::start(scope, input, &packed, &options.limits, tell)?;
        let result = entries(&mut TarReader::new(&mut stream), &mut place, &options.limits)
            .and_then(|entries| stream.drain().map(|()| entries));
        // Ends the threads, if something failed.
        drop(stream);
        let (found, size) = digest(sum)?;
        let entries = result?;
        hold(found, options)?;
        place.finish(found, size, entries)
    })
}

/// Holds what is read against the diff id that it must have, and unpacks nothing.
///
/// # Errors
/// It has another, or can't be read (`ImageInvalid`).
pub fn verify(input: impl Read + Send, options: &UnpackOptions) -> Result<()> {
    let packed = AtomicU64::new(0);
    let tell = options.tell.as_ref().map(|tell| &*tell.0);
    let found = std::thread::scope(|scope| {
        let (mut stream, sum) = stream::start(scope, input, &packed, &options.limits, tell)?;
        let result = stream.drain();
        drop(stream);
        let found = digest(sum)?.0;
        result.map(|()| found)
    })?;
    hold(found, options)
}

/// The digest and the size of a stream that has ended.
fn digest(sum: stream::Sum<'_>) -> Result<(Digest, u64)> {
    sum.join()
        .map_err(|_| Error::new(Code::SetupFailed, "unpack the layer", "the thread that computes the digest panicked"))
}

fn hold(found: Digest, options: &UnpackOptions) -> Result<()> {
    let Some(diff_id) = options.diff_id.filter(|diff_id| *diff_id != found) else { return Ok(()) };
    Err(Error::new(Code::ImageInvalid, "verify the layer", format!("its content has the diff id {found}"))
        .on(diff_id.to_string())
        .hint("the image's configuration and its layers don't belong together; pull or load it again"))
}

fn entries(
    reader: &mut TarReader<&mut stream::Stream>,
    place: &mut unpacker::Unpacker,
    limits: &Limits,
) -> Result<u64> {
    let mut count = 0;
    while let Some(entry) = reader.next_entry()? {
        count += 1;
        if count > limits.entries {
            let why = format!("more than {} entries", limits.entries);
            return Err(Error::new(Code::ImageInvalid, "unpack the layer", why));
        }
        place.put(&entry, reader).map_err(|error| match error.subject.is_empty() {
            true => error.on(show(&entry.path)),
            false => error,
        })?;
    }
    place.links()?;
    place.directories()?;
    Ok(count)
}
