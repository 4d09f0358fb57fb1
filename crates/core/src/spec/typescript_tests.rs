use std::path::Path;

use ts_rs::{Config, TS};

use super::*;

/// A type with its comment, as an exported declaration, its properties indented.
fn declaration<T: TS + 'static>(config: &Config) -> String {
    let declared = T::decl(config).replace(", };", ",\n};");
    let mut text = T::docs().unwrap_or_default() + "export ";
    let mut indent = "";
    for line in declared.lines().map(str::trim_end) {
        indent = if line.starts_with('}') { "" } else { indent };
        text += &format!("{indent}{line}\n");
        indent = if line.ends_with('{') { "  " } else { indent };
    }
    text
}

/// The types of TypeScript, as they follow from those here.
fn declarations() -> String {
    let config = Config::default();
    let all = [
        declaration::<Caller>(&config),
        declaration::<Form>(&config),
        declaration::<TerminalSize>(&config),
        declaration::<MountOptions>(&config),
        declaration::<MountSpec>(&config),
        declaration::<Rootfs>(&config),
        declaration::<Spec>(&config),
        declaration::<EnterSpec>(&config),
    ];
    format!("// Made from crates/core/src/spec by its tests. Not to be edited.\n\n{}", all.join("\n"))
}

/// `NSRS_WRITE_TYPES=1 cargo test -p nsrs-core typescript` writes the file.
#[test]
fn typescript_has_the_types_of_these_structs() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ts/spec.d.ts");
    if std::env::var_os("NSRS_WRITE_TYPES").is_some() {
        std::fs::write(&path, declarations()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(
        written == declarations(),
        "ts/spec.d.ts is out of date: NSRS_WRITE_TYPES=1 cargo test -p nsrs-core typescript"
    );
}
