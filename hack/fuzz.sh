#!/usr/bin/env bash
# usage: [FUZZTIME=20s] hack/fuzz.sh [PACKAGE…]
#
# Runs every fuzz target of the given packages (default: all) one after the other.
# A crasher is written to the package's testdata/fuzz: commit it with the fix.
set -euo pipefail
case "${1-}" in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
cd "$(dirname "$0")/.."

GO=${GO:-go}
mapfile -t packages < <($GO list "${@:-./...}")
for package in "${packages[@]}"; do
  for target in $($GO test -list '^Fuzz' "$package" | grep '^Fuzz' || true); do
    echo "== $package $target"
    $GO test -run '^$' -fuzz "^$target\$" -fuzztime "${FUZZTIME:-20s}" "$package"
  done
done
