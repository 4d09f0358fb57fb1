//! Images read from an archive (of docker or podman `save`, old and new, or an OCI layout) in one pass, or from a directory
//! with an OCI layout.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use oci_spec::image::Descriptor;
use serde_json::{Value, json};

use super::{CONFIG, MANIFEST, MOST_INDEX, MOST_NAMES};
use crate::compression::{self, Compression};
use crate::config::ImageConfig;
use crate::content::{IndexEntry, Ingest, IngestStart, MOST_METADATA, PruneWait, Store, check_name};
use crate::digest::Digest;
use crate::limits::Limits;
use crate::reference::Reference;
use crate::stored_image::StoredImage;
use crate::tar::EntryKind;
use crate::tar::read::TarReader;
use crate::unpack::destination::{clean, split};
use nsrs_base::error::show;
use nsrs_base::error::{At, Code, Error, Result};

/// The lists of images that archives have.
const LISTS: [&str; 3] = ["index.json", "manifest.json", "oci-layout"];

/// What an archive brought, by its paths in it.
#[derive(Debug, Default)]
struct Contents {
    lists: BTreeMap<String, Value>,
    /// Everything that may be a configuration or a layer of docker's older form.
    files: BTreeMap<Vec<u8>, Part>,
    links: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Clone, Copy, Debug)]
struct Part {
    digest: Digest,
    size: u64,
    compression: Compression,
}

/// What came of an archive.
#[derive(Debug)]
pub struct Loaded {
    /// The images as they are listed in the store.
    pub images: Vec<IndexEntry>,
    /// What is wrong with names that the archive gives and no image can have: they are left out.
    pub refused: Vec<Error>,
}

/// An image that was found, under each of its names or without one.
type FoundImages = Vec<(Option<String>, Descriptor)>;

fn bad(why: impl Into<String>) -> Error {
    Error::new(Code::ImageInvalid, "load the image", why)
}

/// Loads the images of an archive, packed by gzip or zstd or not at all, up to a limit. `name` is the name of the image if the
/// archive has one image (and none for it). `make_ready` is called once for each image: [`Store::prepare`], or at least
/// [`Store::verify_layers`]. All names are given together, once every image is ready.
///
/// # Errors
/// It is not an archive of an image; a part is missing or altered; those of `make_ready`. Then nothing is listed, and every
/// name stays with the image that has it. What came in with it stays until the next [`Store::prune`].
pub fn load(
    store: &Store,
    input: impl Read + Send,
    name: Option<&str>,
    limits: Limits,
    make_ready: impl FnMut(&StoredImage) -> Result<()>,
) -> Result<Loaded> {
    whole(store, || {
        let input = compression::unpacked_within(input, limits)?;
        let contents = archive(store, BufReader::with_capacity(256 << 10, input))?;
        finish(store, contents, name, make_ready)
    })
}

/// The same from a directory with an OCI layout.
///
/// # Errors
/// Those of [`load`].
pub fn load_layout(
    store: &Store,
    directory: &Path,
    name: Option<&str>,
    make_ready: impl FnMut(&StoredImage) -> Result<()>,
) -> Result<Loaded> {
    whole(store, || finish(store, layout(store, directory)?, name, make_ready))
}

fn whole(store: &Store, work: impl FnOnce() -> Result<Loaded>) -> Result<Loaded> {
    let guard = store.guard()?;
    let result = work();
    drop(guard);
    if result.is_err() {
        // What came in is of no use. If others are at work, the next one who removes something removes it too.
        let _ = store.prune(PruneWait::No, false);
    }
    result
}

fn archive(store: &Store, input: impl BufRead) -> Result<Contents> {
    let mut reader = TarReader::new(input);
    let mut contents = Contents::default();
    let mut entries = 0_u64;
    while let Some(entry) = reader.next_entry()? {
        entries += 1;
        if entries > 100_000 {
            return Err(bad("more than 100000 entries"));
        }
        let path = clean(&entry.path)?;
        match entry.kind {
            EntryKind::File if entry.sparse.is_none() => file(store, &mut reader, &mut contents, path, entry.size)?,
            // Old archives share layers by links to each other.
            EntryKind::Symlink => {
                let link = match entry.link.starts_with(b"/") {
                    true => clean(&entry.link)?,
                    false => clean(&[split(&path).0, b"/", &entry.link].concat())?,
                };
                contents.links.insert(path, link);
            }
            EntryKind::HardLink => {
                contents.links.insert(path, clean(&entry.link)?);
            }
            _ => {}
        }
    }
    if entries == 0 {
        return Err(bad("the archive is empty").hint("the program that wrote it may have failed"));
    }
    Ok(contents)
}

fn file<R: BufRead>(
    store: &Store,
    reader: &mut TarReader<R>,
    contents: &mut Contents,
    path: Vec<u8>,
    size: u64,
) -> Result<()> {
    if let Some(list) = LISTS.iter().find(|list| list.as_bytes() == path) {
        let bytes = reader.bytes(MOST_INDEX).map_err(|error| error.on(*list))?;
        let value = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()).on(*list))?;
        contents.lists.insert((*list).to_owned(), value);
        return Ok(());
    }
    let ends = |end: &str| path.ends_with(end.as_bytes());
    let known = if let Some(hex) = path.strip_prefix(b"blobs/sha256/") {
        Some(Digest::from_hex(&String::from_utf8_lossy(hex))?)
    } else if ends(".tar") || (ends(".json") && size <= MOST_METADATA) {
        None
    } else {
        // The rest of docker's older form: VERSION, json, repositories.
        return Ok(());
    };
    let (digest, compression) = match known {
        Some(digest) => match store.ingest_anew(&digest)? {
            IngestStart::Write(mut ingest) => {
                ingest.expect_size(size);
                receive(reader, ingest)?
            }
            IngestStart::Present | IngestStart::Busy => (digest, packing(store, &digest)?),
        },
        None => receive(reader, store.ingest_unknown()?)?,
    };
    contents.files.insert(path, Part { digest, size, compression });
    Ok(())
}

fn packing(store: &Store, digest: &Digest) -> Result<Compression> {
    let mut start = Vec::new();
    store.open_blob(digest)?.take(6).read_to_end(&mut start).at("read the blob", digest)?;
    // What isn't a layer may be anything.
    Ok(Compression::detect(&start).unwrap_or(Compression::None))
}

fn receive<R: BufRead>(reader: &mut TarReader<R>, mut ingest: Ingest) -> Result<(Digest, Compression)> {
    let mut compression = None;
    loop {
        let part = reader.data()?;
        if part.is_empty() {
            return Ok((ingest.commit()?, compression.unwrap_or(Compression::None)));
        }
        if compression.is_none() {
            compression = Some(Compression::detect(part).unwrap_or(Compression::None));
        }
        let count = part.len();
        ingest.write(part)?;
        reader.consume(count);
    }
}

fn layout(store: &Store, directory: &Path) -> Result<Contents> {
    let step = "load the image";
    let mut contents = Contents::default();
    for list in LISTS {
        let path = directory.join(list);
        let mut text = Vec::new();
        match File::open(&path) {
            Ok(file) => file.take(MOST_INDEX + 1).read_to_end(&mut text).at(step, path.display())?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::os(step, path.display().to_string(), &error)),
        };
        let value =
            serde_json::from_slice(&text).map_err(|error| bad(error.to_string()).on(path.display().to_string()))?;
        contents.lists.insert(list.to_owned(), value);
    }
    let folder = directory.join("blobs/sha256");
    let mut todo: Vec<Digest> = listed(contents.lists.get("index.json"))?;
    let mut known: BTreeSet<Digest> = BTreeSet::new();
    while let Some(digest) = todo.pop() {
        if !known.insert(digest) {
            continue;
        }
        let path = folder.join(digest.hex());
        let mut blob = match File::open(&path) {
            Ok(blob) => BufReader::with_capacity(256 << 10, blob),
            // A platform that isn't there; what is really missing is found later.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::os(step, path.display().to_string(), &error)),
        };
        if let IngestStart::Write(mut ingest) = store.ingest_anew(&digest)? {
            std::io::copy(&mut blob, &mut ingest).map_err(crate::tar::read_error)?;
            ingest.commit()?;
        }
        if store.size(&digest).is_some_and(|size| size <= MOST_METADATA)
            && let Ok(value) = serde_json::from_slice::<Value>(&store.read(&digest)?)
        {
            todo.extend(listed(Some(&value))?);
        }
    }
    Ok(contents)
}

/// The digests that a list of images, an index or a manifest names.
fn listed(value: Option<&Value>) -> Result<Vec<Digest>> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let lists = ["manifests", "layers"].iter().filter_map(|key| value[*key].as_array()).flatten();
    let config = value["config"].is_object().then_some(&value["config"]);
    lists.chain(config).filter_map(|entry| entry["digest"].as_str()).map(str::parse).collect()
}

fn finish(
    store: &Store,
    contents: Contents,
    name: Option<&str>,
    make_ready: impl FnMut(&StoredImage) -> Result<()>,
) -> Result<Loaded> {
    let name = name.map(|name| Reference::parse(name).map(|name| name.to_string())).transpose()?;
    let index = contents.lists.get("index.json").and_then(|index| index["manifests"].as_array());
    let manifest = contents.lists.get("manifest.json").and_then(Value::as_array);
    let mut names = Names::default();
    let mut found: FoundImages = match (index, manifest) {
        (Some(index), manifest) => from_index(store, index, manifest, &mut names)?,
        (None, Some(manifest)) => from_manifest(store, &contents, manifest, &mut names)?,
        (None, None) => {
            return Err(bad("not an archive of an image (neither index.json nor manifest.json)")
                .hint("a root file system is brought in by: nsrs import"));
        }
    };
    if found.is_empty() {
        return Err(bad("the archive has no images"));
    }
    if let Some(name) = name {
        let images: BTreeSet<String> = found.iter().map(|(_, descriptor)| descriptor.digest().to_string()).collect();
        if images.len() > 1 {
            return Err(bad(format!("the archive has {} images, which can't all have one name", images.len()))
                .code(Code::InvalidArgument));
        }
        found.truncate(1);
        found[0].0 = Some(name);
        names.refused.clear();
    }
    let images: Vec<IndexEntry> = found.into_iter().map(|(name, descriptor)| IndexEntry { name, descriptor }).collect();
    check_and_make_ready(store, &images, make_ready)?;
    store.put(&images)?;
    Ok(Loaded { images, refused: names.refused })
}

/// Looks at all images before it makes the first one ready, each once under however many names.
fn check_and_make_ready(
    store: &Store,
    images: &[IndexEntry],
    mut make_ready: impl FnMut(&StoredImage) -> Result<()>,
) -> Result<()> {
    let mut opened = BTreeMap::new();
    for named in images {
        named.name.as_deref().map_or(Ok(()), |name| check_name(name, &named.descriptor))?;
        let digest = named.digest()?;
        if opened.contains_key(&digest) {
            continue;
        }
        let image = store.image(named)?;
        for (blob, diff_id) in image.layers()?.iter().zip(&image.config.diff_ids) {
            if !store.has(blob) {
                return Err(bad("a layer isn't in the archive").on(blob.to_string()));
            }
            // The diff id of a layer that isn't packed is its digest; that of others is known when they are unpacked.
            if blob != diff_id && packing(store, blob)? == Compression::None {
                return Err(bad(format!("a layer has the diff id {blob} and not that of the configuration"))
                    .on(diff_id.to_string()));
            }
        }
        opened.insert(digest, image);
    }
    opened.values().try_for_each(&mut make_ready)
}

/// The names that an archive gives, and how many of them were looked at.
#[derive(Default)]
struct Names {
    count: usize,
    refused: Vec<Error>,
}

impl Names {
    /// The full form of each name. An invalid one is refused, once.
    fn full(&mut self, names: impl IntoIterator<Item = String>) -> Result<Vec<String>> {
        let mut valid = Vec::new();
        for name in names {
            self.count_one()?;
            match Reference::parse(&name) {
                Ok(name) => valid.push(name.to_string()),
                Err(error) if self.refused.contains(&error) => {}
                Err(error) => self.refused.push(error),
            }
        }
        Ok(valid)
    }

    /// Counts a name, or an image that may have none.
    fn count_one(&mut self) -> Result<()> {
        self.count += 1;
        match self.count > MOST_NAMES {
            true => Err(bad(format!("more than {MOST_NAMES} images and names"))),
            false => Ok(()),
        }
    }
}

/// An image under each of its names, or without one.
fn under_names(names: Vec<String>, descriptor: &Descriptor) -> FoundImages {
    match names.is_empty() {
        true => vec![(None, descriptor.clone())],
        false => names.into_iter().map(|name| (Some(name), descriptor.clone())).collect(),
    }
}

/// The images of an OCI layout. Docker's list, if it is there too, has the names that the index may not have.
fn from_index(store: &Store, index: &[Value], manifest: Option<&Vec<Value>>, names: &mut Names) -> Result<FoundImages> {
    let mut found = Vec::new();
    let mut by_id: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for item in manifest.into_iter().flatten() {
        by_id.entry(item["Config"].as_str().map_or("", config_name)).or_default().push(item);
    }
    let mut ids: BTreeMap<Digest, String> = BTreeMap::new();
    for entry in index {
        names.count_one()?;
        let mut entry = entry.clone();
        let annotation = |name: &str| entry["annotations"][name].as_str().map(str::to_owned);
        // A bare word may be a name or, as docker writes it, a tag of nothing: it doesn't count as one.
        let name = annotation("io.containerd.image.name")
            .or_else(|| annotation("org.opencontainers.image.ref.name").filter(|name| name.contains([':', '/'])));
        let mut own = names.full(name)?;
        if let Some(entry) = entry.as_object_mut() {
            // They concern the archive, not the image.
            entry.remove("annotations");
        }
        let descriptor: Descriptor =
            serde_json::from_value(entry).map_err(|error| bad(error.to_string()).on("index.json"))?;
        if own.is_empty() && manifest.is_some() {
            let named = IndexEntry { name: None, descriptor: descriptor.clone() };
            let id = match ids.entry(named.digest()?) {
                Entry::Occupied(id) => id.into_mut(),
                Entry::Vacant(free) => free.insert(store.image(&named)?.id.hex()),
            };
            own = names.full(by_id.get(id.as_str()).into_iter().flatten().flat_map(|item| tags(item)))?;
        }
        found.extend(under_names(own, &descriptor));
    }
    Ok(found)
}

/// The id that the path of a configuration in docker's list has: `blobs/sha256/HEX` or `HEX.json`.
fn config_name(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.strip_suffix(".json").unwrap_or(name)
}

fn tags(item: &Value) -> impl Iterator<Item = String> {
    item["RepoTags"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned)
}

/// The images of docker's older form, which has no manifests: they are made.
fn from_manifest(store: &Store, contents: &Contents, list: &[Value], names: &mut Names) -> Result<FoundImages> {
    let mut found = Vec::new();
    for item in list {
        names.count_one()?;
        let part = |path: &Value| -> Result<Part> {
            let path = path.as_str().ok_or_else(|| bad("a path in manifest.json is not a string"))?;
            let mut path = clean(path.as_bytes())?;
            for _links in 0..16 {
                if let Some(part) = contents.files.get(&path) {
                    return Ok(*part);
                }
                match contents.links.get(&path) {
                    Some(link) => path.clone_from(link),
                    None => break,
                }
            }
            Err(bad("not in the archive").on(show(&path)))
        };
        let config = part(&item["Config"])?;
        let parsed = ImageConfig::parse(&store.read(&config.digest)?)?;
        let layers: Vec<Part> = item["Layers"].as_array().into_iter().flatten().map(part).collect::<Result<_>>()?;
        if layers.len() != parsed.diff_ids.len() {
            let (have, want) = (layers.len(), parsed.diff_ids.len());
            return Err(bad(format!("an image has {have} layers, and {want} by its configuration")));
        }
        let described = |media_type: &str, part: &Part| json!({ "mediaType": media_type, "digest": part.digest.to_string(), "size": part.size });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": described(CONFIG, &config),
            "layers": layers.iter().map(|layer| described(layer.compression.layer_media_type(), layer)).collect::<Vec<_>>(),
        });
        let bytes = manifest.to_string().into_bytes();
        let descriptor = descriptor(&store.add(&bytes)?, bytes.len() as u64);
        found.extend(under_names(names.full(tags(item))?, &descriptor));
    }
    Ok(found)
}

/// The descriptor of a manifest.
pub(super) fn descriptor(digest: &Digest, size: u64) -> Descriptor {
    Descriptor::new(MANIFEST.into(), size, digest.to_oci())
}
