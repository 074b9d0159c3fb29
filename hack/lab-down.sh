#!/usr/bin/env bash
# usage: hack/lab-down.sh
#
# Stops the lab that hack/lab-up.sh started, and removes what killed labs left.
set -euo pipefail
case "${1-}" in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
cd "$(dirname "$0")/.."

[ -x bin/lab ] || hack/lab-build.sh
exec bin/lab down "$@"
