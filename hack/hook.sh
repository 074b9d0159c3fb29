#!/usr/bin/env bash
# usage: hack/hook.sh
#
# Compiles the preload library (hook/preload) into hook/lib, where go build embeds it. Without a
# C compiler it says so and changes nothing: borrownet is built without the rungs that need it,
# unless BORROWNET_REQUIRE=all.
set -euo pipefail
case "${1-}" in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
cd "$(dirname "$0")/.."

if ! command -v "${CC:-cc}" >/dev/null; then
  echo "hook: no C compiler, so without the rungs preload, preload-relay and netns (make setup installs one)" >&2
  [ "${BORROWNET_REQUIRE-}" != all ]
  exit
fi
exec make --no-print-directory -s -C hook/preload CC="${CC:-cc}"
