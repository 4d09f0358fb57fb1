#!/bin/bash
# A container on the host's own tree, and one on a BusyBox root.
set -euo pipefail
cd "$(dirname "$0")/.."
nsrs=dist/cli.cjs
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"

show() {
  printf '\n\033[1m$ nsrs %s\033[0m\n' "$*"
  "$nsrs" "$@"
}

show run -- sh -c 'echo "PID $$ on the tree of $(. /etc/os-release; echo "$PRETTY_NAME")"; touch /usr/written && ls /usr/written'
ls /usr/written 2>/dev/null || echo '(on the host there is no /usr/written)'

mkdir -p "$root"/{bin,etc,proc,sys,dev,tmp}
cp /bin/busybox "$root/bin/"
for applet in sh ls id hostname ps ip; do ln -s busybox "$root/bin/$applet"; done
show run --rootfs "$root" -h box -- sh -c 'hostname; id -u; ps; ls /; ip addr'
