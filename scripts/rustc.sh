#!/bin/sh
# Cargo runs this for the crates of the workspace (RUSTC_WORKSPACE_WRAPPER) as `rustc.sh rustc ARGS…`. Our executables are
# linked with the C library in them, so that they run in any root; the addon can't be where that is glibc. As a flag of
# Cargo's it would be one for both, or two builds of everything.
case " $* " in
  *' --crate-name nsrs_'*' --crate-type bin '*) set -- "$@" -C target-feature=+crt-static ;;
esac
exec "$@"
