//! The paths that a Rust file names, in `use` and elsewhere.

use std::path::Path;

use super::tokens::tokens;

/// From the root of a crate on: `["core", "plan", "Plan"]`.
type Names = Vec<String>;

/// What one file names.
#[derive(Default)]
pub struct File {
    /// All paths into the crates of the workspace.
    pub paths: Vec<Names>,
    /// What its `use` declarations bring in: the name here, and the path.
    pub uses: Vec<(String, Names)>,
    /// Modules in files of their own that are for tests only.
    pub test_modules: Vec<Names>,
}

/// The module that a file holds; `path` is relative to the crate's src/.
pub fn module(name: &str, path: &Path) -> Names {
    let path = path.with_extension("");
    let mut names: Names = vec![name.to_owned()];
    names.extend(path.iter().map(|part| part.to_str().unwrap().to_owned()));
    if ["mod", "lib", "main"].contains(&names.last().unwrap().as_str()) {
        names.pop();
    }
    names
}

/// Reads the file that holds this module.
pub fn read(module: &[String], text: &str) -> File {
    let tokens = tokens(text);
    let children = tokens.windows(3).filter(|window| window[0] == "mod" && window[2] == ";").map(|window| window[1]);
    let reader =
        Reader { children: children.collect(), module: module.to_vec(), tokens: &tokens, file: File::default() };
    reader.read()
}

struct Reader<'a> {
    tokens: &'a [&'a str],
    /// Modules declared here, by which paths may begin.
    children: Vec<&'a str>,
    /// The module that the tokens are in at this moment.
    module: Names,
    file: File,
}

impl<'a> Reader<'a> {
    fn token(&self, at: usize) -> &'a str {
        self.tokens.get(at).copied().unwrap_or_default()
    }

    fn read(mut self) -> File {
        let (mut at, mut depth) = (0, 0);
        // Depths at which a module inside this file began.
        let mut inner = Vec::new();
        while at < self.tokens.len() {
            match self.token(at) {
                "#" => {
                    at = self.attribute(at);
                    continue;
                }
                "use" if self.token(at + 1) != "<" => {
                    at = self.tree(at + 1, &mut Vec::new());
                    continue;
                }
                "mod" if self.token(at + 2) == "{" => {
                    inner.push(depth);
                    self.module.push(self.token(at + 1).to_owned());
                }
                "{" => depth += 1,
                "}" => {
                    depth -= 1;
                    if inner.last() == Some(&depth) {
                        inner.pop();
                        self.module.pop();
                    }
                }
                _ if self.token(at + 1) == "::" && self.is_start(at) => {
                    at = self.path(at);
                    continue;
                }
                _ => {}
            }
            at += 1;
        }
        self.file
    }

    /// Whether a path begins here, and not in the middle of one or in `pub(in crate::a)`.
    fn is_start(&self, at: usize) -> bool {
        let before = if at == 0 { "" } else { self.token(at - 1) };
        before != "::" && !(before == "in" && at > 1 && self.token(at - 2) == "(")
    }

    /// Reads a path outside of `use`; returns the index of what follows.
    fn path(&mut self, mut at: usize) -> usize {
        let mut names = vec![self.token(at)];
        while self.token(at + 1) == "::"
            && self.token(at + 2).starts_with(|first: char| first.is_alphabetic() || first == '_')
        {
            names.push(self.token(at + 2));
            at += 2;
        }
        self.file.paths.extend(self.resolved(&names));
        at + 1
    }

    /// Reads a tree of `use`, of which `prefix` was read before; returns the index of what follows.
    fn tree(&mut self, mut at: usize, prefix: &mut Vec<&'a str>) -> usize {
        let length = prefix.len();
        loop {
            match self.token(at) {
                "::" => at += 1,
                "{" => {
                    at += 1;
                    while self.token(at) != "}" && at < self.tokens.len() {
                        at = self.tree(at, prefix);
                        at += usize::from(self.token(at) == ",");
                    }
                    prefix.truncate(length);
                    return at + 1;
                }
                "," | "}" | ";" | "" | "as" => break,
                name => {
                    prefix.push(name);
                    at += 1;
                }
            }
        }
        let mut name = prefix.last().copied().unwrap_or_default();
        if self.token(at) == "as" {
            name = self.token(at + 1);
            at += 2;
        }
        // `a::{self}` is a, and what `*` brings in is of a.
        while prefix.len() > 1 && matches!(prefix.last(), Some(&("self" | "*"))) {
            prefix.pop();
        }
        if let Some(path) = self.resolved(prefix) {
            let name = if name == "self" { path.last().unwrap().clone() } else { name.to_owned() };
            self.file.uses.push((name, path.clone()));
            self.file.paths.push(path);
        }
        prefix.truncate(length);
        at
    }

    /// A path from the root of its crate on; `None` for what is not of this workspace.
    fn resolved(&self, names: &[&str]) -> Option<Names> {
        let (first, rest) = names.split_first()?;
        let mut path = match *first {
            "crate" => vec![self.module[0].clone()],
            "self" | "super" => self.module.clone(),
            name if self.children.contains(&name) => [&self.module[..], &[name.to_owned()]].concat(),
            name => vec![name.strip_prefix("nsrs_")?.to_owned()],
        };
        let ups = names.iter().filter(|name| **name == "super").count();
        path.truncate(path.len().saturating_sub(ups).max(1));
        path.extend(rest.iter().filter(|name| **name != "super").map(|name| (*name).to_owned()));
        Some(path)
    }

    /// Passes an attribute, and what it guards where that is for tests; returns the index of what follows.
    fn attribute(&mut self, at: usize) -> usize {
        let end = self.block_end(at);
        let words = &self.tokens[at..end];
        if !words.contains(&"cfg") || !words.contains(&"test") || words.contains(&"not") {
            return end;
        }
        let mut at = end;
        while self.token(at) == "#" {
            at = self.block_end(at);
        }
        let end = self.item_end(at);
        if let Some(found) = self.tokens[at..end].iter().position(|token| *token == "mod")
            && self.token(at + found + 2) == ";"
        {
            let name = self.token(at + found + 1).to_owned();
            self.file.test_modules.push([&self.module[..], &[name]].concat());
        }
        end
    }

    /// The index after the next bracket's partner.
    fn block_end(&self, mut at: usize) -> usize {
        let mut depth = 0;
        while at < self.tokens.len() {
            match self.token(at) {
                "{" | "[" | "(" => depth += 1,
                "}" | "]" | ")" => {
                    depth -= 1;
                    if depth == 0 {
                        return at + 1;
                    }
                }
                _ => {}
            }
            at += 1;
        }
        at
    }

    /// The index after an item: its semicolon, its comma (a field or a variant), or its block.
    fn item_end(&self, mut at: usize) -> usize {
        while at < self.tokens.len() {
            match self.token(at) {
                "{" => return self.block_end(at),
                "[" | "(" => at = self.block_end(at),
                ";" | "," => return at + 1,
                "}" => return at,
                _ => at += 1,
            }
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str) -> String {
        let module: Names = ["core", "net", "bridge"].map(str::to_owned).to_vec();
        read(&module, text).paths.iter().map(|path| path.join("::")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn paths_are_found_wherever_they_stand() {
        for (text, expected) in [
            ("use crate::plan::Plan;", "core::plan::Plan"),
            ("pub(crate) use nsrs_base::sys::wait as w;", "base::sys::wait"),
            ("use super::{lease::{Lease, self}, nft::*};", "core::net::lease::Lease core::net::lease core::net::nft"),
            ("use super::super::spec::{self, Spec};", "core::spec core::spec::Spec"),
            ("use {crate::a, std::fs, nsrs_store::b};", "core::a store::b"),
            ("use std::fs; use rustix::fs::{Mode, OFlags};", ""),
            (
                "fn f(a: &crate::spec::Spec) -> nsrs_base::Error { super::x::y::<u8>(self.z) }",
                "core::spec::Spec base::Error core::net::x::y",
            ),
            ("type A = Vec<crate::a::B>; let x = crate::c::d!(y);", "core::a::B core::c::d"),
            ("pub(in crate::steps) fn f() {}", ""),
            ("for x in crate::steps::all() {}", "core::steps::all"),
            ("// use crate::plan;\nconst A: &str = \"crate::plan::Plan\";", ""),
            (
                "mod wire; use wire::Frame; fn f() { wire::g() }",
                "core::net::bridge::wire::Frame core::net::bridge::wire::g",
            ),
            (
                "mod inner { use super::super::lease::Lease; } use super::nft::N;",
                "core::net::lease::Lease core::net::nft::N",
            ),
            ("fn f() -> impl Iterator + use<'_> { crate::a::b() }", "core::a::b"),
            ("#[derive(crate::a::B)] struct C;", ""),
        ] {
            assert_eq!(paths(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_for_tests_is_free() {
        for text in [
            "#[cfg(test)] mod tests { use crate::plan::Plan; }",
            "#[cfg(test)] #[allow(unused)] use crate::plan::{Plan};",
            "#[cfg(test)] pub fn f(a: [u8; 2]) -> u8 { crate::plan::x() }",
            "#[cfg(all(test, unix))] impl crate::plan::Plan {}",
            "#[cfg(test)] mod tests; #[cfg(test)] #[path = \"x.rs\"] pub mod testing;",
        ] {
            assert_eq!(paths(text), "", "{text}");
            let after = format!("{text} use crate::spec::Spec;");
            assert_eq!(paths(&after), "core::spec::Spec", "{after}");
        }
        assert_eq!(paths("#[cfg(not(test))] use crate::plan::Plan;"), "core::plan::Plan");
        assert_eq!(paths("#[cfg(unix)] use crate::plan::Plan;"), "core::plan::Plan");
        let file = read(&["core".to_owned()], "mod a; #[cfg(test)] mod b; #[cfg(test)] pub(crate) mod c;");
        assert_eq!(file.test_modules, [["core", "b"], ["core", "c"]]);
    }

    #[test]
    fn what_a_root_passes_on_is_known_by_its_name() {
        let file = read(&["core".to_owned()], "pub use nsrs_base::{error, sys as system, ids::{self, Ids}};");
        let uses: Vec<_> = file.uses.iter().map(|(name, path)| format!("{name}={}", path.join("::"))).collect();
        assert_eq!(uses, ["error=base::error", "system=base::sys", "ids=base::ids", "Ids=base::ids::Ids"]);
    }

    #[test]
    fn a_file_s_module_follows_from_its_path() {
        for (path, expected) in [
            ("lib.rs", "core"),
            ("main.rs", "core"),
            ("init.rs", "core::init"),
            ("net/mod.rs", "core::net"),
            ("net/nft/table.rs", "core::net::nft::table"),
        ] {
            assert_eq!(module("core", Path::new(path)).join("::"), expected);
        }
    }
}
