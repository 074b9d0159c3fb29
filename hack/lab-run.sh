#!/usr/bin/env bash
# usage: hack/lab-run.sh [--fresh] [--mesh] [--flux] [--docker] [--no-tun] [--node-first] [--nodes 2] [--image FILE]… [--] COMMAND…
#        CMD='shell command' hack/lab-run.sh [FLAG]…
#
# Runs a command on the laptop of the lab, as its unprivileged user: in the lab that
# hack/lab-up.sh started, as it is, else in one that is started for it and taken down
# afterwards. With --mesh the latter has Istio, with --flux Flux, with --docker a Docker engine on
# its laptop, with --nodes 2 another node (not with --mesh). The exit code is the command's, 125 if the
# lab itself failed.
set -euo pipefail
case "${1-}" in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
root=$(cd "$(dirname "$0")/.." && pwd)

# What is for the lab and what is the command.
flags=() build=() fresh=''
while [ $# -gt 0 ]; do
  case $1 in
    --) shift && break ;;
    --image | --checkout | --nodes) flags+=("$1" "${2-}") && shift ;;
    --mesh | --flux) build+=("$1") ;;
    --fresh) flags+=("$1") fresh=1 ;;
    -*) flags+=("$1") ;;
    *) break ;;
  esac
  shift
done
if [ $# -eq 0 ]; then
  if [ -z "${CMD-}" ]; then
    echo "lab-run: nothing to run: make lab-run CMD='kubectl get pods'" >&2
    exit 2
  fi
  set -- bash -c "$CMD"
fi
if [ -z "$fresh" ] && "$root/bin/lab" status >/dev/null 2>&1; then
  build=() # nothing has to be compiled for a lab that is up
fi
(cd "$root" && hack/lab-build.sh "${build[@]}")
exec "$root/bin/lab" run --checkout "$root" "${build[@]}" "${flags[@]}" -- "$@"
