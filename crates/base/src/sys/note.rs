//! The mark of our executables: an ELF note (elf(5)) that tells them from other programs, and the version, without running
//! them.

use std::fs::File;
use std::os::unix::fs::FileExt;

const VERSION: &str = env!("CARGO_PKG_VERSION");
const OWNER: &[u8] = b"nsrs\0";
/// One number for one meaning, in our owner's own count.
const KIND: u32 = 1;
/// Both parts of a note are padded to this.
const ALIGNMENT: usize = 4;

#[repr(C)]
struct Note {
    owner_length: u32,
    version_length: u32,
    kind: u32,
    owner: [u8; padded(OWNER.len())],
    version: [u8; padded(VERSION.len())],
}

// SAFETY: the linker gathers sections of this name into a segment of notes, which nothing but readers of notes looks at, and
// this is one by its layout.
#[used]
#[unsafe(link_section = ".note.nsrs")]
static NOTE: Note = Note {
    owner_length: OWNER.len() as u32,
    version_length: VERSION.len() as u32,
    kind: KIND,
    owner: pad(OWNER),
    version: pad(VERSION.as_bytes()),
};

const fn padded(length: usize) -> usize {
    length.next_multiple_of(ALIGNMENT)
}

const fn pad<const LENGTH: usize>(text: &[u8]) -> [u8; LENGTH] {
    let mut all = [0; LENGTH];
    let mut at = 0;
    while at < text.len() {
        all[at] = text[at];
        at += 1;
    }
    all
}

/// The version of nsrs that an executable is of; `None` if the file is not an executable of nsrs. Reads a few hundred
/// bytes.
#[must_use]
pub fn version_of(file: &File) -> Option<String> {
    const HEADER: usize = 64;
    const SEGMENT: usize = 56;
    const NOTES: u32 = 4;
    // Far more than there are, so that no file has us read much.
    const MOST: usize = 4096;
    let read = |at: u64, length: usize| {
        let mut bytes = vec![0; length.min(MOST)];
        file.read_exact_at(&mut bytes, at).ok().map(|()| bytes)
    };
    let header = read(0, HEADER)?;
    // Of 64 bits, which all our platforms have.
    if !header.starts_with(b"\x7fELF\x02") {
        return None;
    }
    let segments = read(number(&header, 32)?, usize::from(u16::from_ne_bytes(at(&header, 56)?)) * SEGMENT)?;
    segments
        .chunks_exact(SEGMENT)
        .filter(|segment| at(segment, 0).map(u32::from_ne_bytes) == Some(NOTES))
        .find_map(|segment| find(&read(number(segment, 8)?, number(segment, 32)? as usize)?))
}

/// The version in the note of nsrs, among these notes.
fn find(notes: &[u8]) -> Option<String> {
    let mut rest = notes;
    loop {
        let [owner_length, version_length, kind] = [0, 4, 8].map(|offset| at(rest, offset).map(u32::from_ne_bytes));
        let (owner_length, version_length) = (owner_length? as usize, version_length? as usize);
        let owner = rest.get(12..)?.get(..owner_length)?;
        let text = rest.get(12 + padded(owner_length)..)?;
        if owner == OWNER && kind == Some(KIND) {
            return String::from_utf8(text.get(..version_length)?.to_vec()).ok();
        }
        rest = text.get(padded(version_length)..)?;
    }
}

fn number(bytes: &[u8], offset: usize) -> Option<u64> {
    at(bytes, offset).map(u64::from_ne_bytes)
}

fn at<const LENGTH: usize>(bytes: &[u8], offset: usize) -> Option<[u8; LENGTH]> {
    bytes.get(offset..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_is_built_of_this_crate_tells_its_version() {
        let own = File::open("/proc/self/exe").unwrap();
        assert_eq!(version_of(&own).as_deref(), Some(VERSION));
    }

    #[test]
    fn other_programs_and_files_are_none() {
        let mut file = File::from(rustix::fs::memfd_create("program", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        assert_eq!(version_of(&file), None, "empty");
        file.write_all(&b"\x7fELF\x02\xff\xff\xff".repeat(40)).unwrap();
        assert_eq!(version_of(&file), None, "offsets that lead nowhere");
        assert_eq!(version_of(&File::open("/bin/true").unwrap()), None);
        assert_eq!(version_of(&File::open("/proc/self/status").unwrap()), None);
    }

    #[test]
    fn a_note_is_found_behind_others_and_lengths_lie_to_no_avail() {
        let note = |owner: &[u8], text: &[u8], kind: u32| {
            let lengths = [owner.len() as u32, text.len() as u32, kind].map(u32::to_ne_bytes).concat();
            [&lengths[..], &pad::<8>(owner), &pad::<8>(text)].concat()
        };
        let all = [note(b"GNU\0\0", b"build", 3), note(OWNER, b"other", 2), note(OWNER, b"1.2.3", KIND)].concat();
        assert_eq!(find(&all).as_deref(), Some("1.2.3"));
        for end in 0..all.len() - 3 {
            assert_eq!(find(&all[..end]), None);
        }
        let huge = [[0xff; 4], [0xff; 4], [1, 0, 0, 0]].concat();
        assert_eq!(find(&huge), None);
    }
}
