#!/usr/bin/env bash
# usage: hack/docs-cli.sh
#
# Writes docs/cli/*.md, one page per command, from the help texts of bin/borrownet.
set -euo pipefail
case "${1-}" in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
cd "$(dirname "$0")/.."

bn=bin/borrownet
page() { # page NAME ARGUMENT…: the program's answer as docs/cli/NAME.md
  { printf '# %s\n\n```\n' "$1"; "$bn" "${@:2}"; printf '```\n'; } >"docs/cli/$1.md"
}

mkdir -p docs/cli
rm -f docs/cli/*.md
mapfile -t commands < <("$bn" --help | awk '/^commands:$/ { on = 1; next } /^[a-z]/ { on = 0 } on && NF { print $1 }' | grep -vx help)
commands+=("explain dns")
mapfile -t commands < <(printf '%s\n' "${commands[@]}" | sort)
# shellcheck disable=SC2086 # a command of two words is two arguments
for c in "${commands[@]}"; do page "borrownet-${c// /-}" $c --help; done
page exit-codes help exit-codes
page errors help errors
page variables help variables
page borrownet --help
{
  printf '# Commands\n\nWritten by `make docs` from what the program says.\n\n'
  printf -- '- [borrownet](borrownet.md)\n'
  for c in "${commands[@]}"; do printf -- '- [borrownet %s](borrownet-%s.md)\n' "$c" "${c// /-}"; done
  printf -- '- [exit codes](exit-codes.md), [errors](errors.md), [variables](variables.md)\n'
} >docs/cli/README.md
