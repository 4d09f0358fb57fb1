//! The way of the bytes: one thread inflates, one hashes what comes out, and the caller's takes it from here.

use std::io::{self, BufRead, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Scope;

use crate::compression;
use crate::digest::{Digest, Hasher};
use crate::limits::Limits;
use crate::tar::read_error;
use nsrs_base::error::{Error, Result};

/// The size of the pieces in which bytes travel between the threads.
const PIECE: usize = 256 << 10;

/// How many of them may be under way.
const QUEUE: usize = 8;

/// A piece of the stream. Its memory goes back to be used again.
struct Piece {
    bytes: Vec<u8>,
    spare: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Drop for Piece {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
    }
}

type Received = io::Result<Arc<Piece>>;

/// The unpacked bytes, as they arrive.
pub(super) struct Stream {
    pieces: Receiver<Received>,
    current: Option<Arc<Piece>>,
    position: usize,
}

/// Counts what goes through it.
struct Counted<'a, R> {
    input: R,
    count: &'a AtomicU64,
    tell: Option<&'a (dyn Fn(u64) + Send + Sync)>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        let before = self.count.fetch_add(count as u64, Ordering::Relaxed);
        if let Some(tell) = self.tell {
            tell(before + count as u64);
        }
        Ok(count)
    }
}

/// The digest and the size of the whole stream, when it has ended.
pub(super) type Sum<'scope> = std::thread::ScopedJoinHandle<'scope, (Digest, u64)>;

/// Starts a thread that decompresses the input and one that hashes what comes out.
pub(super) fn start<'scope, 'env, R: Read + Send + 'env>(
    scope: &'scope Scope<'scope, 'env>,
    input: R,
    packed: &'env AtomicU64,
    limits: &'env Limits,
    tell: Option<&'env (dyn Fn(u64) + Send + Sync)>,
) -> Result<(Stream, Sum<'scope>)> {
    let (to_caller, pieces) = sync_channel(QUEUE);
    let (to_hash, hashed) = sync_channel::<Arc<Piece>>(QUEUE);
    let spawn_failed = |error: io::Error| Error::os("start a thread", "", &error);
    std::thread::Builder::new()
        .name("inflate".into())
        .spawn_scoped(scope, move || inflate(Counted { input, count: packed, tell }, limits, &to_caller, &to_hash))
        .map_err(spawn_failed)?;
    let sum = std::thread::Builder::new()
        .name("hash".into())
        .spawn_scoped(scope, move || {
            let (mut hasher, mut size) = (Hasher::default(), 0);
            for piece in hashed {
                hasher.update(&piece.bytes);
                size += piece.bytes.len() as u64;
            }
            (hasher.finish(), size)
        })
        .map_err(spawn_failed)?;
    Ok((Stream { pieces, current: None, position: 0 }, sum))
}

fn inflate<R: Read + Send>(
    input: Counted<'_, R>,
    limits: &Limits,
    to_caller: &SyncSender<Received>,
    to_hash: &SyncSender<Arc<Piece>>,
) {
    let packed = input.count;
    let spare: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let fail = |error: io::Error| drop(to_caller.send(Err(error)));
    let mut input = match compression::unpacked_in_turn(input) {
        Ok(input) => input,
        Err(error) => return fail(io::Error::other(error)),
    };
    let mut size = 0_u64;
    loop {
        let mut bytes = spare.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        bytes.resize(PIECE, 0);
        let mut have = 0;
        let mut ended = false;
        while have < PIECE && !ended {
            match input.read(&mut bytes[have..]) {
                Ok(0) => ended = true,
                Ok(count) => have += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return fail(io::Error::other(read_error(error))),
            }
        }
        bytes.truncate(have);
        size += have as u64;
        if let Err(error) = limits.check(size, packed.load(Ordering::Relaxed)) {
            return fail(io::Error::other(error));
        }
        let piece = Arc::new(Piece { bytes, spare: spare.clone() });
        // Nobody there any more: it failed elsewhere.
        if have > 0 && (to_hash.send(piece.clone()).is_err() || to_caller.send(Ok(piece)).is_err()) {
            return;
        }
        if ended {
            return;
        }
    }
}

impl BufRead for Stream {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.current.as_ref().is_none_or(|piece| piece.bytes.len() == self.position) {
            self.position = 0;
            self.current = None;
            self.current = self.pieces.recv().ok().transpose()?;
        }
        Ok(self.current.as_ref().map_or(&[], |piece| &piece.bytes[self.position..]))
    }

    fn consume(&mut self, count: usize) {
        self.position += count;
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl Stream {
    /// Reads to the end: what is behind the archive counts for the digest, and for nothing else.
    pub(super) fn drain(&mut self) -> Result<()> {
        loop {
            let count = self.fill_buf().map_err(read_error)?.len();
            if count == 0 {
                return Ok(());
            }
            self.consume(count);
        }
    }
}
