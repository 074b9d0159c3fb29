#!/usr/bin/env bash
# usage: hack/lab-up.sh [--mesh] [--flux] [--nodes 2] [--image FILE]…
#
# Builds the lab if need be, starts it and leaves it running. Prints how to enter its laptop.
set -euo pipefail
case "${1-}" in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
cd "$(dirname "$0")/.."

build=()
for arg; do
  case $arg in --mesh | --flux) build+=("$arg") ;; esac
done
hack/lab-build.sh "${build[@]}"
exec bin/lab up "$@"
