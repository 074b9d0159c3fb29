#!/usr/bin/env bash
# usage: hack/docker-run.sh [-uid UID] [--] COMMAND…
#
# Runs a command beside a Docker engine of its own, Debian's, in namespaces of its own:
# nothing of it is on this machine but while the command runs, and this machine's own
# engine is not touched. With -uid the command is that user's. Needs root.
set -euo pipefail
case "${1-}" in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
root=$(cd "$(dirname "$0")/.." && pwd)
exec "$root/bin/engine" "$@"
