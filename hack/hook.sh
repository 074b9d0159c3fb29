#!/usr/bin/env bash
# usage: hack/hook.sh
#
# Compiles the preload library (hook/preload) into hook/lib, where go build embeds it. Without a
# C compiler, or where hook/lib cannot be written to, it says so and changes nothing: borrownet is built
# without the rungs that need it, unless BORROWNET_REQUIRE=all.
set -euo pipefail
case "${1-}" in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
cd "$(dirname "$0")/.."

why=
if ! "${CC:-cc}" -fsyntax-only -x c - </dev/null 2>/dev/null; then # a file of that name may be none
  why="no C compiler (make setup installs one)"
elif [ ! -w hook/lib ]; then
  why="hook/lib cannot be written to"
fi
if [ -n "$why" ]; then
  echo "hook: $why, so without the rungs preload, preload-relay and netns" >&2
  [ "${BORROWNET_REQUIRE-}" != all ]
  exit
fi
exec make --no-print-directory -s -C hook/preload CC="${CC:-cc}"
