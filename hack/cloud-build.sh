#!/usr/bin/env bash
# usage: hack/cloud-build.sh
#
# Builds what the tests of cloud identities run, into bin/: cloud, which asks the real
# libraries of clouds and of Kubernetes who it is, boto3 for Python, and the image of what
# stands in for the clouds. They are a module of their own (integration/lab/cloud), so that
# no cloud's library is in the project's. boto3 comes through pip, with the hashes of
# boto3.txt, and is kept in ${XDG_CACHE_HOME:-~/.cache}/borrownet-lab; without pip it is
# left out, and its test says so.
set -euo pipefail
case "${1-}" in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
cd "$(dirname "$0")/.."

GO=${GO:-go}
module=integration/lab/cloud
cache=${XDG_CACHE_HOME:-$HOME/.cache}/borrownet-lab/build
export CGO_ENABLED=0
mkdir -p bin/image "$cache"
"$GO" build -C $module -trimpath -ldflags '-s -w' -o "$PWD/bin/cloud" ./cmd/cloud
"$GO" build -C $module -trimpath -ldflags '-s -w' -o "$PWD/bin/image/standin" ./cmd/standin
"$GO" run ./hack/mkimage -ref lab.local/standin:1 -arch "$("$GO" env GOARCH)" -user 0:0 -o bin/standin-image.tar \
  -file bin/image/standin:/standin:0755 -entrypoint /standin

wheels=$cache/boto3-$(sha256sum $module/boto3.txt | cut -c1-16)
if [ ! -e "$wheels" ]; then
  if ! python3 -m pip --version >/dev/null 2>&1; then
    echo "cloud-build: no pip, so no boto3: make setup installs it" >&2
    rm -rf bin/boto3
    exit
  fi
  rm -rf "$wheels.new"
  python3 -m pip install --disable-pip-version-check -q --root-user-action ignore --no-deps --require-hashes --only-binary :all: \
    --target "$wheels.new" -r $module/boto3.txt
  mv "$wheels.new" "$wheels"
fi
# The laptop of the lab sees the checkout, not the cache.
if [ "$(cat bin/boto3/.from 2>/dev/null)" != "$wheels" ]; then
  rm -rf bin/boto3
  cp -r "$wheels" bin/boto3
  echo "$wheels" >bin/boto3/.from
fi
