//! `load`, `save`, `import` and `export`: images as files.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nsrs_base::error::{At, Code, Error, Result};
use nsrs_base::options::FORMAT;
use nsrs_store::archive::import::{self, About};
use nsrs_store::archive::instruction;
use nsrs_store::archive::save::Format;
use nsrs_store::archive::{export, load, save};
use nsrs_store::content::{IndexEntry, Store};
use nsrs_store::stack::LayerProgress;
use nsrs_store::stored_image::StoredImage;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use serde_json::{Value, json};

use super::{Call, limits};
use crate::caller_store::{make_store, open_store};
use crate::output;
use crate::progress::{Mode as How, Phase, Progress, ProgressEvent};

/// `load [--input FILE] [--name NAME] [--no-unpack]`: images from an archive, from the standard input or a file, or from a
/// directory with an OCI layout.
///
/// # Errors
/// Those of [`load::load`]: then every name stays with the image that has it.
pub fn load(mut call: Call) -> Result<()> {
    let input = call.args.value("--input")?;
    let name = call.args.value("--name")?;
    let unpack = !call.args.flag("--no-unpack");
    let options = limits(&mut call)?;
    let store = make_store()?;
    let rest = std::mem::replace(&mut call.args, crate::args::Args::new(Vec::new())).rest("at most one file", 0, 1)?;
    let path = input.or_else(|| rest.into_iter().next());
    let make_ready = |image: &StoredImage| match unpack {
        true => store.prepare(image, &options, Some(&layer_progress(&call.progress, image))),
        false => store.verify_layers(image, &options),
    };
    let loaded = match path.as_deref().map(Path::new) {
        Some(path) if path.is_dir() => load::load_layout(&store, path, name.as_deref(), make_ready)?,
        path => load::load(&store, reader(path)?, name.as_deref(), options.limits, make_ready)?,
    };
    for error in &loaded.refused {
        call.progress.warn(format!("ignoring a name in the archive: {error}"));
    }
    if unpack {
        let mut told = BTreeSet::new();
        for image in &loaded.images {
            if told.insert(image.digest()?) {
                super::warn_of_losses(&store, &store.image(image)?, &call.progress)?;
            }
        }
    }
    print_images(&call, &store, "loaded", &loaded.images)
}

/// `prepare [--platform OS/ARCH[/VARIANT]] IMAGE`: unpacks and stacks the layers that aren't yet, so that a container can run from it.
///
/// # Errors
/// There is no such image; those of [`Store::prepare`].
pub fn prepare(mut call: Call) -> Result<()> {
    let platform = super::platform(&mut call.args)?;
    let options = limits(&mut call)?;
    let store = open_store()?;
    let named = store.find(&call.args.rest("the name of one image", 1, 1)?[0])?;
    let image = store.image_for(&named, platform.as_ref())?;
    let _guard = store.guard()?;
    store.prepare(&image, &options, Some(&layer_progress(&call.progress, &image)))?;
    super::warn_of_losses(&store, &image, &call.progress)
}

/// Reports layers while they are unpacked.
fn layer_progress(progress: &Progress, image: &StoredImage) -> LayerProgress {
    let sizes: HashMap<String, u64> =
        image.manifest.layers().iter().map(|layer| (layer.digest().to_string(), layer.size())).collect();
    let progress = progress.clone();
    Arc::new(move |layer, read| {
        let digest = layer.to_string();
        let total = sizes.get(&digest).copied().unwrap_or(0);
        let phase = if read.is_some() { Phase::Unpacking } else { Phase::Done };
        progress.report(&ProgressEvent::Layer { digest, phase, current: read.unwrap_or(total), total });
    })
}

/// Prints which images were added.
fn print_images(call: &Call, store: &Store, verb: &str, images: &[IndexEntry]) -> Result<()> {
    let mut values: Vec<Value> = Vec::new();
    let mut known = BTreeMap::new();
    for image in images {
        let (id, digest) = match known.entry(image.digest()?) {
            Entry::Occupied(found) => found.into_mut(),
            Entry::Vacant(free) => {
                let opened = store.image(image)?;
                free.insert((opened.id.to_string(), opened.digest.to_string()))
            }
        };
        values.push(json!({ "name": image.name, "id": id, "digest": digest }));
    }
    if call.json {
        return output::json(&values.into());
    }
    for value in &values {
        let id = value["id"].as_str().unwrap_or_default();
        match (call.progress.mode(), value["name"].as_str()) {
            (How::Quiet, _) => output::line(id)?,
            (_, Some(name)) => output::line(&format!("{verb}: {name}"))?,
            (_, None) => output::line(&format!("{verb}: {id}"))?,
        }
    }
    Ok(())
}

/// The file, or the standard input for `-` and nothing.
fn reader(path: Option<&Path>) -> Result<Box<dyn Read + Send>> {
    match path {
        Some(path) if path != Path::new("-") => Ok(Box::new(File::open(path).at("open the archive", path.display())?)),
        _ if io::stdin().is_terminal() => {
            Err(Error::new(Code::InvalidArgument, "read the archive", "standard input is a terminal")
                .hint("give a file, or nsrs … < FILE"))
        }
        _ => Ok(Box::new(io::stdin())),
    }
}

/// Writes to a file, which appears when it is complete, or to the standard output.
fn write_to(path: Option<&str>, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let step = "write the archive";
    let fill = |file: &mut dyn Write, name: &str| {
        let mut output = BufWriter::with_capacity(256 << 10, file);
        write(&mut output)?;
        output.flush().at(step, name)
    };
    let Some(path) = path.filter(|path| *path != "-") else {
        if io::stdout().is_terminal() {
            return Err(Error::new(Code::InvalidArgument, step, "standard output is a terminal")
                .hint("give a file: --output FILE, or nsrs … > FILE"));
        }
        let result = fill(&mut io::stdout().lock(), "");
        if result.as_ref().is_err_and(|error| error.errno == Some(Errno::PIPE.raw_os_error())) {
            output::end_without_reader();
        }
        return result;
    };
    // A device or a pipe is written to as it is.
    if fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
        return fill(&mut fs::OpenOptions::new().write(true).open(path).at(step, path)?, path);
    }
    let temporary = PathBuf::from(format!("{path}.nsrs-{}", std::process::id()));
    let result = (|| {
        match without_name(Path::new(path)) {
            Some(mut file) => {
                fill(&mut file, path)?;
                let own = format!("/proc/self/fd/{}", file.as_raw_fd());
                rustix::fs::linkat(CWD, own, CWD, &temporary, AtFlags::SYMLINK_FOLLOW).at(step, path)?;
            }
            None => {
                let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&temporary).at(step, path)?;
                fill(&mut file, path)?;
            }
        }
        fs::rename(&temporary, path).at(step, path)
    })();
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result
}

/// A file without a name beside this one, where the file system has such: it is gone if we are killed.
fn without_name(path: &Path) -> Option<File> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::open(parent, flags, Mode::from_raw_mode(0o666)).ok().map(File::from)
}

/// `save [--output FILE] [--type docker|oci] IMAGE…`: images as one archive.
///
/// # Errors
/// Those of [`save::save`].
pub fn save(mut call: Call) -> Result<()> {
    let output = call.args.value("--output")?;
    let format = match call.args.value("--type")?.as_deref() {
        None | Some("docker" | "docker-archive") => Format::Docker,
        Some("oci" | "oci-archive") => Format::Oci,
        Some(other) => return Err(Error::invalid(FORMAT, other, "give docker or oci")),
    };
    let store = open_store()?;
    let names = call.args.rest("the names of images", 1, usize::MAX)?;
    let images: Vec<IndexEntry> = names.iter().map(|name| store.find(name)).collect::<Result<_>>()?;
    // What is written stays until it is written.
    let _guard = store.guard()?;
    write_to(output.as_deref(), |to| save::save(&store, &images, format, to))
}

/// `import [--message TEXT] [--change INSTRUCTION]… [--arch ARCH] FILE|DIRECTORY|- [NAME]`: a root file system becomes an
/// image.
///
/// # Errors
/// Those of [`import::import`].
pub fn import(mut call: Call) -> Result<()> {
    let message = call.args.value("--message")?.unwrap_or_default();
    let mut config = json!({});
    for instruction in call.args.values("--change")? {
        instruction::change(&mut config, &instruction)?;
    }
    let architecture = call.args.value("--arch")?;
    let options = limits(&mut call)?;
    let store = make_store()?;
    let rest = std::mem::replace(&mut call.args, crate::args::Args::new(Vec::new())).rest(
        "a file, a directory or -, and the name of the image",
        1,
        2,
    )?;
    let name = rest.get(1).map(|name| super::new_name(name).map(|name| name.to_string())).transpose()?;
    let about = About { name, message, config, architecture };
    let path = Path::new(&rest[0]);
    let imported = match path.is_dir() {
        true => {
            let (named, nobodys) = import::import_directory(&store, path, &about, &options)?;
            // Root of the host knows everybody.
            if nobodys > 0 && options.squash {
                let files = if nobodys == 1 { "file belongs" } else { "files belong" };
                let why = "the owner is nobody, or not among your subordinate ids (/etc/subuid)";
                call.progress.warn(format!("{nobodys} {files} to nobody (65534) in the image: {why}"));
            }
            named
        }
        false => import::import(&store, reader(Some(path))?, &about, &options)?,
    };
    super::warn_of_losses(&store, &store.image(&imported)?, &call.progress)?;
    print_images(&call, &store, "imported", &[imported])
}

/// `export [--output FILE] IMAGE`: the root file system of an image as a flat archive.
///
/// # Errors
/// Those of [`export::export`]; there is no such image.
pub fn export(mut call: Call) -> Result<()> {
    let output = call.args.value("--output")?;
    let options = limits(&mut call)?;
    let store = open_store()?;
    let image = store.image(&store.find(&call.args.rest("the name of one image", 1, 1)?[0])?)?;
    let _guard = store.guard()?;
    store.unpack_image(&image, &options, Some(&layer_progress(&call.progress, &image)))?;
    let stack = store.stack(&image.config.diff_ids)?;
    write_to(output.as_deref(), |to| export::export(&stack, to).map(drop))
}
