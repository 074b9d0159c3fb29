#!/usr/bin/env bash
# usage: hack/setup.sh [-n]
#
# Installs the Debian packages that the race tier, the end-to-end tests and `make lint` use and
# this machine lacks, after saying which; -n only says. Builds bin/dlv. `make build` and the fast
# tier need none of that, and hack/lab-build.sh installs what the lab itself runs on. Packages of
# servers start them with the machine: where it has systemd they are only named.
set -euo pipefail
case "${1-}" in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac

# command -> package
needs=(cc=gcc curl=curl python3=python3 node=nodejs shellcheck=shellcheck
  musl-gcc=musl-tools zsh=zsh fish=fish dig=bind9-dnsutils host=bind9-host javac=default-jdk-headless ssh=openssh-client
  git=git make=make gdb=gdb psql=postgresql-client redis-cli=redis-tools gunicorn=gunicorn uvicorn=uvicorn
  aarch64-linux-gnu-gcc=gcc-aarch64-linux-gnu "g++=g++" cargo=cargo mvn=maven)
servers=(nginx=nginx-light sshd=openssh-server postgres=postgresql)
PATH=$PATH:/usr/sbin:$(echo /usr/lib/postgresql/*/bin)
needs+=(tshark=tshark) # reads what is recorded
missing=()
if [ -d /run/systemd/system ]; then
  echo "setup: tests use these servers too, if they are here: ${servers[*]#*=}"
else
  needs+=("${servers[@]}")
fi
for need in "${needs[@]}"; do
  command -v "${need%%=*}" >/dev/null || missing+=("${need#*=}")
done
[ -e /usr/include/stdio.h ] || missing+=(libc6-dev)
[ -e /usr/aarch64-linux-gnu/include/stdio.h ] || missing+=(libc6-dev-arm64-cross)
[ -e /usr/include/boost/asio.hpp ] || missing+=(libboost-dev)
/usr/bin/python3 -c 'import requests' 2>/dev/null || missing+=(python3-requests)
/usr/bin/python3 -c 'import debugpy' 2>/dev/null || missing+=(python3-debugpy)
python3 -m pip --version >/dev/null 2>&1 || missing+=(python3-pip)

cd "$(dirname "$0")/.."
if [ "${1-}" != -n ] && command -v "${GO:-go}" >/dev/null; then
  echo "setup: building bin/dlv"
  "${GO:-go}" build -modfile=hack/tools/go.mod -o bin/dlv github.com/go-delve/delve/cmd/dlv || echo "setup: tests of dlv are skipped"
fi

if [ ${#missing[@]} -eq 0 ]; then
  echo "setup: nothing to install"
  exit 0
fi
install=(apt-get install -y --no-install-recommends "${missing[@]}")
if [ "${1-}" = -n ] || ! command -v apt-get >/dev/null; then
  echo "setup: missing: ${missing[*]}"
  echo "setup: on Debian or Ubuntu: sudo ${install[*]}"
  exit 0
fi
sudo=()
[ "$(id -u)" = 0 ] || sudo=(sudo)
echo "setup: ${install[*]}"
install=(env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 "${install[@]}") # no server is to start now
# The package lists may be missing or stale on a fresh machine: refresh them once and try again.
"${sudo[@]}" "${install[@]}" || { "${sudo[@]}" apt-get update -q && "${sudo[@]}" "${install[@]}"; }
