//! The mount table of a process: /proc/PID/mountinfo (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::error::{At, Code, Error, Result, show};

const STEP: &str = "read the mount table";
/// Room for most tables: the kernel puts the text together anew with each read(2).
const USUAL: usize = 8192;

/// One line of mountinfo (proc_pid_mountinfo(5)), as far as anybody asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// Where it is mounted, from the root of the process.
    pub point: PathBuf,
    /// The options of the mount, not of its file system: `ro`, `nosuid`, `relatime`.
    pub options: Vec<u8>,
    /// The type of the file system: `ext4`, `fuse.sshfs`.
    pub file_system: Vec<u8>,
}

impl MountEntry {
    /// Reads a line of the table; `None` for one that is not of its form.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<MountEntry> {
        // ID parent major:minor root point options [optional fields] - type source super-options
        let mut fields = line.split(|byte| *byte == b' ');
        let (point, options) = (fields.nth(4)?, fields.next()?);
        let file_system = fields.skip_while(|field| *field != b"-").nth(1)?;
        let point = PathBuf::from(OsString::from_vec(unescape(point)));
        let is_sound = point.is_absolute() && !file_system.is_empty();
        is_sound.then(|| MountEntry { point, options: options.to_vec(), file_system: unescape(file_system) })
    }

    /// Whether the mount has this option.
    #[must_use]
    pub fn has(&self, option: &str) -> bool {
        self.options.split(|byte| *byte == b',').any(|given| given == option.as_bytes())
    }
}

/// The text of the mount table of a process by its name in /proc: a number, or `self`.
///
/// # Errors
/// There is no such process, or no /proc.
pub fn read(process: &str) -> Result<Vec<u8>> {
    let path = format!("/proc/{process}/mountinfo");
    read_from(File::open(&path).at(STEP, &path)?)
}

/// The text of a mount table that is open.
///
/// # Errors
/// The process has ended.
pub fn read_from(mut file: File) -> Result<Vec<u8>> {
    let mut table = Vec::with_capacity(USUAL);
    file.read_to_end(&mut table).at(STEP, "")?;
    Ok(table)
}

/// The lines of a mount table, in the order in which the mounts were made.
pub fn lines(table: &[u8]) -> impl Iterator<Item = &[u8]> {
    table.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

/// All mounts of a table, in the order in which they were made.
///
/// # Errors
/// A line is not of the form that the manual page describes.
pub fn parse(table: &[u8]) -> Result<Vec<MountEntry>> {
    let mount = |line: &[u8]| {
        MountEntry::parse(line)
            .ok_or_else(|| Error::new(Code::SetupFailed, STEP, "a line is not as expected").on(show(line)))
    };
    lines(table).map(mount).collect()
}

/// The kernel writes space, tab, line feed, backslash and `#` as a backslash with three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    fn points(table: &[u8]) -> Vec<Vec<u8>> {
        parse(table).unwrap().iter().map(|mount| mount.point.as_os_str().as_bytes().to_vec()).collect()
    }

    #[test]
    fn fields_are_found_behind_any_number_of_optional_ones() {
        let table = b"\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
28 27 0:25 / /mnt ro,nosuid shared:2 master:3 propagate_from:1 unbindable - fuse.x-y - ro,a=-
";
        let mounts = parse(table).unwrap();
        assert_eq!(mounts[0].file_system, b"ext4");
        assert_eq!(mounts[1].file_system, b"fuse.x-y");
        assert!(mounts[1].has("nosuid") && mounts[1].has("ro") && !mounts[1].has("rw") && !mounts[1].has("no"));
    }

    #[test]
    fn points_are_the_bytes_they_are() {
        let line = |point: &[u8]| [b"1 2 0:3 / ", point, b" rw - tmpfs none rw\n"].concat();
        assert_eq!(points(&line(br"/a\040b\011\012\134\043")), [b"/a b\t\n\\#"]);
        assert_eq!(points(&line(b"/\xff\xfe")), [b"/\xff\xfe"]);
        // No octal number of one byte: left as it is.
        assert_eq!(points(&line(br"/\+12\400\08\04")), [br"/\+12\400\08\04"]);
    }

    #[test]
    fn a_line_of_another_form_is_an_error() {
        for line in ["1 2 0:3 / /a rw", "1 2 0:3 / a rw - tmpfs none rw", "1 2 0:3 / /a rw - ", "x"] {
            assert_eq!(parse(line.as_bytes()).unwrap_err().step, STEP, "{line}");
        }
        assert_eq!(parse(b"").unwrap(), []);
    }

    #[test]
    fn this_process_has_a_root() {
        assert!(points(&read("self").unwrap()).contains(&b"/".to_vec()));
        assert_eq!(read("0").unwrap_err().errno, Some(libc::ENOENT));
    }
}
