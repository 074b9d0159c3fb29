#!/usr/bin/env bash
# usage: [ROUNDS=5] [SECONDS_EACH=3] hack/bench.sh [--mesh] [-run GROUP] [FLAG…]
#        hack/bench.sh -go [PACKAGE…]
#
# Measures borrownet beside raw kubectl port-forward on the lab's laptop, in one run: prints
# the table and writes docs/benchmarks/results.json. FLAGs are those of integration/bench.
# Fails, after that, if something was wrong or missing without being counted.
#
#   -run GROUP   measures one group of rows only (up, link, direct, cost, kill, delay, dns, live, mirror, move,
#                containers, many) and writes GROUP.json
#   --mesh       in a lab with Istio; writes results-mesh.json or GROUP-mesh.json
#   -go          runs the Go benchmarks instead, six times each with memory figures, in
#                the format that benchstat reads
set -euo pipefail
case "${1-}" in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
cd "$(dirname "$0")/.."

GO=${GO:-go}
if [ "${1-}" = -go ]; then
  shift
  exec "$GO" test -run '^$' -bench "${BENCH:-.}" -benchmem -count "${COUNT:-6}" "${@:-./...}"
fi

lab=() mesh='' flags=() name=results
while [ $# -gt 0 ]; do
  case $1 in
    --mesh) mesh=$1 lab=(--mesh) ;;
    -run) name=${2-} && flags+=(-run "$name") && shift ;;
    *) flags+=("$1") ;;
  esac
  shift
done
result=$name${mesh:+-mesh}.json
# What the callers of a pod notice is a matter of its node.
case $name in live | mirror) lab+=(--node-first) ;; esac

hack/e2e-build.sh ${mesh:+"$mesh"}
if [ "$name" = containers ]; then
  hack/docker-build.sh
  lab+=(--docker)
fi
mkdir -p docs/benchmarks
rm -f bin/results.json
status=0
commit=$(git describe --always --dirty 2>/dev/null || echo unknown)
# The laptop's user cannot write into the checkout: the results come back on standard output.
# shellcheck disable=SC2016
hack/lab-run.sh --fresh "${lab[@]}" sh -c 'rm -f /tmp/results.json; "$@" -o /tmp/results.json; s=$?; echo "== results"; cat /tmp/results.json; exit "$s"' \
  bench "$PWD/bin/bench" -rounds "${ROUNDS:-5}" -seconds "${SECONDS_EACH:-3}" -commit "$commit" "${flags[@]}" |
  awk '/^== results$/ { on = 1; next } on { print > "bin/results.json"; next } { print; fflush() }' || status=$?
[ -s bin/results.json ] || exit 1 # it has said why
mv bin/results.json "docs/benchmarks/$result"
bin/bench overview docs/benchmarks
echo "docs/benchmarks/$result is written, and README.md with charts beside it"
# The pages that show its table.
{ grep -lF "<!-- begin: $result -->" docs/*.md || true; } | while read -r page; do
  bin/bench page "docs/benchmarks/$result" "$page"
  echo "$page is up to date"
done
exit "$status"
