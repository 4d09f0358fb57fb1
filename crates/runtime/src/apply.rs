//! `nsrs apply`: shows kept changes, asks, and brings them into the real tree.

use std::io::{IsTerminal, Write, stderr, stdin, stdout};

use nsrs_core::changes::apply::{Apply, Consent, list, reasons};
use nsrs_core::changes::keep::{Kept, note_known};
use nsrs_core::changes::{Change, escaped, json, notes, raise_limit, text};
use nsrs_core::error::{At, Code, Error, Result, report};

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
        return discard(&Kept::find_any(directory)?, directory).map(|()| 0);
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
    if !errors.is_empty() {
        eprint!("{}", report(&errors));
        let done = changes.len().saturating_sub(errors.len());
        eprintln!("nsrs: {done} of {} changes applied; the others stay in {directory}", changes.len());
        return Ok(NOT_ALL);
    }
    if !wish.keep {
        discard(&kept, directory)?;
    }
    Ok(0)
}

fn discard(kept: &Kept, directory: &str) -> Result<()> {
    let others = kept.discard()?;
    if !others.is_empty() {
        let directory = escaped(directory.as_bytes());
        eprintln!("nsrs: {directory} stays: nsrs has not made what else is in it: {}", others.join(", "));
    }
    Ok(())
}

fn show(changes: &[Change], wish: &Wish) -> Result<()> {
    let list = if wish.json { json(changes)? + "\n" } else { text(changes) };
    stdout().write_all(list.as_bytes()).and_then(|()| stdout().flush()).at("write the list of changes", "")?;
    for change in changes.iter().filter(|change| !change.hazards.is_empty()) {
        eprintln!("nsrs: warning: {} {}", escaped(&change.path), reasons(&change.hazards));
    }
    eprint!("{}", notes(changes));
    Ok(())
}

fn ask(count: usize) -> Result<bool> {
    if !stdin().is_terminal() || !stderr().is_terminal() {
        return Err(Error::new(Code::InvalidArgument, "ask whether to apply the changes", "there is no terminal")
            .hint("--yes applies them, --dry-run only shows them"));
    }
    let step = "ask whether to apply the changes";
    eprint!("Apply {count} {} to the real tree? [y/N] ", if count == 1 { "change" } else { "changes" });
    let mut answer = String::new();
    stdin().read_line(&mut answer).at(step, "")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
