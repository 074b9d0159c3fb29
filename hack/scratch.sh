#!/usr/bin/env bash
# usage: hack/scratch.sh COMMAND…
#
# Runs a command of this project where HOME or the checkout may not be writable: Go's caches and what is
# built ($BORROWNET_OUT, which it sets) then go elsewhere, namely to bin/.cache of the checkout, and if that
# cannot be, to a temporary directory, which is removed at the end.
set -euo pipefail
case "${1-}" in -h | --help | "") sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
root=$(cd "$(dirname "$0")/.." && pwd)

go=${GO:-go}
command -v "$go" >/dev/null || { echo "error: $go is not installed" >&2; echo "hint: https://go.dev/dl, or the package golang of your distribution" >&2; exit 1; }

# usable DIR: it is there or can be made, and can be written to.
usable() { [ -n "$1" ] && mkdir -p "$1" 2>/dev/null && [ -w "$1" ]; }

out=$root/bin temporary=
if ! usable "$out"; then
  temporary=$(mktemp -d)
  out=$temporary
fi
export BORROWNET_OUT=$out
if ! usable "$("$go" env GOCACHE 2>/dev/null || true)"; then
  export GOCACHE=$out/.cache/build
fi
# Modules that are there need not be writable.
modules=$("$go" env GOMODCACHE 2>/dev/null || true)
if [ ! -r "$modules/cache/download" ] && ! usable "$modules"; then
  export GOMODCACHE=$out/.cache/mod GOFLAGS="${GOFLAGS-} -modcacherw"
fi
[ -n "$temporary" ] || exec "$@" # so that signals reach it
trap 'chmod -R u+w "$temporary"; rm -rf "$temporary"' EXIT
"$@"
