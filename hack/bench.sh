#!/usr/bin/env bash
# usage: [BENCH=regexp] [COUNT=6] hack/bench.sh [PACKAGE…]
#
# Runs the Go benchmarks of the given packages (default: all) with memory figures,
# in the format benchstat reads.
set -euo pipefail
case "${1-}" in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
cd "$(dirname "$0")/.."

exec "${GO:-go}" test -run '^$' -bench "${BENCH:-.}" -benchmem -count "${COUNT:-6}" "${@:-./...}"
