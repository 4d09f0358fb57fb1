//! The header of an entry, read as Go's `archive/tar` reads it: what is a prefix, a number or nothing at all in a field is
//! decided as there, byte by byte.

use super::BLOCK;
use super::error::malformed;
use nsrs_base::error::Result;

/// A block of a header.
pub(super) type Block = [u8; BLOCK as usize];

/// Which of the forms a header has, by its magic. That decides on the fields behind the name of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// The oldest one, which has none of these fields.
    V7,
    /// POSIX. The version doesn't matter.
    Ustar,
    /// As ustar, with a shorter prefix before two times.
    Star,
    /// Times and the map of a sparse file where ustar has the prefix.
    Gnu,
}

/// The fields of a header, before extended headers override them.
#[derive(Debug)]
pub(super) struct Header {
    /// The type flag as it is.
    pub(super) kind: u8,
    /// With the prefix, where there is one.
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) mtime: i64,
    /// Major and minor number; zero where the form has none.
    pub(super) device: (u32, u32),
    form: Form,
    block: Block,
}

impl Header {
    /// Reads a block that isn't empty.
    ///
    /// # Errors
    /// The checksum is wrong, or a field for a number has something else.
    pub(super) fn read(block: Block) -> Result<Header> {
        check_sum(&block)?;
        let form = form(&block);
        let field = |from: usize, to: usize, what: &str| {
            number(&block[from..to]).ok_or_else(|| malformed(format!("the {what} of an entry is not a number")))
        };
        let unsigned = |from: usize, to: usize, what: &str| {
            let value = field(from, to, what)?;
            u64::try_from(value).map_err(|_| malformed(format!("the {what} of an entry is negative")))
        };
        let device = |from: usize, to: usize| -> Result<u32> {
            let value = if form == Form::V7 { 0 } else { unsigned(from, to, "device number")? };
            u32::try_from(value).map_err(|_| malformed("the device number of an entry is too large"))
        };
        if form == Form::Star {
            field(476, 488, "access time")?;
            field(488, 500, "change time")?;
        }
        let name = text(&block[..100]);
        let prefix = prefix(&block, form);
        Ok(Header {
            kind: block[156],
            path: if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() },
            link: text(&block[157..257]).to_vec(),
            size: unsigned(124, 136, "size")?,
            mode: (field(100, 108, "mode")? & 0o7777) as u32,
            uid: unsigned(108, 116, "owner")?,
            gid: unsigned(116, 124, "group")?,
            mtime: field(136, 148, "time")?,
            device: (device(329, 337)?, device(337, 345)?),
            form,
            block,
        })
    }

    /// What a GNU header says of a sparse file: its size with the holes, the first parts of its map, and whether blocks with
    /// more of them follow.
    ///
    /// # Errors
    /// It is a header of another form, or has something else than numbers there.
    pub(super) fn gnu_sparse(&self) -> Result<(u64, SparseParts, bool)> {
        if self.form != Form::Gnu {
            return Err(malformed("a sparse file without a GNU header"));
        }
        let size = number(&self.block[483..495]).and_then(|size| u64::try_from(size).ok());
        let size = size.ok_or_else(|| malformed("the size of a sparse file is not a number"))?;
        Ok((size, sparse_parts(&self.block[386..482])?, self.block[482] != 0))
    }
}

/// Offset and length of parts of a sparse file.
pub(super) type SparseParts = Vec<(u64, u64)>;

/// The parts in a block that continues the map of a GNU header, and whether another one follows.
///
/// # Errors
/// There is something else than numbers.
pub(super) fn gnu_sparse_more(block: &Block) -> Result<(SparseParts, bool)> {
    Ok((sparse_parts(&block[..504])?, block[504] != 0))
}

/// Pairs of numbers, up to the first one that is empty.
fn sparse_parts(fields: &[u8]) -> Result<SparseParts> {
    let number = |field| number(field).and_then(|number| u64::try_from(number).ok());
    let pairs = fields.chunks_exact(24).take_while(|pair| pair[0] != 0);
    let parts: Option<SparseParts> = pairs.map(|pair| Some((number(&pair[..12])?, number(&pair[12..])?))).collect();
    parts.ok_or_else(|| malformed("malformed map of a sparse file"))
}

fn form(block: &Block) -> Form {
    match (&block[257..263], &block[263..265], &block[508..512]) {
        (b"ustar\0", _, b"tar\0") => Form::Star,
        (b"ustar\0", ..) => Form::Ustar,
        (b"ustar ", b" \0", _) => Form::Gnu,
        _ => Form::V7,
    }
}

fn prefix(block: &Block, form: Form) -> &[u8] {
    match form {
        Form::V7 => &[],
        Form::Ustar => text(&block[345..500]),
        Form::Star => text(&block[345..476]),
        // Go before 1.8 wrote a prefix where GNU has two times. It is one if it can't be these.
        Form::Gnu => {
            let is_time = |field: &[u8]| field[0] == 0 || number(field).is_some();
            let prefix = text(&block[345..500]);
            let are_times = is_time(&block[345..357]) && is_time(&block[357..369]);
            if are_times || !prefix.is_ascii() { &[] } else { prefix }
        }
    }
}

fn check_sum(block: &Block) -> Result<()> {
    let sum = |value: fn(u8) -> i64| -> i64 {
        let field = 148..156;
        (0..).zip(block).map(|(index, byte)| if field.contains(&index) { 32 } else { value(*byte) }).sum()
    };
    let stated = octal(&block[148..156]);
    // Old programs added the bytes up as signed ones.
    if stated != Some(sum(i64::from)) && stated != Some(sum(|byte| i64::from(byte as i8))) {
        return Err(malformed("a header has a wrong checksum").hint("make sure that it is a complete tar archive"));
    }
    Ok(())
}

/// A text up to its first zero byte.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A number in octal digits, or in GNU's binary form: big-endian in two's complement behind the highest bit.
fn number(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 == 0 {
        return octal(field);
    }
    let invert = if first & 0x40 == 0 { 0 } else { 0xff };
    let mut value = 0_u64;
    for (index, byte) in field.iter().enumerate() {
        let byte = (byte ^ invert) & if index == 0 { 0x7f } else { 0xff };
        if value >> 56 != 0 {
            return None;
        }
        value = value << 8 | u64::from(byte);
    }
    let value = i64::try_from(value).ok()?;
    Some(if invert == 0 { value } else { !value })
}

/// Octal digits with blanks and zero bytes around them; nothing but these is zero.
fn octal(field: &[u8]) -> Option<i64> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | 0);
    let Some(start) = field.iter().position(|byte| !is_blank(byte)) else { return Some(0) };
    let end = field.iter().rposition(|byte| !is_blank(byte)).map_or(start, |last| last + 1);
    let digits = text(&field[start..end]);
    digits.iter().try_fold(0_i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}
