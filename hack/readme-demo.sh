#!/usr/bin/env bash
# usage: hack/readme-demo.sh [--check]
#
# Writes what `borrownet demo` prints between the markers in README.md. With --check it
# changes nothing and fails if the demo's commands are not those in the README.
set -euo pipefail
case "${1-}" in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
cd "$(dirname "$0")/.."

begin='<!-- begin: hack/readme-demo.sh -->'
end='<!-- end: hack/readme-demo.sh -->'
said=$(mktemp)
new=$(mktemp)
trap 'rm -f "$said" "$new"' EXIT
VERSION=devel hack/demo.sh >"$said" 2>/dev/null

if [ "${1-}" = --check ]; then
  diff <(sed -n "\\|^$begin|,\\|^$end|{/^\\$ borrownet/p}" README.md) <(grep '^\$ borrownet' "$said")
  exit
fi
{
  sed "\\|^$begin|q" README.md
  printf '```console\n$ make demo\n'
  cat "$said"
  printf '```\n'
  sed -n "\\|^$end|,\$p" README.md
} >"$new"
cat "$new" >README.md
