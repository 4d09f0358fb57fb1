#!/bin/bash
# Cargo runs this for the crates of the workspace (RUSTC_WORKSPACE_WRAPPER) as `clippy.sh rustc ARGS…`. Clippy's driver is a
# whole compiler: what it has linted, the tests need not compile once more. Not in sh, which drops a variable whose name has a
# hyphen (CARGO_BIN_EXE_nsrs-image).
exec clippy-driver "$@" -D warnings
