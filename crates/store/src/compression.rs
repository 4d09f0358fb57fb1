//! How layers and archives are packed, recognized by their first bytes.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::GzDecoder;

use super::limits::Limits;
use super::zstd_window;
use nsrs_base::error::{Code, Error, Result};

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Uncompressed.
    None,
    /// gzip(1), which may consist of several members.
    Gzip,
    /// zstd(1).
    Zstd,
}

impl Compression {
    /// What begins with these bytes.
    ///
    /// # Errors
    /// It's packed in a way that images don't have.
    pub fn detect(bytes: &[u8]) -> Result<Compression> {
        let other = match bytes {
            [0x1f, 0x8b, ..] => return Ok(Compression::Gzip),
            // A frame, or a skippable one before it.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => return Ok(Compression::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => "xz",
            [b'B', b'Z', b'h', ..] => "bzip2",
            [b'P', b'K', 3, 4, ..] => "unzip",
            _ => return Ok(Compression::None),
        };
        Err(Error::new(Code::Unsupported, "read the archive", format!("it's packed for {other}"))
            .hint(format!("unpack it first: {other} -dc FILE | nsrs … -")))
    }

    /// The media type of a layer that is packed so.
    #[must_use]
    pub fn layer_media_type(self) -> &'static str {
        match self {
            Compression::None => "application/vnd.oci.image.layer.v1.tar",
            Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// The unpacked bytes of this input, by its first bytes.
///
/// # Errors
/// It can't be read; it's packed in a way that images don't have, or that takes too much memory.
pub fn unpacked<'a>(input: impl Read + Send + 'a) -> Result<Box<dyn Read + Send + 'a>> {
    start(input, false)
}

/// The same for one of several layers: those that take much memory wait for each other, so it must not be asked for by
/// who reads such a layer already.
///
/// # Errors
/// Those of [`unpacked`].
pub fn unpacked_in_turn<'a>(input: impl Read + Send + 'a) -> Result<Box<dyn Read + Send + 'a>> {
    start(input, true)
}

fn start<'a>(input: impl Read + Send + 'a, in_turn: bool) -> Result<Box<dyn Read + Send + 'a>> {
    let mut input = BufReader::with_capacity(128 << 10, input);
    // The first read may bring less than a magic number.
    let start = loop {
        match input.fill_buf() {
            Ok(bytes) => break bytes.to_vec(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(super::tar::read_error(error)),
        }
    };
    if start.len() < 6 && !start.is_empty() {
        let mut start = Vec::new();
        input.by_ref().take(6).read_to_end(&mut start).map_err(super::tar::read_error)?;
        let compression = Compression::detect(&start)?;
        return decoder(compression, BufReader::with_capacity(128 << 10, io::Cursor::new(start).chain(input)), in_turn);
    }
    decoder(Compression::detect(&start)?, input, in_turn)
}

/// Counts what is read, and what may come of it.
struct Packed<R> {
    input: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for Packed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.count.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

struct Limited<'a> {
    input: Box<dyn Read + Send + 'a>,
    packed: Arc<AtomicU64>,
    size: u64,
    limits: Limits,
}

impl Read for Limited<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.size += count as u64;
        self.limits.check(self.size, self.packed.load(Ordering::Relaxed)).map_err(io::Error::other)?;
        Ok(count)
    }
}

/// The same as [`unpacked`], up to a limit.
///
/// # Errors
/// Those of [`unpacked`]. Reading beyond the limit is an error (`ImageInvalid`).
pub fn unpacked_within<'a>(input: impl Read + Send + 'a, limits: Limits) -> Result<Box<dyn Read + Send + 'a>> {
    let packed: Arc<AtomicU64> = Arc::default();
    let input = unpacked(Packed { input, count: packed.clone() })?;
    Ok(Box::new(Limited { input, packed, size: 0, limits }))
}

fn decoder<'a>(
    compression: Compression,
    input: impl BufRead + Send + 'a,
    in_turn: bool,
) -> Result<Box<dyn Read + Send + 'a>> {
    Ok(match compression {
        Compression::None => Box::new(input),
        Compression::Gzip => Box::new(Gzip { member: Some(GzDecoder::new(input)) }),
        Compression::Zstd => zstd_window::decoder(input, in_turn)?,
    })
}

/// The members of a gzip file, one after the other. Zeroes behind the last are padding, as tapes and dd(1) leave it.
struct Gzip<R> {
    /// The member that is read; `None` after the last.
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let count = member.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            let has_next = has_next(member.get_mut())?;
            let input = self.member.take().map(GzDecoder::into_inner);
            self.member = input.filter(|_| has_next).map(GzDecoder::new);
        }
        Ok(0)
    }
}

/// Does another member follow the end of one, and not only padding?
fn has_next(input: &mut impl BufRead) -> io::Result<bool> {
    if let [0x1f, ..] = input.fill_buf()? {
        return Ok(true);
    }
    loop {
        let bytes = input.fill_buf()?;
        let count = bytes.len();
        if count == 0 {
            return Ok(false);
        }
        if bytes.iter().any(|byte| *byte != 0) {
            let why = "something follows the end of the gzip stream";
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        input.consume(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Brings one byte at a time.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = buffer.len().min(1).min(self.0.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    #[test]
    fn the_first_bytes_tell() {
        let text = b"hello".repeat(1000);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut gzip, &text).unwrap();
        let zstd = zstd::encode_all(&text[..], 3).unwrap();
        for packed in [text.clone(), gzip.finish().unwrap(), zstd, Vec::new(), b"x".to_vec()] {
            let mut all = Vec::new();
            unpacked(Slow(&packed)).unwrap().read_to_end(&mut all).unwrap();
            assert!(all == text || all == packed, "{} bytes", packed.len());
        }
        let error = unpacked(&b"\xfd7zXZ\0rest"[..]).err().unwrap();
        assert!(error.hint.contains("xz -dc"), "{error:?}");
    }

    #[test]
    fn zeroes_behind_a_gzip_stream_are_padding_and_other_bytes_are_told() {
        let member = |text: &[u8]| {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            io::Write::write_all(&mut gzip, text).unwrap();
            gzip.finish().unwrap()
        };
        let read = |behind: &[u8]| {
            let packed = [member(b"hello "), member(b""), member(b"there"), behind.to_vec()].concat();
            let all = |mut input: Box<dyn Read + Send + '_>| {
                let mut all = String::new();
                input.read_to_string(&mut all).map_err(super::super::tar::read_error).map(|_| all)
            };
            let (slow, fast) = (all(unpacked(Slow(&packed)).unwrap()), all(unpacked(&packed[..]).unwrap()));
            assert_eq!(slow, fast);
            fast
        };
        for padding in [0, 1, 512, 300_000] {
            assert_eq!(read(&vec![0; padding]).unwrap(), "hello there");
        }
        for behind in [&b"x"[..], b"\0\0x", b"some more text"] {
            let error = read(behind).unwrap_err().to_string();
            assert!(error.contains("something follows the end of the gzip stream"), "{error}");
        }
        assert!(read(&member(b"more")[..8]).unwrap_err().to_string().contains("truncated"));
    }
}
