//! The verbs of nsrs-image, one function each: they read their arguments and call the store or a registry.

mod archive;
mod list;
mod remote;
mod remove;

use nsrs_base::error::{Code, Error, Result};
use nsrs_base::options::MAX_RATIO;
use nsrs_store::content::Store;
use nsrs_store::platform::Platform;
use nsrs_store::reference::Reference;
use nsrs_store::stored_image::StoredImage;
use nsrs_store::unpack;

use crate::args::Args;
use crate::caller_store::{open_store, unpack_options};
use crate::progress::Progress;

/// The call of a verb.
pub struct Call {
    /// The arguments of the verb.
    pub args: Args,
    /// Where progress and warnings are reported.
    pub progress: Progress,
    /// Write the result as JSON.
    pub json: bool,
}

/// Runs a verb.
///
/// # Errors
/// Those of the verb; the verb is unknown.
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
        _ => Err(Error::new(Code::InvalidArgument, "start nsrs-image", "unknown verb").on(verb)),
    }
}

/// Whether the verb writes, reads or removes unpacked layers, which an ordinary user does in a user namespace.
#[must_use]
pub fn uses_layers(verb: &str) -> bool {
    matches!(verb, "export" | "import" | "load" | "prepare" | "prune" | "pull" | "rmi")
}

/// Whether the verb adds unpacked layers, which still have to be written to disk.
#[must_use]
pub fn adds_layers(verb: &str) -> bool {
    matches!(verb, "export" | "import" | "load" | "prepare" | "pull")
}

/// Warns about what of an image's layers couldn't be unpacked: owners, devices, attributes.
fn warn_of_losses(store: &Store, image: &StoredImage, progress: &Progress) -> Result<()> {
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
            ("file belongs to you: its owner isn't", "files belong to you: their owners aren't"),
            " among your subordinate ids (/etc/subuid)",
        ),
        (devices, ("device is", "devices are"), " left out: only root can create devices"),
        (
            xattrs,
            ("extended attribute is", "extended attributes are"),
            " left out: not supported here, or reserved for overlayfs",
        ),
    ];
    for (count, (one, many), what) in losses.into_iter().filter(|(count, ..)| *count > 0) {
        progress.warn(format!("{count} {}{what}", if count == 1 { one } else { many }));
    }
    Ok(())
}

/// The result of a verb that continues after a failure. Reports all failures but the last, which is returned.
fn all(progress: &Progress, mut failures: Vec<Error>) -> Result<()> {
    let last = failures.pop();
    failures.iter().for_each(|failure| progress.fail(std::slice::from_ref(failure)));
    last.map_or(Ok(()), Err)
}

/// `--max-ratio N`: how many times its packed size a layer may unpack to.
fn limits(call: &mut Call) -> Result<unpack::UnpackOptions> {
    let mut options = unpack_options()?;
    if let Some(text) = call.args.value("--max-ratio")? {
        let ratio = text.parse().ok().filter(|ratio| *ratio > 0);
        options.limits.ratio = ratio.ok_or_else(|| Error::invalid(MAX_RATIO, text, "give a number"))?;
    }
    Ok(options)
}

/// The value of `--platform OS/ARCH[/VARIANT]`.
fn platform(args: &mut Args) -> Result<Option<Platform>> {
    args.value("--platform")?.map(|text| Platform::parse(&text)).transpose()
}

/// A name for an image: a digest says what an image is and can't be given.
fn new_name(text: &str) -> Result<Reference> {
    let reference = Reference::parse(text)?;
    match reference.digest() {
        None => Ok(reference),
        Some(_) => Err(Error::invalid_value("image reference", text, "give a tag: a digest can't be a name")),
    }
}
