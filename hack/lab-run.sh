#!/usr/bin/env bash
# usage: hack/lab-run.sh [--fresh] [--no-tun] [--image FILE]… [--] COMMAND…
#        CMD='shell command' hack/lab-run.sh
#
# Runs a command on the laptop of the lab, as its unprivileged user: in the lab that
# hack/lab-up.sh started, else in one that is started for it and taken down afterwards.
# The exit code is the command's, 125 if the lab itself failed.
set -euo pipefail
case "${1-}" in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
root=$(cd "$(dirname "$0")/.." && pwd)

(cd "$root" && hack/lab-build.sh)
if [ $# -eq 0 ]; then
  if [ -z "${CMD-}" ]; then
    echo "lab-run: nothing to run: make lab-run CMD='kubectl get pods'" >&2
    exit 2
  fi
  set -- bash -c "$CMD"
fi
exec "$root/bin/lab" run --checkout "$root" "$@"
