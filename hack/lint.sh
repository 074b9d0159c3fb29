#!/usr/bin/env bash
# usage: hack/lint.sh
#
# gofmt, go vet, staticcheck (pinned in hack/tools/go.mod), and, where installed,
# golangci-lint and shellcheck. Says what it could not run; BORROWNET_REQUIRE=all makes
# a missing shellcheck an error.
set -euo pipefail
case "${1-}" in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
cd "$(dirname "$0")/.."

GO=${GO:-go}
status=0
step() { # step NAME COMMAND…
  printf '%-14s ' "$1"
  if out=$("${@:2}" 2>&1); then echo ok; else echo FAILED; printf '%s\n' "$out"; status=1; fi
}
missing() { # missing NAME HOW-TO-GET-IT
  printf '%-14s missing: %s\n' "$1" "$2"
  if [ "${BORROWNET_REQUIRE-}" = all ] && [ "$1" = shellcheck ]; then status=1; fi
}
unformatted() {
  local files
  files=$(git ls-files --cached --others --exclude-standard '*.go' | xargs gofmt -l)
  [ -z "$files" ] || { printf '%s\n' "$files"; return 1; }
}

step gofmt unformatted
step vet "$GO" vet ./...
step vet-lab "$GO" vet -tags lab ./integration
step vet-docker "$GO" vet -tags docker ./integration/containers
step staticcheck "$GO" tool -modfile=hack/tools/go.mod staticcheck -checks 'SA*,S1*,ST1000,ST1005,ST1016,ST1020,U1000' ./...
if command -v shellcheck >/dev/null; then
  mapfile -t scripts < <(git ls-files --cached --others --exclude-standard '*.sh' .ci/run)
  step shellcheck shellcheck -S warning "${scripts[@]}"
else
  missing shellcheck "apt-get install shellcheck"
fi
if command -v clang-format >/dev/null; then
  step clang-format clang-format --style=file:hook/preload/.clang-format --dry-run -Werror hook/abi.h hook/preload/*.[ch] hook/preload/tests/*.c
else
  missing clang-format "optional: apt-get install clang-format"
fi
if command -v golangci-lint >/dev/null; then
  step golangci-lint golangci-lint run ./...
else
  missing golangci-lint "optional; .golangci.yml is for version 2"
fi
exit $status
