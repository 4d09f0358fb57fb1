//! The files that a TypeScript file imports.

use std::path::Path;

/// What a file is, without its extension; `path` is relative to the repository.
pub fn module(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = path.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    let last = names.pop().unwrap();
    names.push(last.split('.').next().unwrap().to_owned());
    names
}

/// The files of this repository that the file `from` imports, now or later, or passes on.
pub fn imports(from: &[String], text: &str) -> Vec<Vec<String>> {
    let text = without_comments(text);
    let mut found = Vec::new();
    for keyword in ["from", "import"] {
        for (at, _) in text.match_indices(keyword) {
            let after = text[at + keyword.len()..].trim_start().trim_start_matches('(').trim_start();
            let quoted = after.strip_prefix(['\'', '"']).and_then(|rest| rest.split(['\'', '"']).next());
            if let Some(target) = quoted.filter(|target| target.starts_with('.') && !target.ends_with(".json")) {
                found.push(resolved(from, target));
            }
        }
    }
    found
}

/// Comments that have lines of their own: elsewhere `//` may be in a string.
fn without_comments(text: &str) -> String {
    let is_code = |line: &&str| !["//", "/*", "*"].iter().any(|start| line.trim_start().starts_with(start));
    text.lines().filter(is_code).collect::<Vec<_>>().join("\n")
}

fn resolved(from: &[String], target: &str) -> Vec<String> {
    let mut path = from[..from.len() - 1].to_vec();
    for part in target.split('/') {
        match part {
            "." => {}
            ".." => drop(path.pop()),
            name => path.push(name.to_owned()),
        }
    }
    module(&path.iter().collect::<std::path::PathBuf>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_in_every_form_of_import() {
        let from = module(Path::new("ts/images/task.ts"));
        for (text, expected) in [
            ("import { a } from '../run.ts'", "ts/run"),
            ("import type { A } from '../binding.d.ts'", "ts/binding"),
            ("import {\n  a,\n  b,\n} from \"./words.ts\"", "ts/images/words"),
            ("import '../../cli/main.ts'", "cli/main"),
            ("export * from './words.ts'", "ts/images/words"),
            ("const { x } = await import('./execute.ts')", "ts/images/execute"),
            ("import { readFile } from 'node:fs'", ""),
            ("import { version } from '../../package.json'", ""),
            ("/** What `images.import('./x.ts')` takes. */\n// from './x.ts'", ""),
            ("const from = './x.ts'", ""),
        ] {
            let found: Vec<_> = imports(&from, text).iter().map(|path| path.join("/")).collect();
            assert_eq!(found.join(" "), expected, "{text}");
        }
    }
}
