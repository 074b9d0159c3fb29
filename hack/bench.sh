#!/usr/bin/env bash
# usage: [ROUNDS=5] [SECONDS_EACH=3] hack/bench.sh
#        hack/bench.sh -go [PACKAGE…]
#
# Measures borrownet beside raw kubectl port-forward on the lab's laptop, in one run: prints
# the table and writes docs/benchmarks/results.json. -go runs the Go benchmarks instead,
# six times each with memory figures, in the format that benchstat reads.
set -euo pipefail
case "${1-}" in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
cd "$(dirname "$0")/.."

GO=${GO:-go}
if [ "${1-}" = -go ]; then
  shift
  exec "$GO" test -run '^$' -bench "${BENCH:-.}" -benchmem -count "${COUNT:-6}" "${@:-./...}"
fi

hack/e2e-build.sh
mkdir -p docs/benchmarks
commit=$(git describe --always --dirty 2>/dev/null || echo unknown)
# The laptop's user cannot write into the checkout: the results come back on standard output.
# shellcheck disable=SC2016
hack/lab-run.sh --fresh sh -c '"$1" -rounds "$2" -seconds "$3" -commit "$4" -o /tmp/results.json && echo "== results" && cat /tmp/results.json' \
  bench "$PWD/bin/bench" "${ROUNDS:-5}" "${SECONDS_EACH:-3}" "$commit" |
  awk '/^== results$/ { on = 1; next } on { print > "bin/results.json"; next } { print; fflush() }'
mv bin/results.json docs/benchmarks/results.json
