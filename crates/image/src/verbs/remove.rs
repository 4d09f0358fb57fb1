//! `rmi` and `prune`: remove images.

use nsrs_base::calls::{PRUNE, REMOVE};
use nsrs_base::error::{Code, Error, Result};
use nsrs_base::options::FORCE;
use nsrs_store::content::{DamagedImage, IndexEntry, PruneWait, Pruned, Store};
use serde_json::json;

use super::Call;
use crate::args::Args;
use crate::caller_store::open_store;
use crate::output;

/// `rmi [--force] IMAGE…`: takes names away, and with the last name of an image the image. An id takes all names away, if
/// there is one only or with `--force`.
///
/// # Errors
/// There is no such image, or an id has several names: all others are gone.
pub fn rmi(mut call: Call) -> Result<()> {
    let force = call.args.flag("--force");
    let no_prune = call.args.flag("--no-prune");
    let store = open_store()?;
    let args = std::mem::replace(&mut call.args, Args::new(Vec::new()));
    let names = args.rest("the names of images", 1, usize::MAX)?;
    let mut gone: Vec<String> = Vec::new();
    let mut failed: Vec<Error> = names.iter().filter_map(|text| remove(&store, text, force, &mut gone).err()).collect();
    // Without waiting: what can't be removed now is removed by the next one.
    let pruned = if no_prune { Ok(None) } else { store.prune(PruneWait::No, false) };
    if call.json {
        output::json(&json!({ "untagged": gone, "pruned": pruned.as_ref().ok() }))?;
    } else {
        gone.iter().try_for_each(|name| output::line(&format!("untagged: {name}")))?;
    }
    let later = format!("the next {PRUNE} reclaims the space");
    match &pruned {
        Ok(None) if !no_prune => call.progress.warn(format!("the store is in use: {later}")),
        Ok(Some(pruned)) => warn_of_damaged(&call, &pruned.damaged, &later),
        _ => {}
    }
    failed.extend(pruned.err());
    super::all(&call.progress, failed)
}

/// Warns about images that can't be read, so that what they use is unknown.
fn warn_of_damaged(call: &Call, damaged: &[DamagedImage], what: &str) {
    for DamagedImage { name, error } in damaged {
        call.progress.warn(format!("{name} is damaged ({error}), so what it uses is unknown: {what}"));
    }
}

fn remove(store: &Store, text: &str, force: bool, gone: &mut Vec<String>) -> Result<()> {
    let named = store.find(text)?;
    let digest = named.digest()?;
    let by_name = named.name.as_deref().is_some_and(|name| {
        name == text || nsrs_store::reference::Reference::parse(text).is_ok_and(|text| text.to_string() == name)
    });
    if by_name && let Some(name) = &named.name {
        store.remove(name)?;
        gone.push(name.clone());
        return Ok(());
    }
    // An id is that of a configuration, which several manifests may have.
    let id_of = |named: &IndexEntry| store.image(named).ok().map(|image| image.id);
    let by_id = id_of(&named).filter(|id| id.hex().starts_with(text.strip_prefix("sha256:").unwrap_or(text)));
    let images: Vec<IndexEntry> = store
        .images()?
        .into_iter()
        .filter(|other| {
            other.digest().is_ok_and(|other| other == digest) || by_id.is_some_and(|id| id_of(other) == Some(id))
        })
        .collect();
    let names: Vec<&str> = images.iter().filter_map(|other| other.name.as_deref()).collect();
    if names.len() > 1 && !force {
        return Err(Error::new(
            Code::InvalidArgument,
            "remove the image",
            format!("{} names refer to it", names.len()),
        )
        .on(text)
        .hint(format!("give one of them ({}), or {FORCE} to remove all", names.join(", "))));
    }
    for image in &images {
        store.remove_digest(&image.digest()?)?;
    }
    match names.is_empty() {
        true => gone.push(digest.to_string()),
        false => gone.extend(names.into_iter().map(str::to_owned)),
    }
    Ok(())
}

/// `prune [--all]`: removes images without a name, and what no image needs; with `--all` every image that no container
/// uses.
///
/// # Errors
/// A file can't be read or removed.
pub fn prune(mut call: Call) -> Result<()> {
    let all = call.args.flag("--all");
    let store = open_store()?;
    std::mem::replace(&mut call.args, Args::new(Vec::new())).rest("no names", 0, 0)?;
    for image in store.images()? {
        // What is listed by a digest of another algorithm is somebody else's.
        let Ok(digest) = image.digest() else { continue };
        if image.name.is_none() || all && !in_use(&store, &image)? {
            store.remove_digest(&digest)?;
        }
    }
    let pruned = store.prune(PruneWait::Yes, true)?.unwrap_or_default();
    let what = format!("removed what no other image uses; pull it again, or remove it ({REMOVE})");
    warn_of_damaged(&call, &pruned.damaged, &what);
    if call.json {
        return output::json(&json!(pruned));
    }
    let Pruned { blobs, layers, in_use, bytes, .. } = pruned;
    output::line(&format!("removed {blobs} blobs and {layers} unpacked layers: {}", output::size(bytes)))?;
    if in_use > 0 {
        output::line(&format!("kept {in_use} layers that are in use"))?;
    }
    Ok(())
}

/// Whether a container holds the image's topmost layer.
fn in_use(store: &Store, named: &IndexEntry) -> Result<bool> {
    let Ok(image) = store.image(named) else { return Ok(false) };
    match image.config.diff_ids.last() {
        Some(top) => store.is_held(top),
        None => Ok(false),
    }
}
