#!/usr/bin/env bash
# usage: hack/soak.sh
#
# What takes too long for the tests, an hour in all: the full storm of sockets; a tunnel
# full both ways for ten minutes; twenty minutes of flows under killed carriers, with a
# report of leaks; 10 000 mirrored connections; and in the lab a token that the kubelet
# renews, twenty sessions, a silent node, a node of two that is lost. Needs what the lab needs.
set -euo pipefail
case "${1-}" in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
cd "$(dirname "$0")/.."

GO=${GO:-go}
export BORROWNET_SOAK=1
"$GO" test ./hook/supervisor -count=1 -timeout 30m -v -run TestSocketStorm
CGO_ENABLED=1 "$GO" test -race ./netstack/wg -count=1 -timeout 30m -v -run TestSaturatedBothWays
"$GO" test ./netstack/wg -count=1 -timeout 40m -v -run TestSoakTunnel
"$GO" test ./cmd/internal/demo -count=1 -timeout 10m -v -run '^TestMirrorShortConnections$'
hack/e2e-build.sh
hack/lab-run.sh --fresh bin/integration.test -test.v -test.timeout 20m -test.run ^TestSoak
hack/lab-run.sh --fresh --nodes 2 bin/integration.test -test.v -test.timeout 20m -test.run ^TestNodes
