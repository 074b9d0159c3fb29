#!/usr/bin/env bash
# usage: hack/demo.sh [--keep] [-v]
#
# Builds borrownet and runs `borrownet demo` with these arguments. Needs git, Go and bash:
# no root, no cluster, no C compiler, and no network once the modules are there. Says at the
# end how long building and the demo took. Runs through hack/scratch.sh, so neither HOME nor
# the checkout need be writable.
set -euo pipefail
case "${1-}" in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
cd "$(dirname "$0")/.."

[ -n "${BORROWNET_OUT-}" ] || exec hack/scratch.sh hack/demo.sh "$@"
out=$BORROWNET_OUT

# seconds FROM TO: the difference of two $EPOCHREALTIME, in tenths.
seconds() { local us=$((${2/[.,]/} - ${1/[.,]/})); echo "$((us / 1000000)).$((us / 100000 % 10)) s"; }

version=${VERSION:-$(git describe --tags --always --dirty 2>/dev/null || echo devel)}
started=$EPOCHREALTIME
# The demo is the same without it, but for machines that allow nothing else.
if [ -w hook/lib ]; then hack/hook.sh 2>/dev/null || true; fi
# A compiler ends soon: to collect its garbage less often saves a tenth of the time.
GOGC=${GOGC:-400} GOMEMLIMIT=${GOMEMLIMIT:-512MiB} CGO_ENABLED=0 \
  "${GO:-go}" build -buildvcs=false -trimpath -gcflags=all=-dwarf=false -ldflags "-s -w -X main.version=$version" -o "$out/borrownet" ./cmd/borrownet
built=$EPOCHREALTIME
code=0
"$out/borrownet" demo "$@" || code=$?
ended=$EPOCHREALTIME
printf '\nbuild: %s, demo: %s\n' "$(seconds "$started" "$built")" "$(seconds "$built" "$ended")" >&2
exit "$code"
