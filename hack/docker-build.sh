#!/usr/bin/env bash
# usage: hack/docker-build.sh [--packages]
#
# Builds what the docker tier runs, all into bin/: borrownet, a program that runs a
# command beside a Docker engine in namespaces of its own, the tests, the images
# that they start, and Compose v2, which Debian does not have. That is compiled once
# and kept in ${XDG_CACHE_HOME:-~/.cache}/borrownet-lab.
#
# Installs the Debian packages that this needs and this machine lacks, after saying
# which; BORROWNET_NO_APT=1 makes it only say. --packages does only that.
set -euo pipefail
case "${1-}" in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
cd "$(dirname "$0")/.."

GO=${GO:-go}
export CGO_ENABLED=0 PATH=$PATH:/usr/sbin:/sbin
say() { echo "docker-build: $*" >&2; }

needs=(dockerd=docker.io docker-compose=docker-compose busybox=busybox-static musl-gcc=musl-tools iptables=iptables ip=iproute2)
missing=()
for need in "${needs[@]}"; do
  command -v "${need%%=*}" >/dev/null || missing+=("${need#*=}")
done
if [ ${#missing[@]} -gt 0 ]; then
  install=(apt-get install -y --no-install-recommends "${missing[@]}")
  if [ -n "${BORROWNET_NO_APT-}" ] || ! command -v apt-get >/dev/null; then
    say "missing: ${missing[*]}"
    say "on Debian or Ubuntu: sudo ${install[*]}"
    exit 1
  fi
  sudo=()
  [ "$(id -u)" = 0 ] || sudo=(sudo)
  say "installing packages (BORROWNET_NO_APT=1 prevents it): ${install[*]}"
  # The tests run an engine of their own: one that starts now would set this machine's firewall.
  quiet=(env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1)
  "${sudo[@]}" "${quiet[@]}" "${install[@]}" >&2 ||
    { "${sudo[@]}" apt-get update -q >&2 && "${sudo[@]}" "${quiet[@]}" "${install[@]}" >&2; }
fi
[ "${1-}" != --packages ] || exit 0

# compose_v2 FILE
compose_v2() {
  local module=integration/lab/compose package=github.com/docker/compose/v2 cache built
  cache=${XDG_CACHE_HOME:-$HOME/.cache}/borrownet-lab/build
  built=$cache/compose-$({ $GO version && cat $module/go.mod $module/go.sum; } | sha256sum | cut -c1-16)
  if [ ! -e "$built" ]; then
    say "compiling Compose v2, which takes some minutes on two cores"
    mkdir -p "$cache"
    (cd $module && nice -n 10 "$GO" build -trimpath -ldflags "-s -w -X $package/internal.Version=$("$GO" list -m -f '{{.Version}}' $package)" \
      -o "$built.$$" $package/cmd)
    mv "$built.$$" "$built"
  fi
  touch "$built" # in use: lab-build.sh removes what is not
  ln -f "$built" "$1" 2>/dev/null || cp "$built" "$1"
}

make --no-print-directory build
compose_v2 bin/docker-compose
(cd integration/lab && $GO build -trimpath -o ../../bin/engine ./cmd/engine)
$GO build -trimpath -o bin/caller ./integration/apps/caller
$GO test -c -tags docker -trimpath -o bin/containers.test ./integration/containers
musl-gcc -static -o bin/resolve-musl integration/apps/resolve/libc/resolve.c
# Two kinds of images: static programs and nothing else, and a small userland, with a
# resolver of another C library.
arch=$($GO env GOARCH)
$GO run ./hack/mkimage -arch "$arch" -ref lab.local/caller:1 -user 1000:1000 -entrypoint /caller -file bin/caller:/caller \
  -file bin/borrownet:/borrownet -o bin/caller-image.tar >/dev/null
$GO run ./hack/mkimage -arch "$arch" -ref lab.local/busybox:1 -entrypoint /bin/busybox -file "$(command -v busybox):/bin/busybox" \
  -file bin/caller:/bin/caller -file bin/resolve-musl:/bin/resolve-musl -env PATH=/bin -dir /tmp:1777 -o bin/busybox-image.tar >/dev/null
