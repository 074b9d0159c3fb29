#!/usr/bin/env bash
# usage: hack/docs-cli.sh
#
# Writes docs/cli/*.md, one page per command, from the help texts of bin/borrownet.
set -euo pipefail
case "${1-}" in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
cd "$(dirname "$0")/.."

bn=bin/borrownet
commands() { "$bn" --help 2>&1 | awk '/Commands:$/{on=1;next} /^[A-Z]/{on=0} on&&NF{print $1}' | grep -vxE 'help' || true; }
page() { # page COMMAND…
  local name=borrownet${1:+-$1}
  { printf '# %s\n\n```\n' "borrownet${1:+ $1}"; "$bn" "$@" --help 2>&1; printf '```\n'; } >"docs/cli/$name.md"
}
rm -f docs/cli/*.md
page
for c in $(commands); do page "$c"; done
{
  printf '# Commands\n\nGenerated from the help texts by `make docs`.\n\n'
  for c in $(commands); do printf -- '- [borrownet %s](borrownet-%s.md)\n' "$c" "$c"; done
} >docs/cli/README.md
