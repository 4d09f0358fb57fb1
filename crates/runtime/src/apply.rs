//! `nsrs apply`: shows kept changes, asks, and applies them to the real tree.

use std::io::{IsTerminal, Write, stderr, stdin, stdout};

use nsrs_base::error::{At, Code, Error, Result, notice, report};
use nsrs_base::options::{DISCARD, DRY_RUN, FORCE, KEEP, PRIVILEGED_FILES, YES};
use nsrs_base::text::escaped;
use nsrs_core::diff::apply::{Apply, Consent, list};
use nsrs_core::diff::changes_directory::ChangesDirectory;
use nsrs_core::diff::text::{json, lines, warnings};
use nsrs_core::diff::{Change, ChangesRecord, describe_hazards, raise_descriptor_limit};

use crate::print_error;

/// Exit code if something was not applied, or the answer was no.
const NOT_APPLIED: i32 = 1;

#[derive(Default)]
struct ApplyOptions {
    yes: bool,
    dry_run: bool,
    keep: bool,
    discard: bool,
    json: bool,
    consent: Consent,
}

impl ApplyOptions {
    fn parse(flags: &[&str]) -> Result<ApplyOptions> {
        let mut options = ApplyOptions::default();
        for flag in flags {
            match *flag {
                "yes" => options.yes = true,
                "dry-run" => options.dry_run = true,
                "keep" => options.keep = true,
                "discard" => options.discard = true,
                "json" => options.json = true,
                "force" => options.consent.force = true,
                "privileged-files" => options.consent.privileged = true,
                _ => return Err(Error::new(Code::InvalidArgument, "apply the changes", "unknown flag").on(*flag)),
            }
        }
        Ok(options)
    }
}

/// Applies the changes kept in a directory, and returns the exit code.
///
/// # Errors
/// There are no changes, or they can't be read. Changes that can't be applied are printed instead, each with its reason.
pub fn run(directory: &str, flags: &[&str]) -> Result<i32> {
    let options = ApplyOptions::parse(flags)?;
    raise_descriptor_limit();
    if options.discard {
        return discard_only(directory, flags);
    }
    let (kept, record) = ChangesDirectory::find(directory)?;
    let layers = kept.layers()?;
    let listing = list(&layers, &record)?;
    let changes = &listing.changes;
    show(changes, &options)?;
    if options.dry_run {
        return Ok(0);
    }
    if !changes.is_empty() && !options.yes && !ask(changes.len())? {
        return Ok(NOT_APPLIED);
    }
    let mut apply = Apply::new(&layers, &record)?.with_leftovers_of(&listing);
    // Without these a later apply would take for changed what this one gives or takes a name.
    let _ = kept.add_linked_files(&record, apply.add_linked_files(changes));
    let errors = apply.all(changes, options.consent);
    if errors.is_empty() && !options.keep {
        // What is removed after that is the only other copy.
        apply.sync()?;
        return discard(&kept, directory).map(|()| 0);
    }
    kept.drop_baseline(apply.applied())?;
    if errors.is_empty() {
        return Ok(0);
    }
    let done = changes.len().saturating_sub(errors.len());
    print_error(&report(&errors));
    let all = changes.len();
    print_error(&notice(&format!("{done} of {all} changes applied; the others stay in {directory}")));
    Ok(NOT_APPLIED)
}

/// `--discard`: removes the changes, and what an interrupted apply left in the real tree.
fn discard_only(directory: &str, flags: &[&str]) -> Result<i32> {
    if let Some(other) = flags.iter().find(|flag| **flag != "discard" && **flag != "yes") {
        let why = format!("can't be combined with {DISCARD}");
        return Err(Error::new(Code::InvalidArgument, "discard the changes", why).on(named(other)).about(DISCARD));
    }
    let kept = ChangesDirectory::find_any(directory)?;
    // Without a record nothing says where leftovers could be.
    let record = kept.record().ok().flatten();
    let errors = record.and_then(|record| remove_leftovers(&kept, &record).ok()).unwrap_or_default();
    print_error(&report(&errors));
    discard(&kept, directory)?;
    Ok(if errors.is_empty() { 0 } else { NOT_APPLIED })
}

/// The flag, as its user knows it.
fn named(flag: &str) -> String {
    match flag {
        "dry-run" => DRY_RUN.to_string(),
        "keep" => KEEP.to_string(),
        "force" => FORCE.to_string(),
        "privileged-files" => PRIVILEGED_FILES.to_string(),
        "json" => "--format json".to_owned(),
        other => other.to_owned(),
    }
}

/// Removes what an interrupted apply has left in the real tree.
fn remove_leftovers(kept: &ChangesDirectory, record: &ChangesRecord) -> Result<Vec<Error>> {
    let layers = kept.layers()?;
    let listing = list(&layers, record)?;
    Ok(Apply::new(&layers, record)?.with_leftovers_of(&listing).remove_leftovers())
}

fn discard(kept: &ChangesDirectory, directory: &str) -> Result<()> {
    let others = kept.discard()?;
    if !others.is_empty() {
        let directory = escaped(directory.as_bytes());
        print_error(&notice(&format!("keeping {directory}: it also contains {}", others.join(", "))));
    }
    Ok(())
}

fn show(changes: &[Change], options: &ApplyOptions) -> Result<()> {
    let list = if options.json { json(changes)? + "\n" } else { lines(changes) };
    stdout().write_all(list.as_bytes()).and_then(|()| stdout().flush()).at("write the list of changes", "")?;
    for change in changes.iter().filter(|change| !change.hazards.is_empty()) {
        let (path, why) = (escaped(&change.path), describe_hazards(&change.hazards));
        print_error(&notice(&format!("warning: {path} {why}")));
    }
    print_error(&warnings(changes));
    Ok(())
}

fn ask(count: usize) -> Result<bool> {
    let step = "ask whether to apply the changes";
    if !stdin().is_terminal() || !stderr().is_terminal() {
        return Err(Error::new(Code::InvalidArgument, step, "not a terminal")
            .hint(format!("{YES} applies them, {DRY_RUN} only shows them")));
    }
    print_error(&format!("Apply {count} {} to the real tree? [y/N] ", if count == 1 { "change" } else { "changes" }));
    let mut answer = String::new();
    stdin().read_line(&mut answer).at(step, "")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
