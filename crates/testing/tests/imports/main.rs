//! Reads the imports of all crates, of ts/ and of cli/, and fails on one that the tables of rooms in ARCHITECTURE.md
//! don't allow. What `#[cfg(test)]` guards is free.

mod rooms;
mod rust;
mod tokens;
mod typescript;

use std::fs;
use std::path::{Path, PathBuf};

use rooms::Rooms;

/// One file of the product.
struct Source {
    file: PathBuf,
    /// What it is, from the root of a crate or of the repository: `["core", "net", "bridge"]`, `["ts", "images", "task"]`.
    module: Vec<String>,
    /// What it names of the product: `["core", "plan", "Plan"]`.
    imports: Vec<Vec<String>>,
}

/// The repository.
fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// All files below a directory whose name ends so.
fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.to_str().unwrap().ends_with(extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The files of the crates. This one is left out: only tests use it, and it uses nothing.
fn of_crates(top: &Path) -> Vec<Source> {
    let mut sources = Vec::new();
    for entry in fs::read_dir(top.join("crates")).unwrap() {
        let directory = entry.unwrap().path();
        let name = directory.file_name().unwrap().to_str().unwrap();
        if name != "testing" {
            sources.extend(of_crate(name, &directory.join("src")));
        }
    }
    sources
}

fn of_crate(name: &str, directory: &Path) -> Vec<Source> {
    let parsed: Vec<_> = files(directory, ".rs")
        .into_iter()
        .map(|path| {
            let module = rust::module(name, path.strip_prefix(directory).unwrap());
            let file = rust::read(&module, &fs::read_to_string(&path).unwrap());
            (path, module, file)
        })
        .collect();
    let tests: Vec<_> = parsed.iter().flat_map(|(_, _, file)| file.test_modules.clone()).collect();
    // A name that the crate's root passes on is a path of the crate it comes from.
    let passed_on: Vec<_> =
        parsed.iter().filter(|(_, module, _)| module.len() == 1).flat_map(|(_, _, file)| file.uses.clone()).collect();
    let origin = |path: Vec<String>| {
        let passed = passed_on.iter().find(|(passed, _)| path.len() > 1 && path[0] == name && path[1] == *passed);
        passed.map_or(path.clone(), |(_, target)| [target, &path[2..]].concat())
    };
    let is_test = |module: &[String]| tests.iter().any(|test| module.starts_with(test));
    let product = parsed.into_iter().filter(|(_, module, _)| !is_test(module));
    product
        .map(|(file, module, found)| Source { file, module, imports: found.paths.into_iter().map(origin).collect() })
        .collect()
}

/// The files of the library for Node.js and of the command line.
fn of_scripts(top: &Path) -> Vec<Source> {
    let paths = ["ts", "cli"].iter().flat_map(|folder| files(&top.join(folder), ".ts"));
    paths
        .map(|file| {
            let module = typescript::module(file.strip_prefix(top).unwrap());
            let imports = typescript::imports(&module, &fs::read_to_string(&file).unwrap());
            Source { file, module, imports }
        })
        .collect()
}

#[test]
fn every_import_is_one_that_the_table_of_rooms_allows() {
    let top = top();
    let rooms = Rooms::parse(&fs::read_to_string(top.join("ARCHITECTURE.md")).unwrap()).unwrap();
    let sources: Vec<Source> = of_crates(&top).into_iter().chain(of_scripts(&top)).collect();
    let mut wrong = Vec::new();
    for Source { file, module, imports } in &sources {
        for import in imports {
            if let Err(why) = rooms.check(module, import) {
                wrong.push(format!("{}: {why} ({})", file.strip_prefix(&top).unwrap().display(), import.join("::")));
            }
        }
    }
    wrong.dedup();
    assert!(wrong.is_empty(), "{} imports that ARCHITECTURE.md doesn't allow:\n{}", wrong.len(), wrong.join("\n"));
    // That nothing is wrong must not be because nothing was read.
    let count: usize = sources.iter().map(|source| source.imports.len()).sum();
    assert!(count > 500, "only {count} imports were found");
    let unseen = rooms.without(sources.iter().map(|source| &source.module[..]));
    assert_eq!(unseen, Vec::<String>::new(), "rooms of the table in which no file was found");
}

#[test]
fn the_rooms_use_each_other_in_one_direction() {
    let rooms = Rooms::parse(&fs::read_to_string(top().join("ARCHITECTURE.md")).unwrap()).unwrap();
    assert_eq!(rooms.circle(), None);
}
