//! What can be done with images, one verb a file.

mod archive;
mod list;
mod remote;
mod remove;

use nsrs_base::error::{Code, Error, Result};
use nsrs_store::content::Store;
use nsrs_store::open::Image;
use nsrs_store::platform::Platform;
use nsrs_store::reference::Reference;
use nsrs_store::unpack;

use crate::args::Args;
use crate::identity::{open_store, unpacking};
use crate::progress::Progress;

/// What every verb gets.
pub struct Call {
    /// Its arguments.
    pub args: Args,
    /// Where it tells what happens.
    pub progress: Progress,
    /// The result is written as JSON.
    pub json: bool,
}

/// Carries out a verb.
///
/// # Errors
/// Those of the verb; there is no such verb.
pub fn run(verb: &str, call: Call) -> Result<()> {
    match verb {
        "export" => archive::export(call),
        "history" => list::history(call),
        "images" => list::images(call),
        "import" => archive::import(call),
        "inspect" => list::inspect(call),
        "load" => archive::load(call),
        "login" => remote::login(call),
        "logout" => remote::logout(call),
        "prepare" => archive::prepare(call),
        "prune" => remove::prune(call),
        "pull" => remote::pull(call),
        "push" => remote::push(call),
        "rmi" => remove::rmi(call),
        "save" => archive::save(call),
        "settle" => open_store()?.settle(),
        "tag" => list::tag(call),
        _ => Err(Error::new(Code::InvalidArgument, "start nsrs-image", "there is no such verb").on(verb)),
    }
}

/// Does this verb write, read or remove unpacked layers? An ordinary user does that in a user namespace.
#[must_use]
pub fn touches_trees(verb: &str) -> bool {
    matches!(verb, "export" | "import" | "load" | "prepare" | "prune" | "pull" | "rmi")
}

/// Does this verb bring unpacked layers, which have to reach the disk some day?
#[must_use]
pub fn brings_trees(verb: &str) -> bool {
    matches!(verb, "export" | "import" | "load" | "prepare" | "pull")
}

/// Says what of an image's layers couldn't be had here: owners, devices, attributes.
fn warn_of_losses(store: &Store, image: &Image, progress: &Progress) -> Result<()> {
    let (mut squashed, mut devices, mut xattrs) = (0, 0, 0);
    for diff_id in &image.config.diff_ids {
        if let Some(layer) = store.layer(diff_id)? {
            squashed += layer.record.unpacked.squashed;
            devices += layer.record.unpacked.skipped_devices;
            xattrs += layer.record.unpacked.dropped_xattrs;
        }
    }
    let losses = [
        (
            squashed,
            ("file belongs to you, for its owner isn't", "files belong to you, for their owners aren't"),
            " among your subordinate ids (/etc/subuid)",
        ),
        (devices, ("device is", "devices are"), " left out: only root makes them"),
        (
            xattrs,
            ("extended attribute is", "extended attributes are"),
            " left out: what can't be had here, or is overlayfs' own",
        ),
    ];
    for (count, (one, many), what) in losses.into_iter().filter(|(count, ..)| *count > 0) {
        progress.warn(format!("{count} {}{what}", if count == 1 { one } else { many }));
    }
    Ok(())
}

/// What became of a verb that goes on behind a failure: all but the last are told here.
fn all(progress: &Progress, mut failures: Vec<Error>) -> Result<()> {
    let last = failures.pop();
    failures.iter().for_each(|failure| progress.fail(std::slice::from_ref(failure)));
    last.map_or(Ok(()), Err)
}

/// `--max-ratio N`: how many times its packed size a layer may unpack to.
fn limits(call: &mut Call) -> Result<unpack::Options> {
    let mut options = unpacking()?;
    if let Some(text) = call.args.value("--max-ratio")? {
        let ratio = text.parse().ok().filter(|ratio| *ratio > 0);
        options.limits.ratio = ratio.ok_or_else(|| Error::invalid("--max-ratio", text, "give a number"))?;
    }
    Ok(options)
}

/// `--platform OS/ARCH[/VARIANT]`.
fn platform(args: &mut Args) -> Result<Option<Platform>> {
    args.value("--platform")?.map(|text| Platform::parse(&text)).transpose()
}

/// A name for an image: a digest says what an image is and can't be given.
fn new_name(text: &str) -> Result<Reference> {
    let reference = Reference::parse(text)?;
    match reference.digest() {
        None => Ok(reference),
        Some(_) => Err(Error::invalid("image reference", text, "a digest is no name that can be given")),
    }
}
