//! zstd's windows: how much of what came before a decoder keeps in memory, as the frame itself demands.
//!
//! Builders of images stay below 8 MiB; `zstd --ultra` and `--long` demand up to 128 MiB and more. A pull keeps to some 100
//! MB whatever it is sent, so large windows wait for each other, and larger ones are refused.

use std::io::{self, BufRead, Cursor, Read};
use std::sync::{Condvar, Mutex, PoisonError};

use crate::tar::read_error;
use nsrs_base::error::{Code, Error, Result};

/// Every decoder may have a window so large, as a power of two: 8 MiB.
const EACH: u32 = 23;

/// One decoder at a time may have one so large: 64 MiB.
const MOST: u32 = 26;

/// The longest beginning of a frame (RFC 8878, 3.1.1.1).
const HEADER: u64 = 18;

/// Is a large window in use?
static LARGE: Mutex<bool> = Mutex::new(false);
static FREE: Condvar = Condvar::new();

/// The right to a large window, released when it's dropped.
struct Turn;

impl Turn {
    fn take() -> Turn {
        let busy = LARGE.lock().unwrap_or_else(PoisonError::into_inner);
        *FREE.wait_while(busy, |busy| *busy).unwrap_or_else(PoisonError::into_inner) = true;
        Turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *LARGE.lock().unwrap_or_else(PoisonError::into_inner) = false;
        FREE.notify_one();
    }
}

struct Decoder<R: BufRead> {
    inner: zstd::stream::read::Decoder<'static, R>,
    _turn: Option<Turn>,
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer)
    }
}

/// The unpacked bytes of this input. `in_turn`: if it demands a large window, waits until no other such decoder has one.
///
/// # Errors
/// It can't be read, or demands more than is had here (`Unsupported`).
pub(super) fn decoder<'a>(mut input: impl BufRead + Send + 'a, in_turn: bool) -> Result<Box<dyn Read + Send + 'a>> {
    let mut header = Vec::new();
    input.by_ref().take(HEADER).read_to_end(&mut header).map_err(read_error)?;
    let window = window(&header).unwrap_or(0);
    if window > 1 << MOST {
        let why = format!("its zstd frame demands a window of {} MiB, more than {}", window >> 20, 1 << (MOST - 20));
        return Err(Error::new(Code::Unsupported, "unpack", why)
            .hint("pack it anew without --ultra and --long, or as gzip: skopeo copy --dest-compress-format gzip …"));
    }
    let large = window > 1 << EACH;
    let turn = (large && in_turn).then(Turn::take);
    let mut inner = zstd::stream::read::Decoder::with_buffer(Cursor::new(header).chain(input)).map_err(read_error)?;
    // Frames behind the first get no more than it was given.
    inner.window_log_max(if large { MOST } else { EACH }).map_err(read_error)?;
    Ok(Box::new(Decoder { inner, _turn: turn }))
}

/// The window in bytes that a frame demands by its header; `None` if it's cut short, or no frame of data.
fn window(header: &[u8]) -> Option<u64> {
    let rest = header.strip_prefix(&[0x28, 0xb5, 0x2f, 0xfd])?;
    let (flags, rest) = rest.split_first()?;
    if flags & 0x20 == 0 {
        let descriptor = *rest.first()?;
        let base = 1_u64 << (10 + (descriptor >> 3));
        return Some(base + base / 8 * u64::from(descriptor & 7));
    }
    // A single segment: the window is as large as the content, whose size follows the number of a dictionary.
    let dictionary = [0, 1, 2, 4][usize::from(flags & 3)];
    let length = 1_usize << (flags >> 6);
    let mut size = [0; 8];
    size[..length].copy_from_slice(rest.get(dictionary..dictionary + length)?);
    Some(u64::from_le_bytes(size) + if length == 2 { 256 } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(text: &[u8], log: u32, size: bool) -> Vec<u8> {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(log).unwrap();
        if size {
            encoder.set_pledged_src_size(Some(text.len() as u64)).unwrap();
        }
        io::Write::write_all(&mut encoder, text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn the_header_tells_the_window() {
        for log in [10, 20, 23, 24, 27] {
            assert_eq!(window(&packed(b"text", log, false)), Some(1 << log));
        }
        for size in [1, 255, 256, 300, 70_000] {
            assert_eq!(window(&packed(&vec![b'x'; size], 20, true)), Some(size as u64), "{size} bytes");
        }
        assert_eq!(window(b"\x28\xb5\x2f\xfd"), None);
        assert_eq!(window(b"\x50\x2a\x4d\x18\0\0\0\0"), None);
    }

    #[test]
    fn large_windows_wait_for_each_other_and_larger_ones_are_refused() {
        let (small, large) = (packed(b"small", 23, false), packed(b"large", 26, false));
        let text = |mut reader: Box<dyn Read + Send>| {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text
        };
        let first = decoder(Cursor::new(large.clone()), true).unwrap();
        assert_eq!(text(decoder(Cursor::new(small), true).unwrap()), "small");
        // An archive around layers has its own.
        assert_eq!(text(decoder(Cursor::new(large.clone()), false).unwrap()), "large");
        let (sender, done) = std::sync::mpsc::channel();
        let second = std::thread::spawn(move || {
            let decoder = decoder(Cursor::new(large), true).unwrap();
            sender.send(()).unwrap();
            text(decoder)
        });
        assert!(done.recv_timeout(std::time::Duration::from_millis(100)).is_err());
        assert_eq!(text(first), "large");
        assert_eq!(second.join().unwrap(), "large");
        let error = decoder(Cursor::new(packed(b"text", 27, false)), true).err().unwrap();
        assert!(error.to_string().contains("a window of 128 MiB, more than 64") && error.hint.contains("--long"));
        // Nor does a later frame get it.
        let both = [packed(b"one", 20, false), packed(b"two", 26, false)].concat();
        let mut all = Vec::new();
        assert!(decoder(Cursor::new(both), true).unwrap().read_to_end(&mut all).is_err());
        assert_eq!(all, b"one");
    }
}
