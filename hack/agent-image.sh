#!/usr/bin/env bash
# usage: [REF=registry.example.org/borrownet-agent:1] hack/agent-image.sh [ARCH]
#
# Writes bin/borrownet-agent-image.tar: an OCI image with the agent and its capture helper, two static
# binaries, and nothing else, readable by `skopeo copy`, `crane push`, `docker load` and `ctr images import`.
# The same source and REF give the same bytes. ARCH is a Go architecture (default: this machine's).
set -euo pipefail
case "${1-}" in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
cd "$(dirname "$0")/.."

GO=${GO:-go}
arch=${1:-$($GO env GOARCH)}
ref=${REF:-lab.local/borrownet-agent:1}
version=${VERSION:-$(git describe --tags --always --dirty 2>/dev/null || echo devel)}

mkdir -p bin/image
CGO_ENABLED=0 GOOS=linux GOARCH=$arch $GO build -buildvcs=false -trimpath -gcflags=all=-dwarf=false \
  -ldflags "-s -w -X main.version=$version" -o bin/image/ ./cmd/borrownet-agent ./cmd/borrownet-capture
$GO run ./hack/mkimage -ref "$ref" -arch "$arch" -user 65532:65532 -o bin/borrownet-agent-image.tar \
  -file bin/image/borrownet-agent:/borrownet-agent:0755 -entrypoint /borrownet-agent \
  -file bin/image/borrownet-capture:/borrownet-capture:0755 -net-raw /borrownet-capture
