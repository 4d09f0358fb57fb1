//! The bytes of a journal.
//!
//! A journal is a sequence of records, each in a frame that stays the same in every version. Numbers are little-endian:
//!
//! | bytes | field                                                                   |
//! | ----- | ----------------------------------------------------------------------- |
//! | 1     | version: how kind and payload are to be read                            |
//! | 1     | kind                                                                    |
//! | 2     | length of the payload                                                   |
//! | 4     | CRC-32 of version, kind, length and payload                             |
//! | n     | payload                                                                 |
//!
//! The first record says which boot the journal is of. An entry has a number that is used once in a journal; the record of its
//! end has the same number.
//!
//! | kind | record    | payload                                                                       |
//! | ---- | --------- | ----------------------------------------------------------------------------- |
//! | 0    | boot      | the boot id as text                                                           |
//! | 1    | end       | number (4)                                                                    |
//! | 2    | process   | number (4), PID (4), moment in ns since boot (8), 0 to kill it and 1 to ask it |
//! | 3    | link      | number (4), network namespace (8), name                                       |
//! | 4    | cgroup    | number (4), path                                                              |
//! | 5    | directory | number (4), inode (8), path                                                   |
//! | 6    | table     | number (4), network namespace (8), name                                       |
//!
//! A record whose checksum is wrong and one that is cut short are skipped: reading goes on at the next byte at which a whole
//! record begins. So an entry whose end was lost is taken for open; that is safe because every kind of entry names
//! its thing in a way that fits no later one. A whole record of another version or of an unknown kind is an error.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::crc::crc32;
use super::{JournalEntry, NetworkObject, Termination};

const VERSION: u8 = 1;
const FRAME: usize = 8;

const BOOT: u8 = 0;
const END: u8 = 1;
const PROCESS: u8 = 2;
const LINK: u8 = 3;
const CGROUP: u8 = 4;
const DIRECTORY: u8 = 5;
const TABLE: u8 = 6;

/// What is left when all records of a journal have been read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct JournalContents {
    /// The boot it is of; `None` where that record is lost.
    pub boot: Option<String>,
    /// What has not ended, by number.
    pub open: BTreeMap<u32, JournalEntry>,
}

/// A record of a newer nsrs.
#[derive(Debug, PartialEq, Eq)]
pub struct Newer {
    pub version: u8,
    pub kind: u8,
}

/// The first record of a journal.
pub fn boot(id: &str) -> Vec<u8> {
    frame(VERSION, BOOT, &[id.as_bytes()])
}

/// The record of the end of an entry.
pub fn end(number: u32) -> Vec<u8> {
    frame(VERSION, END, &[&number.to_le_bytes()])
}

/// The record of an entry.
pub fn entry(number: u32, entry: &JournalEntry) -> Vec<u8> {
    let number = number.to_le_bytes();
    match entry {
        JournalEntry::Process { pid, noted_ns, termination } => {
            let how = [u8::from(*termination == Termination::Ask)];
            frame(VERSION, PROCESS, &[&number, &pid.to_le_bytes(), &noted_ns.to_le_bytes(), &how])
        }
        JournalEntry::Network { netns, object } => {
            let (kind, name) = match object {
                NetworkObject::Link(name) => (LINK, name),
                NetworkObject::Table(name) => (TABLE, name),
            };
            frame(VERSION, kind, &[&number, &netns.to_le_bytes(), name.as_bytes()])
        }
        JournalEntry::Cgroup { path } => frame(VERSION, CGROUP, &[&number, path.as_os_str().as_bytes()]),
        JournalEntry::Directory { path, inode } => {
            frame(VERSION, DIRECTORY, &[&number, &inode.to_le_bytes(), path.as_os_str().as_bytes()])
        }
    }
}

/// A payload is a few numbers and a path that the kernel took, so it is shorter than 64 KiB.
fn frame(version: u8, kind: u8, payload: &[&[u8]]) -> Vec<u8> {
    let payload = payload.concat();
    let length = u16::try_from(payload.len()).expect("a path is shorter than PATH_MAX").to_le_bytes();
    let head = [version, kind, length[0], length[1]];
    [&head, &crc32(&[&head, &payload]).to_le_bytes()[..], &payload].concat()
}

/// Reads a journal.
///
/// # Errors
/// It has a record of a newer nsrs.
pub fn read(mut bytes: &[u8]) -> Result<JournalContents, Newer> {
    let mut contents = JournalContents::default();
    while !bytes.is_empty() {
        let Some((version, kind, payload)) = whole(bytes) else {
            bytes = &bytes[1..];
            continue;
        };
        let newer = Newer { version, kind };
        match (version, kind) {
            (VERSION, BOOT) => contents.boot = String::from_utf8(payload.to_vec()).ok(),
            (VERSION, END) => {
                let number = take(&mut &*payload).map(u32::from_le_bytes).ok_or(newer)?;
                contents.open.remove(&number);
            }
            (VERSION, _) => {
                let (number, entry) = decode(kind, payload).ok_or(newer)?;
                contents.open.insert(number, entry);
            }
            _ => return Err(newer),
        }
        bytes = &bytes[FRAME + payload.len()..];
    }
    Ok(contents)
}

/// Version, kind and payload of the record that begins here, if one does and it is whole.
fn whole(bytes: &[u8]) -> Option<(u8, u8, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let payload = rest.get(..usize::from(u16::from_le_bytes([head[2], head[3]])))?;
    (crc32(&[head, payload]) == u32::from_le_bytes(*crc)).then_some((head[0], head[1], payload))
}

/// `None` for what this version does not know.
fn decode(kind: u8, mut payload: &[u8]) -> Option<(u32, JournalEntry)> {
    let number = u32::from_le_bytes(take(&mut payload)?);
    let path = |bytes: &[u8]| PathBuf::from(OsString::from_vec(bytes.to_vec()));
    let mut network = |object: fn(String) -> NetworkObject| {
        let netns = u64::from_le_bytes(take(&mut payload)?);
        Some(JournalEntry::Network { netns, object: object(String::from_utf8(payload.to_vec()).ok()?) })
    };
    let entry = match kind {
        PROCESS => JournalEntry::Process {
            pid: i32::from_le_bytes(take(&mut payload)?),
            noted_ns: u64::from_le_bytes(take(&mut payload)?),
            termination: match payload {
                [0] => Termination::Kill,
                [1] => Termination::Ask,
                _ => return None,
            },
        },
        LINK => network(NetworkObject::Link)?,
        TABLE => network(NetworkObject::Table)?,
        CGROUP => JournalEntry::Cgroup { path: path(payload) },
        DIRECTORY => {
            let inode = u64::from_le_bytes(take(&mut payload)?);
            JournalEntry::Directory { path: path(payload), inode }
        }
        _ => return None,
    };
    Some((number, entry))
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_of_each() -> Vec<JournalEntry> {
        let path: PathBuf = OsString::from_vec(b"/a\n\xff".to_vec()).into();
        vec![
            JournalEntry::Process { pid: 7, noted_ns: 1 << 40, termination: Termination::Ask },
            JournalEntry::Network { netns: 4_026_531_840, object: NetworkObject::Link("mv1".into()) },
            JournalEntry::Network { netns: 4_026_531_840, object: NetworkObject::Table("nsrs-7".into()) },
            JournalEntry::Cgroup { path: path.clone() },
            JournalEntry::Directory { path, inode: u64::MAX },
        ]
    }

    fn journal() -> Vec<u8> {
        let entries = (0..).zip(one_of_each()).flat_map(|(number, each)| entry(number, &each));
        boot("b").into_iter().chain(entries).collect()
    }

    fn open(bytes: &[u8]) -> Vec<u32> {
        read(bytes).unwrap().open.into_keys().collect()
    }

    #[test]
    fn every_kind_is_read_as_it_was_written() {
        let contents = read(&journal()).unwrap();
        assert_eq!(contents.boot.as_deref(), Some("b"));
        assert_eq!(contents.open.into_values().collect::<Vec<_>>(), one_of_each());
    }

    #[test]
    fn what_has_ended_is_not_open() {
        let bytes = [journal(), end(1), end(3), end(99)].concat();
        assert_eq!(open(&bytes), [0, 2, 4]);
    }

    #[test]
    fn a_journal_that_was_cut_short_anywhere_keeps_what_is_whole() {
        let bytes = journal();
        let mut ends = vec![boot("b").len()];
        for (number, each) in (0..).zip(one_of_each()) {
            ends.push(ends[number as usize] + entry(number, &each).len());
        }
        for length in 0..=bytes.len() {
            let contents = read(&bytes[..length]).unwrap();
            let whole = ends.iter().filter(|end| **end <= length).count();
            assert_eq!(contents.open.len(), whole.saturating_sub(1), "at {length}");
            assert_eq!(contents.boot.is_some(), whole > 0, "at {length}");
        }
    }

    #[test]
    fn a_damaged_byte_anywhere_costs_its_record_alone() {
        let bytes = [journal(), end(4)].concat();
        let mut at = 0;
        for damaged in 0..=6 {
            let length = FRAME + usize::from(u16::from_le_bytes([bytes[at + 2], bytes[at + 3]]));
            for place in at..at + length {
                let mut bytes = bytes.clone();
                bytes[place] ^= 0x55;
                let contents = read(&bytes).unwrap();
                let expected: Vec<u32> = match damaged {
                    0 => vec![0, 1, 2, 3],
                    6 => vec![0, 1, 2, 3, 4],
                    entry => (0..4).filter(|number| *number != entry - 1).collect(),
                };
                assert_eq!(contents.open.into_keys().collect::<Vec<_>>(), expected, "byte {place}");
                assert_eq!(contents.boot.is_none(), damaged == 0, "byte {place}");
            }
            at += length;
        }
        assert_eq!(at, bytes.len());
    }

    #[test]
    fn bytes_that_were_never_written_say_nothing() {
        assert_eq!(read(&[0; 4096]).unwrap(), JournalContents::default());
        // A list of processes, as text.
        assert_eq!(read(format!("{:<39}\n", "1234 567890").as_bytes()).unwrap(), JournalContents::default());
    }

    #[test]
    fn a_record_of_a_newer_nsrs_is_an_error() {
        let newer = |version, kind, payload: &[u8]| {
            let bytes = [journal(), frame(version, kind, &[payload]), end(0)].concat();
            assert_eq!(read(&bytes), Err(Newer { version, kind }));
        };
        newer(2, PROCESS, &[0; 17]);
        newer(VERSION, 7, &[0; 8]);
        newer(VERSION, PROCESS, &[2; 17]);
        newer(VERSION, END, &[]);
    }
}
