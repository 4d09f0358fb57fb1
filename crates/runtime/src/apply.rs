//! `nsrs apply`: shows kept changes, asks, and brings them into the real tree.

use std::io::{IsTerminal, Write, stderr, stdin, stdout};

use nsrs_base::error::{At, Code, Error, Result, report};
use nsrs_core::diff::apply::{Apply, Consent, list, reasons};
use nsrs_core::diff::keep::{Kept, forget_bases, note_known, read};
use nsrs_core::diff::{Change, Record, escaped, json, notes, raise_limit, text};

/// Something was not applied, or was not to be.
const NOT_ALL: i32 = 1;

/// What was asked for.
#[derive(Default)]
struct Wish {
    yes: bool,
    dry_run: bool,
    keep: bool,
    discard: bool,
    json: bool,
    consent: Consent,
}

fn wish(flags: &[&str]) -> Result<Wish> {
    let mut wish = Wish::default();
    for flag in flags {
        match *flag {
            "yes" => wish.yes = true,
            "dry-run" => wish.dry_run = true,
            "keep" => wish.keep = true,
            "discard" => wish.discard = true,
            "json" => wish.json = true,
            "force" => wish.consent.force = true,
            "privileged-files" => wish.consent.privileged = true,
            _ => return Err(Error::new(Code::InvalidArgument, "apply the changes", "there is no such flag").on(*flag)),
        }
    }
    Ok(wish)
}

/// Applies the changes kept in a directory, and returns the exit code.
///
/// # Errors
/// There are none, or they can't be read. What of them can't be applied is written out instead, each with its reason.
pub fn run(directory: &str, flags: &[&str]) -> Result<i32> {
    let wish = wish(flags)?;
    raise_limit();
    if wish.discard {
        if let Some(other) = flags.iter().find(|flag| **flag != "discard" && **flag != "yes") {
            return Err(Error::new(Code::InvalidArgument, "discard the changes", "nothing is applied, listed or kept")
                .on(format!("--discard with --{other}")));
        }
        let kept = Kept::find_any(directory)?;
        // Where there is no record any more there is nothing to go by.
        let record = read(&kept.directory, directory).ok().flatten();
        let errors = record.and_then(|record| clear(&kept, &record).ok()).unwrap_or_default();
        say(&report(&errors));
        discard(&kept, directory)?;
        return Ok(if errors.is_empty() { 0 } else { NOT_ALL });
    }
    let (kept, record) = Kept::find(directory)?;
    let layers = kept.layers()?;
    let listed = list(&layers, &record)?;
    let changes = &listed.changes;
    show(changes, &wish)?;
    if wish.dry_run {
        return Ok(0);
    }
    if !changes.is_empty() && !wish.yes && !ask(changes.len())? {
        return Ok(NOT_ALL);
    }
    let mut apply = Apply::new(&layers, &record)?.after(&listed);
    // Without the note a later apply could only take for changed what this one gave or took a name.
    let _ = note_known(&kept, &record, apply.remember(changes));
    let errors = apply.all(changes, wish.consent);
    if errors.is_empty() && !wish.keep {
        // What is removed after that is the only other copy.
        apply.sync()?;
        return discard(&kept, directory).map(|()| 0);
    }
    forget_bases(&kept, apply.brought())?;
    if errors.is_empty() {
        return Ok(0);
    }
    let done = changes.len().saturating_sub(errors.len());
    say(&report(&errors));
    say(&format!("nsrs: {done} of {} changes applied; the others stay in {directory}\n", changes.len()));
    Ok(NOT_ALL)
}

/// What people should know. That it can't be written is no reason to stop half-way.
fn say(text: &str) {
    let _ = stderr().write_all(text.as_bytes());
}

/// Removes what an apply that was ended has left in the real tree.
fn clear(kept: &Kept, record: &Record) -> Result<Vec<Error>> {
    let layers = kept.layers()?;
    let listed = list(&layers, record)?;
    Ok(Apply::new(&layers, record)?.after(&listed).clear())
}

fn discard(kept: &Kept, directory: &str) -> Result<()> {
    let others = kept.discard()?;
    if !others.is_empty() {
        let directory = escaped(directory.as_bytes());
        say(&format!("nsrs: {directory} stays: nsrs has not made what else is in it: {}\n", others.join(", ")));
    }
    Ok(())
}

fn show(changes: &[Change], wish: &Wish) -> Result<()> {
    let list = if wish.json { json(changes)? + "\n" } else { text(changes) };
    stdout().write_all(list.as_bytes()).and_then(|()| stdout().flush()).at("write the list of changes", "")?;
    for change in changes.iter().filter(|change| !change.hazards.is_empty()) {
        say(&format!("nsrs: warning: {} {}\n", escaped(&change.path), reasons(&change.hazards)));
    }
    say(&notes(changes));
    Ok(())
}

fn ask(count: usize) -> Result<bool> {
    if !stdin().is_terminal() || !stderr().is_terminal() {
        return Err(Error::new(Code::InvalidArgument, "ask whether to apply the changes", "there is no terminal")
            .hint("--yes applies them, --dry-run only shows them"));
    }
    let step = "ask whether to apply the changes";
    say(&format!("Apply {count} {} to the real tree? [y/N] ", if count == 1 { "change" } else { "changes" }));
    let mut answer = String::new();
    stdin().read_line(&mut answer).at(step, "")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
