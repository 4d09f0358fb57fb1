//! `changes.json`, the record of kept changes: read, written beside the valid one, and put in its place.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;

use nsrs_base::error::{At, Code, Error, Result};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, openat, renameat, unlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::record::{ChangesRecord, FORMAT};

pub(super) const RECORD: &str = "changes.json";
/// The next record while it is written.
pub(super) const DRAFT: &str = "changes.json.new";
/// The largest record that is read, in bytes.
const MAX_SIZE: u64 = 64 << 20;

/// Reads the record in a directory of kept changes; `None`: there isn't one yet.
///
/// # Errors
/// The record can't be read, or another version of nsrs wrote it.
pub fn read_record(directory: impl AsFd, path: &str) -> Result<Option<ChangesRecord>> {
    let step = "read the kept changes";
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match openat(directory, RECORD, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        other => File::from(other.at(step, path)?),
    };
    refuse_foreign(&file, &format!("{path}/{RECORD}"))?;
    let mut text = String::new();
    file.take(MAX_SIZE).read_to_string(&mut text).at(step, path)?;
    let record: ChangesRecord = serde_json::from_str(&text)
        .map_err(|error| Error::new(Code::InvalidArgument, step, error.to_string()).on(format!("{path}/{RECORD}")))?;
    if record.format != FORMAT {
        let why = format!("unknown format {} (this nsrs knows {FORMAT})", record.format);
        return Err(Error::new(Code::Unsupported, step, why).on(path));
    }
    Ok(Some(record))
}

/// Refuses what another user could have written: the record says which directories changes are applied to.
///
/// # Errors
/// Another user owns it, may write to it, or may have a name of it.
pub(super) fn refuse_foreign(file: impl AsFd, subject: &str) -> Result<()> {
    let stat = fstat(file).at("look at the kept changes", subject)?;
    let caller = geteuid();
    let refuse = |why: &str, hint: String| {
        Err(Error::new(Code::InvalidArgument, "use the kept changes", why).on(subject).hint(hint))
    };
    if stat.st_uid != caller.as_raw() && stat.st_uid != 0 {
        let why = format!("owned by user {}, who could make them apply to any directory", stat.st_uid);
        let hint = format!("check changes.json in it, then chown {} both", caller.as_raw());
        return refuse(&why, hint);
    }
    if stat.st_mode & 0o022 != 0 {
        return refuse("writable by other users", format!("chmod go-w {subject}"));
    }
    if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_nlink > 1 {
        return refuse("it has other names, by which it could be written", "choose another directory".into());
    }
    Ok(())
}

/// Opens a new draft of the record. It becomes the record by [`commit_draft`].
///
/// # Errors
/// Those of unlinkat(2) and openat(2).
pub fn create_draft(directory: impl AsFd) -> rustix::io::Result<File> {
    match unlinkat(&directory, DRAFT, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(&directory, DRAFT, flags, Mode::RUSR | Mode::WUSR).map(File::from)
}

/// Writes a record into a draft, and to disk (fsync(2)).
///
/// # Errors
/// The draft can't be written; the record is larger than what [`read_record`] takes.
pub fn write_draft(mut draft: &File, path: &str, record: &ChangesRecord) -> Result<()> {
    let step = "record the kept changes";
    let text = serde_json::to_string(record).map_err(|error| Error::new(Code::SetupFailed, step, error.to_string()))?;
    if text.len() as u64 > MAX_SIZE {
        return Err(Error::new(Code::Unsupported, step, "too many mounts and directories").on(path));
    }
    draft.write_all(text.as_bytes()).at(step, path)?;
    draft.sync_all().at(step, path)
}

/// Replaces the record by the draft.
///
/// # Errors
/// Those of renameat(2).
pub fn commit_draft(directory: impl AsFd, path: &str) -> Result<()> {
    renameat(&directory, DRAFT, &directory, RECORD).at("record the kept changes", path)
}
