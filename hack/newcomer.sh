#!/usr/bin/env bash
# usage: hack/newcomer.sh [-demo|-test] [PLACE…]
#
# Runs `make demo` and `make test` as those who clone the project, and prints how long they take: in a
# clean clone of the last commit, with the modules there but caches empty, with neither a C compiler nor
# a lab. -demo leaves `make test` out, -test `make demo`. Needs root; all of it takes most of an hour on
# two cores.
#
#   root        root of this machine
#   container   root in a container: Docker's capabilities and its seccomp filter
#   bare        the same without any capability
#   user        an ordinary user without any capability, /dev/net/tun as it is
#   confined    the same under the filter
#
# `make demo` runs cold, warm, and where neither HOME nor the clone can be written to, without a network.
# `make test` runs cold, warm, and with BORROWNET_REQUIRE=all (root: race); the first two must succeed and name
# what they left out, the last one must fail. None may leave a process (which is what keeps a namespace
# here), and the demo no file. PLACE.log has what they said.
set -euo pipefail
case "${1-}" in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
cd "$(dirname "$0")/.."

only=
case "${1-}" in -demo | -test) only=$1; shift ;; esac
[ $# -gt 0 ] || set -- root container bare user confined
[ "$(id -u)" = 0 ] || { echo "error: only root can become others" >&2; echo "hint: sudo $0 $*" >&2; exit 1; }

go=$(command -v "${GO:-go}")
logs=${BORROWNET_TEST_LOGS:-$PWD/bin/test-logs}
mkdir -p "$logs"
base=$(mktemp -d /var/tmp/newcomer.XXXXXX)
trap 'chmod -R u+w "$base"; rm -rf "$base"' EXIT
trap 'exit 130' INT TERM
chmod 755 "$base"
"$go" build -o "$base/confine" ./hack/confine
# The modules as the user has them, in a place that everybody may read.
GOPROXY=file://$("$go" env GOMODCACHE)/cache/download,$("$go" env GOPROXY)
export GOPROXY
GOMODCACHE=$base/mod "$go" mod download
chmod -R a+rX "$base/mod"

# here PLACE: sets what the place means.
here() {
  uid=0 confine=() network=
  case "$1" in
    root) network=1 ;;
    container) confine=("$base/confine" -docker-caps -filter) ;;
    bare) confine=("$base/confine" -filter) ;;
    user) uid=1001 confine=("$base/confine" -user 1001) network=1 ;;
    confined) uid=1001 confine=("$base/confine" -user 1001 -filter) ;;
    *) echo "error: no place is called $1" >&2; exit 2 ;;
  esac
  dir=$base/$1
  log=$logs/newcomer-$1.log
  mkdir "$dir" "$dir/home" "$dir/tmp"
  git clone -q . "$dir/clone"
  : >"$log"
  chown -R "$uid:$uid" "$dir"
  chmod 1777 "$dir/tmp"
}

# run NAME COMMAND…: runs it in the place, as the first process of a pid namespace, sets $code and $took,
# and fails if it leaves a process or a file in /tmp. NET=1 leaves it the machine's network.
run() {
  local name=$1 net=(--net) started
  shift
  [ -z "${NET-}" ] || net=()
  echo "== $name" >>"$log"
  started=$EPOCHREALTIME
  code=0
  unshare --mount --pid --fork --kill-child "${net[@]}" --mount-proc sh -c '
    for cc in cc gcc clang musl-gcc; do
      ! path=$(command -v $cc) || mount --bind /dev/null "$(readlink -f "$path")"
    done
    mount --bind "$1/tmp" /tmp; cd "$1/clone"; [ -z "$2" ] || ip link set lo up; shift 2
    "$@"; code=$?
    # This shell is 1; what else there is was left.
    for p in /proc/[0-9]*; do
      [ "$p" = /proc/1 ] || ! [ -e "$p/exe" ] || { echo "left: $p $(tr "\0" " " <"$p/cmdline")"; code=99; }
    done
    exit $code' sh "$dir" "${net[*]}" \
    "${confine[@]}" env -i PATH="$PATH" HOME="${home:-$dir/home}" XDG_CACHE_HOME="${home:-$dir/home}/.cache" TERM=dumb \
    GOMODCACHE="$base/mod" GOPROXY=off "$@" </dev/null >>"$log" 2>&1 || code=$?
  took=$(((${EPOCHREALTIME/[.,]/} - ${started/[.,]/}) / 100000))
  took=$((took / 10)).$((took % 10))
  echo "== $name: exit code $code, $took s" >>"$log"
}

failed=0
# said WHAT: one line of the table for the last run.
said() { printf '%-10s %-34s %8s s   %s\n' "$place" "$1" "$took" "${2:-ok}"; }
wrong() { said "$1" "FAILED: $2 (see $log)"; failed=1; }

try_demo() {
  local NET="" home="" kept
  for name in cold warm; do
    run "make demo, $name" make demo
    [ "$code" = 0 ] || { wrong "make demo, $name" "exit code $code"; return 0; }
    said "make demo, $name" "$(sed -n 's/^build: /build: /p' "$log" | tail -1)"
  done
  home=/nonexistent
  run "make demo, nothing writable" sh -c 'chmod -R a-w . && make demo'
  if [ "$code" = 0 ]; then said "make demo, nothing writable"; else wrong "make demo, nothing writable" "exit code $code"; fi
  chmod -R u+w "$dir/clone"
  kept=$(find "$dir/tmp" "$dir/home" -mindepth 1 -not -path '*/go-build*' -not -path '*/.config*' -not -path '*/.cache')
  [ -z "$kept" ] || wrong "make demo" "it leaves $kept"
}

try_tests() {
  local NET=$network
  rm -rf "$dir/home/.cache"
  for name in cold warm; do
    run "make test, $name" make test
    if [ "$code" = 0 ]; then said "make test, $name" "$(tail -2 "$log" | head -1)"; else wrong "make test, $name" "exit code $code"; fi
  done
  grep -q '^not proven here' "$log" || wrong "make test" "it does not name what it left out"
  # Of root everything required would be Kubernetes too, which takes long: there only the race detector is.
  local required=all
  [ "$place" != root ] || required=race
  run "make test, $required required" env BORROWNET_REQUIRE=$required make test
  if [ "$code" = 2 ] && grep -q '^required: ' "$log"; then
    said "make test, $required required" "fails, as it must"
  else
    wrong "make test, $required required" "exit code $code"
  fi
}

printf 'on %s cores, load %s\n' "$(nproc)" "$(cut -d' ' -f1-3 /proc/loadavg)"
for place in "$@"; do
  here "$place"
  [ "$only" = -test ] || try_demo
  [ "$only" = -demo ] || try_tests
  chmod -R u+w "$dir"
  rm -rf "$dir"
done
exit $failed
