//! `images`, `tag`, `inspect` and `history`: what is there.

use nsrs_base::error::Result;
use nsrs_store::content::{INDEX_DIGEST, IndexEntry, Store};
use nsrs_store::digest::Digest;
use nsrs_store::reference::Reference;
use nsrs_store::stored_image::StoredImage;
use nsrs_store::time;
use serde_json::{Value, json};

use super::Call;
use crate::caller_store::open_store;
use crate::output;
use crate::pull::PLATFORM;

/// `images [--digests] [--no-trunc] [NAME]`: images by name, the last one first.
///
/// # Errors
/// The index can't be read. An image of which a part is missing is listed and says so.
pub fn images(mut call: Call) -> Result<()> {
    let digests = call.args.flag("--digests");
    let whole = call.args.flag("--no-trunc");
    let store = open_store()?;
    let wanted = call.args.rest("at most one name", 0, 1)?;
    let mut listed: Vec<(i64, Value, Vec<String>)> = Vec::new();
    for named in store.images()? {
        if !wanted.first().is_none_or(|wanted| matches(&named, wanted)) {
            continue;
        }
        listed.push(match store.image(&named) {
            Ok(image) => row(&image, whole),
            Err(error) => broken(&named, &error.to_string()),
        });
    }
    listed.sort_by_key(|(created, ..)| std::cmp::Reverse(*created));
    if call.json {
        return output::json(&listed.into_iter().map(|(_, value, _)| value).collect());
    }
    if call.progress.mode() == crate::progress::Mode::Quiet {
        return listed
            .iter()
            .filter(|(_, value, _)| value["id"].is_string())
            .try_for_each(|(.., row)| output::line(&row[2]));
    }
    let mut titles = vec!["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"];
    if digests {
        titles.insert(2, "DIGEST");
    }
    let rows: Vec<Vec<String>> = listed
        .into_iter()
        .map(|(_, value, mut row)| {
            if digests {
                row.insert(2, value["digest"].as_str().unwrap_or_default().to_owned());
            }
            row
        })
        .collect();
    output::table(&titles, &rows)
}

/// A name without a tag means all tags of the repository.
fn matches(named: &IndexEntry, wanted: &str) -> bool {
    let Some(name) = named.name.as_deref().and_then(|name| Reference::parse(name).ok()) else { return false };
    let Ok(reference) = Reference::parse(wanted) else { return named.name.as_deref() == Some(wanted) };
    let tagged = wanted.rsplit('/').next().is_some_and(|last| last.contains([':', '@']));
    if tagged { name == reference } else { name.name() == reference.name() }
}

fn name_parts(name: Option<&str>) -> (String, String) {
    let Some(name) = name else { return ("<none>".into(), "<none>".into()) };
    let familiar = Reference::parse(name).map_or_else(|_| name.to_owned(), |name| name.familiar());
    if let Some((repository, _)) = familiar.split_once('@') {
        return (repository.to_owned(), "<none>".into());
    }
    match familiar.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository.to_owned(), tag.to_owned()),
        _ => (familiar, "<none>".into()),
    }
}

fn created(image: &StoredImage) -> Option<i64> {
    image.config.spec.created().as_deref().and_then(time::parse)
}

fn row(image: &StoredImage, whole: bool) -> (i64, Value, Vec<String>) {
    let created = created(image);
    let (repository, tag) = name_parts(image.name.as_deref());
    let value = json!({
        "name": image.name,
        "repository": repository,
        "tag": tag,
        "id": image.id.to_string(),
        "digest": image.digest.to_string(),
        "created": image.config.spec.created(),
        "size": image.size(),
        "layers": image.config.diff_ids.len(),
        "platform": image.config.platform().to_string(),
    });
    let ago = created.map_or_else(|| "unknown".to_owned(), output::ago);
    let id = if whole { image.id.to_string() } else { image.id.short() };
    let cells = vec![repository, tag, id, ago, output::size(image.size())];
    (created.unwrap_or(i64::MIN), value, cells)
}

fn broken(named: &IndexEntry, why: &str) -> (i64, Value, Vec<String>) {
    let (repository, tag) = name_parts(named.name.as_deref());
    let digest = named.descriptor.digest().to_string();
    let value = json!({ "name": named.name, "repository": repository, "tag": tag, "digest": digest, "error": why });
    (i64::MIN, value, vec![repository, tag, "damaged".into(), why.to_owned(), "?".into()])
}

/// `tag IMAGE NAME…`: further names for an image.
///
/// # Errors
/// There is no such image; a name is invalid.
pub fn tag(call: Call) -> Result<()> {
    let store = open_store()?;
    let names = call.args.rest("an image and its new name", 2, usize::MAX)?;
    let references: Vec<Reference> = names[1..].iter().map(|name| super::new_name(name)).collect::<Result<_>>()?;
    let _guard = store.guard()?;
    let image = store.find(&names[0])?;
    // What a registry has under the name of a pull it hasn't under this one.
    let mut descriptor = image.descriptor.clone();
    let notes = descriptor.annotations().clone().map(|mut notes| {
        notes.retain(|note, _| note != INDEX_DIGEST && note != PLATFORM);
        notes
    });
    descriptor.set_annotations(notes);
    for reference in &references {
        store.tag(&reference.to_string(), &descriptor)?;
    }
    if call.json {
        output::json(&json!({ "names": references, "digest": image.descriptor.digest().to_string() }))?;
    }
    Ok(())
}

/// The digest that a registry has under the name, if the image was pulled by it.
fn pulled(named: &IndexEntry) -> Option<Digest> {
    let notes = named.descriptor.annotations().as_ref().filter(|notes| notes.contains_key(PLATFORM))?;
    notes.get(INDEX_DIGEST).and_then(|index| index.parse().ok()).or_else(|| named.digest().ok())
}

fn open(store: &Store, text: &str) -> Result<StoredImage> {
    store.image(&store.find(text)?)
}

/// `inspect IMAGE…`: everything that is known, by docker's names, always as JSON.
///
/// # Errors
/// There is no such image, or a part of it is missing: all others are printed.
pub fn inspect(call: Call) -> Result<()> {
    let store = open_store()?;
    let names = call.args.rest("the names of images", 1, usize::MAX)?;
    let all = store.images()?;
    let (mut found, mut failed) = (Vec::new(), Vec::new());
    for name in &names {
        let image = match open(&store, name) {
            Ok(image) => image,
            Err(error) => {
                failed.push(error);
                continue;
            }
        };
        let raw = &image.config.raw;
        let names_of = |image: &StoredImage| -> (Vec<String>, Vec<String>) {
            let (mut tags, mut digests) = (Vec::new(), Vec::new());
            for other in all.iter().filter(|other| other.descriptor.digest() == image.descriptor.digest()) {
                let Some(name) = other.name.as_deref().and_then(|name| Reference::parse(name).ok()) else { continue };
                if name.digest().is_none() {
                    tags.push(name.familiar());
                }
                digests
                    .extend(name.digest().or_else(|| pulled(other)).map(|digest| name.with_digest(digest).familiar()));
            }
            digests.sort();
            digests.dedup();
            (tags, digests)
        };
        let (tags, digests) = names_of(&image);
        let unpacked = image.config.diff_ids.iter().map(|id| store.layer(id).map(|layer| layer.is_some()));
        found.push(json!({
            "Id": image.id.to_string(),
            "Digest": image.digest.to_string(),
            "RepoTags": tags,
            "RepoDigests": digests,
            "Created": raw["created"],
            "Author": raw["author"],
            "Architecture": raw["architecture"],
            "Variant": raw["variant"],
            "Os": raw["os"],
            "Size": image.size(),
            "Config": raw["config"],
            "RootFS": { "Type": "layers", "Layers": raw["rootfs"]["diff_ids"] },
            "Layers": image.manifest.layers(),
            "Unpacked": unpacked.collect::<Result<Vec<bool>>>()?.into_iter().all(|there| there),
            "Annotations": image.manifest.annotations(),
        }));
    }
    if !found.is_empty() {
        output::json(&found.into())?;
    }
    super::all(&call.progress, failed)
}

/// `history IMAGE`: how its layers came to be, the last one first.
///
/// # Errors
/// There is no such image, or a part of it is missing.
pub fn history(mut call: Call) -> Result<()> {
    let full = call.args.flag("--no-trunc");
    let store = open_store()?;
    let image = open(&store, &call.args.rest("the name of one image", 1, 1)?[0])?;
    let mut layers = image.manifest.layers().iter().zip(&image.config.diff_ids);
    let mut steps: Vec<Value> = Vec::new();
    let written = image.config.spec.history().clone().unwrap_or_default();
    for step in &written {
        let layer = if step.empty_layer().unwrap_or(false) { None } else { layers.next() };
        steps.push(json!({
            "created": step.created(),
            "createdBy": step.created_by(),
            "comment": step.comment(),
            "size": layer.map_or(0, |(layer, _)| layer.size()),
            "diffId": layer.map(|(_, id)| id.to_string()),
        }));
    }
    // A history that was left out, or ends too early, doesn't hide a layer.
    for (layer, id) in layers {
        steps.push(json!({ "created": null, "createdBy": null, "comment": null, "size": layer.size(), "diffId": id.to_string() }));
    }
    steps.reverse();
    if call.json {
        return output::json(&steps.into());
    }
    let rows: Vec<Vec<String>> = steps
        .iter()
        .map(|step| {
            let text = |key: &str| one_line(step[key].as_str().unwrap_or_default(), if full { usize::MAX } else { 60 });
            let ago = step["created"].as_str().and_then(time::parse).map_or_else(|| "unknown".to_owned(), output::ago);
            let size = step["size"].as_u64().unwrap_or(0);
            vec![ago, text("createdBy"), output::size(size), text("comment")]
        })
        .collect();
    output::table(&["CREATED", "CREATED BY", "SIZE", "COMMENT"], &rows)
}

/// The summary of an image, in one line.
fn one_line(text: &str, most: usize) -> String {
    let mut text: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.chars().count() > most {
        text = text.chars().take(most - 1).chain(['…']).collect();
    }
    text
}
