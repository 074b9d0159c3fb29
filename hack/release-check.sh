#!/usr/bin/env bash
# usage: [ARCHES=amd64] [SHARED_CACHE=1] hack/release-check.sh
#
# Builds a release of HEAD twice, from clean clones in directories of different names, each with a build cache
# of its own (SHARED_CACHE=1: with the user's, which is quick and tries less), and fails where they differ.
set -euo pipefail
case "${1-}" in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
root=$(cd "$(dirname "$0")/.." && pwd)

commit=$(git -C "$root" rev-parse HEAD) # the branch may move meanwhile
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
for n in one another; do
  git clone -q --no-hardlinks "$root" "$work/$n/borrownet"
  git -C "$work/$n/borrownet" checkout -q --detach "$commit"
  (
    cd "$work/$n/borrownet"
    [ -n "${SHARED_CACHE-}" ] || export GOCACHE="$work/$n/cache"
    VERSION=${VERSION:-v0.0.0-check} hack/release.sh "$work/$n/out" >/dev/null
  )
done
if diff -r "$work/one/out" "$work/another/out"; then
  echo "release-check: $(wc -l <"$work/one/out/SHA256SUMS") files, the same bytes twice"
  exit 0
fi
echo "error: a release is not the same when it is built again" >&2
exit 1
