#!/usr/bin/env bash
# usage: hack/test.sh [-tiers fast,race,hook,lab,mesh,docker,bench] [-list] [-v]
#
# Runs the test tiers in order, fast ones first, with one summary line each.
# The last line is always "N passed, N failed, N skipped", also when interrupted.
# Runs through hack/scratch.sh, so neither HOME nor the checkout need be writable.
#
#   BORROWNET_REQUIRE=all       whatever is skipped or left out is a failure (CI)
#   BORROWNET_REQUIRE=lab,hook  the same for these tiers only
#   BORROWNET_TEST_LOGS=DIR     where the raw `go test -json` goes (default bin/test-logs)
set -euo pipefail
case "${1-}" in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
cd "$(dirname "$0")/.."

[ -n "${BORROWNET_OUT-}" ] || exec hack/scratch.sh hack/test.sh "$@"

BORROWNET_REQUIRE="" hack/hook.sh # what cannot run without it is skipped, and that is what may be required
${GO:-go} build -o "$BORROWNET_OUT/tiers" ./hack/tiers
# exec, so that a signal to this process reaches the runner and the summary is printed.
exec "$BORROWNET_OUT/tiers" "$@"
