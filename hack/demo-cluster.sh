#!/usr/bin/env bash
# usage: hack/demo-cluster.sh [--mesh]
#
# Goes through the README's quick start on a real Kubernetes, printing each step as the
# command a user would type. Without KUBECONFIG it starts the lab, with --mesh one whose
# pods are in a STRICT Istio mesh, and takes it down again (root; compiles Kubernetes and
# Istio the first time). With KUBECONFIG it uses that cluster:
#
#   KUBECONFIG=…              the cluster; nothing is changed but one ephemeral container
#   BORROWNET_AGENT_IMAGE=…   the agent's image, where that cluster can pull it (make agent-image)
#   DEMO_POD=api              pod or TYPE/NAME to borrow
#   DEMO_NAMESPACE=shop       its namespace
#   DEMO_URL=http://orders    what the pod can call and this machine cannot
set -euo pipefail
case "${1-}" in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
cd "$(dirname "$0")/.."

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
type_() { printf '\033[32m$\033[0m %s\n' "$*"; }
step() { type_ "$@"; "$@"; }
must_fail() {
  type_ "$@"
  if "$@"; then
    echo "error: this should have failed: the machine reaches the cluster without borrownet" >&2
    return 1
  fi
}

# story runs on the laptop: the lab's, or this machine.
story() {
  local pod=${DEMO_POD:-api} namespace=${DEMO_NAMESPACE:-shop} url=${DEMO_URL:-http://orders}
  say "1. Without borrownet this machine cannot reach $url."
  must_fail curl -sS --max-time 5 "$url"
  say "2. Borrow the network of $pod."
  trap 'borrownet down --all --stop-agent >/dev/null 2>&1 || true' EXIT
  step borrownet up --pod "$pod" -n "$namespace" -d
  step borrownet status
  say "3. The same curl, as the pod. Look at whom it was seen as: the source address; in a mesh X-Forwarded-Client-Cert."
  step borrownet run -- curl -sS --max-time 20 "$url"
  echo
  say "4. The rest of this machine is untouched."
  must_fail curl -sS --max-time 5 "$url"
  say "5. Give it back, and end the agent."
  step borrownet down --stop-agent
  trap - EXIT
  say "That was all. Nothing of it is left on this machine."
}

if [ "${1-}" = story ]; then
  story
  exit
fi

if [ -n "${KUBECONFIG-}" ]; then
  if [ -z "${BORROWNET_AGENT_IMAGE-}" ]; then
    echo "error: BORROWNET_AGENT_IMAGE is not set: your cluster has to pull the agent's image from somewhere" >&2
    echo "hint: make agent-image REF=registry.example.org/borrownet-agent:1, push bin/borrownet-agent-image.tar" >&2
    echo "      (README, \"The agent's image\"), then BORROWNET_AGENT_IMAGE=registry.example.org/borrownet-agent:1 make demo-cluster" >&2
    exit 2
  fi
  say "Building borrownet; the cluster is that of $KUBECONFIG, the agent's image $BORROWNET_AGENT_IMAGE."
  make --no-print-directory build
  PATH=$PWD/bin:$PATH story
  exit
fi

mesh=()
case "${1-}" in
  --mesh) mesh=(--mesh) ;;
  '') ;;
  *) echo "demo-cluster: unexpected $1" >&2 && exit 2 ;;
esac
say "No KUBECONFIG: a single-node Kubernetes${mesh:+ with Istio} is started on this machine (the first time it is compiled)."
hack/lab-build.sh "${mesh[@]}"
make --no-print-directory build
make --no-print-directory agent-image REF=lab.local/borrownet-agent:1
exec hack/lab-run.sh --fresh "${mesh[@]}" -- "$PWD/hack/demo-cluster.sh" story
