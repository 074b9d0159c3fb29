#!/usr/bin/env bash
# usage: hack/tour.sh [OUT]
#
# Types what README.md has a new user do, from the clone to the first borrowed call and a bit further, in
# directories of its own, and writes what was typed and printed to OUT (default docs/tour.md). It uses the
# built-in cluster: no root, no cluster, no network once the modules are there. It fails where a command does.
set -euo pipefail
case "${1-}" in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
root=$(cd "$(dirname "$0")/.." && pwd)
out=$(realpath -m "${1:-$root/docs/tour.md}")

work=$(mktemp -d)
demo=
leave() { [ -z "$demo" ] || { kill "$demo" 2>/dev/null && wait "$demo" || true; }; chmod -R u+w "$work"; rm -rf "$work"; }
trap leave EXIT
GOMODCACHE=$(go env GOMODCACHE) GOCACHE=$(go env GOCACHE)
export GOMODCACHE GOCACHE XDG_RUNTIME_DIR=$work/run HOME=$work/home KUBECONFIG=
mkdir -m 700 "$XDG_RUNTIME_DIR" "$HOME"
unset BORROWNET_AGENT_IMAGE MAKEFLAGS MFLAGS VERSION GOFLAGS

text=$work/tour.md
say() { printf '%s\n' "$*" >>"$text"; }
# type COMMAND: runs it and writes it down; WANT=N is the exit code that it must have.
type() {
  local code=0
  say "\$ $1"
  bash -c "$1" >"$work/said" 2>&1 || code=$?
  # What is this machine's and this moment's own does not belong into a document.
  sed -e "s|$work/home|~|g; s|$work/run|/run/user/1000|g; s|$work|~|g; s/\x1b\[[0-9;]*m//g" "$work/said" >>"$text"
  [ ! -s "$work/said" ] || say ""
  [ "$code" = "${WANT:-0}" ] || { cat "$work/said" >&2; echo "error: $1: exit code $code" >&2; exit 1; }
}
begin() { say '```console'; }
end() { sed -i '${/^$/d}' "$text"; say '```'; say ''; }

say "# A tour"
say ""
say "What a new user types, from the clone to the first borrowed call, and what it prints. Written by \`make tour\`, which types"
say "it all; the cluster is the one that is built in, so nothing else is needed."
say ""
say "## Get it"
say ""
cd "$work"
begin
WANT=0 type "git clone -q file://$root borrownet"
sed -i "s|file://$root|https://github.com/borrownet/borrownet|" "$text"
say '$ cd borrownet'
cd borrownet
type "make build"
export PATH=$PWD/bin:$PATH
type 'export PATH=$PWD/bin:$PATH'
type "borrownet version"
end
say "## Something to borrow"
say ""
say "The demo stays up in a terminal of its own; with your own cluster leave it and \`--context demo\` out."
say ""
begin
say '$ borrownet demo --keep'
borrownet demo --keep >"$work/demo" 2>&1 &
demo=$!
for _ in $(seq 600); do
  grep -q 'it stays up' "$work/demo" && break
  kill -0 "$demo" 2>/dev/null || { cat "$work/demo" >&2; exit 1; }
  read -rt 0.1 <> <(:) || true
done
grep -q 'it stays up' "$work/demo"
borrownet down --stop-agent >/dev/null 2>&1
for _ in $(seq 50); do borrownet ls --context demo 2>/dev/null | grep -q parked || break; read -rt 0.1 <> <(:) || true; done
grep 'it stays up' "$work/demo" >>"$text"
say ""
type "borrownet ls --context demo"
end
say "## The first borrowed call"
say ""
begin
WANT=1 type "borrownet demo call http://orders"
type "borrownet up --pod deploy/api --context demo -d"
type "borrownet run -- borrownet demo call http://orders"
end
say "\`orders\` saw the pod's address, 192.0.2.10. Any program does in place of \`borrownet demo call\`, which needs nothing of the machine:"
say "\`curl\`, your server, a test."
say ""
say "## What there is, and why"
say ""
begin
type "borrownet status"
type "borrownet ls --context demo"
type "borrownet explain dns orders"
type "borrownet explain"
end
say "## What cannot be wrapped"
say ""
begin
say '$ borrownet forward 0:orders:80 --socks5 0 &'
borrownet forward 0:orders:80 --socks5 0 >"$work/forward" 2>&1 &
forward=$!
for _ in $(seq 300); do grep -q 'Ctrl-C' "$work/forward" && break; read -rt 0.1 <> <(:) || true; done
cat "$work/forward" >>"$text"
say ""
at=$(grep -om1 '^127.0.0.1:[0-9]*' "$work/forward") # the port is free, not chosen
type "borrownet demo call http://$at/by/a/forward"
kill -INT "$forward" && wait "$forward"
end
say "## When something is wrong"
say ""
begin
WANT=31 type "borrownet up --pod deploy/api --context demo -d"
type "borrownet explain BN3101"
type "borrownet doctor --context demo --pod api | tail -n 4"
end
say "## Give it back"
say ""
begin
type "borrownet down --stop-agent"
WANT=30 type "borrownet status"
end
sed -i '${/^$/d}' "$text"
cp "$text" "$out"
