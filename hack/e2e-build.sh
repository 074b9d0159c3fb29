#!/usr/bin/env bash
# usage: hack/e2e-build.sh [--mesh] [--flux]
#
# Builds what runs in the lab: borrownet, the agent's image, the image of an agent that
# attacks its client, the end-to-end tests, the sample app that calls, the clients of
# clouds and what stands in for the clouds, and the bench, all into bin/. With --mesh and --flux the lab has Istio and Flux too.
set -euo pipefail
case "${1-}" in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
cd "$(dirname "$0")/.."

GO=${GO:-go}
export CGO_ENABLED=0
hack/lab-build.sh "$@"
make --no-print-directory build
make --no-print-directory agent-image REF=lab.local/borrownet-agent:1
$GO build -trimpath -gcflags=all=-dwarf=false -ldflags '-s -w' -o bin/image/hostile-agent ./integration/hostile
$GO run ./hack/mkimage -ref lab.local/hostile-agent:1 -arch "$($GO env GOARCH)" -user 65532:65532 -o bin/hostile-agent-image.tar \
  -file bin/image/hostile-agent:/borrownet-agent:0755 -entrypoint /borrownet-agent
$GO test -c -tags lab -o bin/integration.test ./integration
$GO build -o bin/caller ./integration/apps/caller
$GO build -o bin/bench ./integration/bench
hack/cloud-build.sh
# Resolvers of other C libraries, where there are compilers for them.
$GO build -o bin/resolve-go ./integration/apps/resolve
if command -v cc >/dev/null; then
  CGO_ENABLED=1 $GO build -o bin/resolve-cgo ./integration/apps/resolve
  cc -o bin/resolve-glibc integration/apps/resolve/libc/resolve.c -lresolv
fi
if command -v musl-gcc >/dev/null; then musl-gcc -static -o bin/resolve-musl integration/apps/resolve/libc/resolve.c; fi
