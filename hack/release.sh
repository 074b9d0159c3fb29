#!/usr/bin/env bash
# usage: [VERSION=v1.2.3] [ARCHES="amd64 arm64"] hack/release.sh [OUT]
#
# Builds what a release has into OUT (default bin/release): archives and, for Linux, Debian packages of the
# client with its manual pages, completions and AppArmor profile, the agent's images, a software bill of
# materials for each program, manifests for krew and Homebrew, and SHA256SUMS of it all. The same commit and
# version give the same bytes, in whatever directory: hack/release-check.sh tries that. The clients for macOS
# (darwin) are compiled; nobody has tried them.
#
# Needs Go, dpkg-deb, and a C compiler for each architecture for the preload library (CC_arm64, default
# aarch64-linux-gnu-gcc); without one that architecture's client lacks the rungs that need it, and this says so.
set -euo pipefail
case "${1-}" in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
cd "$(dirname "$0")/.."

GO=${GO:-go}
out=${1:-bin/release}
read -r -a arches <<<"${ARCHES:-amd64 arm64}"
version=${VERSION:-$(git describe --tags --always --dirty 2>/dev/null || echo devel)}
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH=$epoch LC_ALL=C TZ=UTC CGO_ENABLED=0
url=https://github.com/borrownet/borrownet/releases/download/$version
number=${version#v} # Debian's and Homebrew's versions begin with a digit
case "$number" in [0-9]*) ;; *) number=0.0.0+$number ;; esac

command -v dpkg-deb >/dev/null || { echo "error: dpkg-deb is not installed" >&2; echo "hint: apt-get install dpkg" >&2; exit 1; }
umask 022
rm -rf "$out"
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d)
# What the checkout embeds is built for each architecture in its place, and put back.
mkdir "$work/lib"
cp -p hook/lib/* "$work/lib/" 2>/dev/null || true
restore() { rm -f hook/lib/*; cp -p "$work"/lib/* hook/lib/ 2>/dev/null || true; rm -rf "$work"; }
trap restore EXIT

build() { # build OS ARCH PROGRAM OUTPUT
  GOOS=$1 GOARCH=$2 "$GO" build -buildvcs=false -trimpath -gcflags=all=-dwarf=false -ldflags "-s -w -X main.version=$version" -o "$4" "./cmd/$3"
}

# preload ARCH: the library that the client of that architecture embeds.
preload() {
  local cc=${CC:-cc}
  rm -f hook/lib/*
  [ "$1" = "$("$GO" env GOHOSTARCH)" ] || cc=${CC_arm64:-aarch64-linux-gnu-gcc}
  if ! echo '#include <errno.h>' | "$cc" -E - >/dev/null 2>&1; then
    echo "release: no $cc with the headers of a C library: the client for $1 is without the rungs preload, preload-relay and netns" >&2
  else
    make --no-print-directory -s -C hook/preload CC="$cc"
  fi
}

# archive DIRECTORY FILE: a tar of what is in the directory, the same every time.
archive() {
  tar -C "$1" --sort=name --mtime="@$epoch" --owner=0 --group=0 --numeric-owner --format=posix \
    --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime -cf - . | gzip -9n >"$2"
}

# docs DIRECTORY: manual pages and completions, by the program of this machine.
docs() {
  local bn=$work/host/borrownet shell
  mkdir -p "$1/man" "$1/completions" "$work/host"
  [ -x "$bn" ] || build linux "$("$GO" env GOHOSTARCH)" borrownet "$bn"
  "$bn" __tree | CGO_ENABLED=0 "$GO" run ./hack/mkman -version "$version" -date "$(date -u -d "@$epoch" +%F)" -o "$1/man"
  gzip -9n "$1"/man/*.1
  for shell in bash zsh fish; do "$bn" completion "$shell" >"$1/completions/borrownet.$shell"; done
}

# sbom PROGRAM FILE: what the program is made of, read from itself.
sbom() { "$GO" run ./hack/mksbom -version "$version" -o "$2" "$1"; }

# package ARCH TREE: the Debian package of what archives have in TREE.
package() {
  local root=$work/deb-$1 size
  mkdir -p "$root"/DEBIAN "$root"/usr/{bin,lib/borrownet,share/man/man1,share/doc/borrownet,share/zsh/vendor-completions,share/fish/vendor_completions.d} \
    "$root"/usr/share/bash-completion/completions "$root"/etc/apparmor.d
  # The agents are looked for beside the client itself, so all are in one directory.
  cp "$2"/bin/* "$root/usr/lib/borrownet/"
  for name in borrownet kubectl-borrownet kubectl_complete-borrownet; do ln -s ../lib/borrownet/borrownet "$root/usr/bin/$name"; done
  cp "$2"/man/* "$root/usr/share/man/man1/"
  cp "$2/completions/borrownet.bash" "$root/usr/share/bash-completion/completions/borrownet"
  cp "$2/completions/borrownet.zsh" "$root/usr/share/zsh/vendor-completions/_borrownet"
  cp "$2/completions/borrownet.fish" "$root/usr/share/fish/vendor_completions.d/borrownet.fish"
  cp LICENSE "$root/usr/share/doc/borrownet/copyright"
  cp hack/debian/apparmor "$root/etc/apparmor.d/borrownet"
  cp hack/debian/{postinst,prerm,conffiles} "$root/DEBIAN/"
  chmod 0755 "$root"/DEBIAN/{postinst,prerm}
  size=$(du -sk --apparent-size "$root/usr" | cut -f1)
  sed -e "s/@VERSION@/$number/" -e "s/@ARCH@/$1/" -e "s/@SIZE@/$size/" hack/debian/control >"$root/DEBIAN/control"
  find "$root" -exec touch -h -d "@$epoch" {} +
  dpkg-deb --root-owner-group -Zgzip -z9 --build "$root" "$out/borrownet_${number}_$1.deb" >/dev/null
}

docs "$work/docs"
for arch in "${arches[@]}"; do mkdir -p "$work/agents"; build linux "$arch" borrownet-agent "$work/agents/borrownet-agent-linux-$arch"; done

# client OS ARCH: its archive and bill of materials, of what is in $work/tree-OS-ARCH then.
client() {
  local tree=$work/tree-$1-$2 name=borrownet_${version}_$1_$2
  mkdir -p "$tree/bin"
  build "$1" "$2" borrownet "$tree/bin/borrownet"
  cp "$work"/agents/* "$tree/bin/"
  cp -r "$work/docs/man" "$work/docs/completions" "$tree/"
  cp LICENSE README.md "$tree/"
  archive "$tree" "$out/$name.tar.gz"
  sbom "$tree/bin/borrownet" "$out/$name.cdx.json"
}

rm -f hook/lib/* # the preload library is for Linux
for arch in "${arches[@]}"; do client darwin "$arch"; done
for arch in "${arches[@]}"; do
  preload "$arch"
  client linux "$arch"
  package "$arch" "$work/tree-linux-$arch"
  sbom "$work/agents/borrownet-agent-linux-$arch" "$out/borrownet-agent_${version}_linux_$arch.cdx.json"
  "$GO" run ./hack/mkimage -ref "borrownet-agent:$number" -arch "$arch" -user 65532:65532 -o "$out/borrownet-agent_${version}_linux_$arch.oci.tar" \
    -file "$work/agents/borrownet-agent-linux-$arch:/borrownet-agent:0755" -entrypoint /borrownet-agent >"$out/borrownet-agent_${version}_linux_$arch.ref"
done

sum() { sha256sum "$out/$1" | cut -d' ' -f1; }
{
  cat hack/krew.yaml.in
  for os in linux darwin; do
    for arch in "${arches[@]}"; do
      file=borrownet_${version}_${os}_$arch.tar.gz
      printf '  - selector:\n      matchLabels: {os: %s, arch: %s}\n    uri: %s\n    sha256: %s\n    bin: bin/borrownet\n' "$os" "$arch" "$url/$file" "$(sum "$file")"
    done
  done
} | sed "s/@VERSION@/$version/" >"$out/borrownet.krew.yaml"
{
  cat hack/brew.rb.in
  for os in linux darwin; do
    printf '\n  on_%s do\n' "${os/darwin/macos}"
    for arch in "${arches[@]}"; do
      file=borrownet_${version}_${os}_$arch.tar.gz
      on=$([ "$arch" = arm64 ] && echo on_arm || echo on_intel)
      printf '    %s do\n      url "%s"\n      sha256 "%s"\n    end\n' "$on" "$url/$file" "$(sum "$file")"
    done
    echo '  end'
  done
  cat hack/brew-end.rb.in
} | sed "s/@VERSION@/$number/" >"$out/borrownet.rb"
(cd "$out" && sha256sum -- * >"$work/SHA256SUMS" && mv "$work/SHA256SUMS" .)
ls -l "$out" | awk 'NR > 1 { printf "%9d  %s\n", $5, $NF }'
