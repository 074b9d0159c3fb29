#!/usr/bin/env bash
# usage: hack/demo.sh [--keep] [-v]
#
# Builds borrownet and runs `borrownet demo` with these arguments. Needs git, Go and bash:
# no root, no cluster, no C compiler, and no network once the modules are there. Says at the
# end how long building and the demo took.
#
# Where HOME or the checkout cannot be written to, Go's caches and the program go elsewhere:
#   bin/.cache of the checkout for the caches, and if that cannot be either, a temporary directory,
#   which is removed at the end.
set -euo pipefail
case "${1-}" in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
cd "$(dirname "$0")/.."

go=${GO:-go}
command -v "$go" >/dev/null || { echo "error: $go is not installed" >&2; echo "hint: https://go.dev/dl, or the package golang of your distribution" >&2; exit 1; }

# usable DIR: it is there or can be made, and can be written to.
usable() { [ -n "$1" ] && mkdir -p "$1" 2>/dev/null && [ -w "$1" ]; }

out=$PWD/bin
if ! usable "$out"; then
  out=$(mktemp -d)
  trap 'chmod -R u+w "$out"; rm -rf "$out"' EXIT
fi
if ! usable "$("$go" env GOCACHE 2>/dev/null || true)"; then
  export GOCACHE=$out/.cache/build
fi
# Modules that are there need not be writable.
modules=$("$go" env GOMODCACHE 2>/dev/null || true)
if [ ! -r "$modules/cache/download" ] && ! usable "$modules"; then
  export GOMODCACHE=$out/.cache/mod GOFLAGS="${GOFLAGS-} -modcacherw"
fi

# seconds FROM TO: the difference of two $EPOCHREALTIME, in tenths.
seconds() { local us=$((${2/[.,]/} - ${1/[.,]/})); echo "$((us / 1000000)).$((us / 100000 % 10)) s"; }

version=${VERSION:-$(git describe --tags --always --dirty 2>/dev/null || echo devel)}
started=$EPOCHREALTIME
# The demo is the same without it, but for machines that allow nothing else.
if [ -w hook/lib ]; then hack/hook.sh 2>/dev/null || true; fi
CGO_ENABLED=0 "$go" build -buildvcs=false -trimpath -ldflags "-s -w -X main.version=$version" -o "$out/borrownet" ./cmd/borrownet
built=$EPOCHREALTIME
code=0
"$out/borrownet" demo "$@" || code=$?
ended=$EPOCHREALTIME
printf '\nbuild: %s, demo: %s\n' "$(seconds "$started" "$built")" "$(seconds "$built" "$ended")" >&2
exit "$code"
