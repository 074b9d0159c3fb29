# borrownet: `make` lists what there is. Recipes longer than three lines live in hack/*.sh.
SHELL := /bin/bash
.DEFAULT_GOAL := help

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -s -w -X main.version=$(VERSION)
BUILD   := CGO_ENABLED=0 $(GO) build -buildvcs=false -trimpath -gcflags=all=-dwarf=false -ldflags '$(LDFLAGS)'
REF     ?= lab.local/borrownet-agent:1
# The labs to play with have a mesh. The test tiers say themselves what they need.
MESHED   = $(if $(filter 0,$(MESH)),,--mesh)
WITHFLUX = $(if $(FLUX),--flux)
ASMANY   = $(if $(NODES),--nodes $(NODES))
export VERSION REF

.PHONY: help build hook agent-binaries demo agent-image setup test test-fast test-race test-hook test-lab test-mesh test-docker newcomer lint fmt fuzz soak bench
.PHONY: demo-cluster lab-build lab-up lab-down lab-run docs tour man release release-check clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

build: hook ## bin/borrownet and bin/borrownet-agent, static
	$(BUILD) -o bin/ ./cmd/borrownet ./cmd/borrownet-agent

hook: ## the preload library that build embeds, where there is a C compiler
	@hack/hook.sh

agent-binaries: ## bin/borrownet-agent-linux-{amd64,arm64}: what --agent-image target sends to nodes of either kind
	GOARCH=amd64 $(BUILD) -o bin/borrownet-agent-linux-amd64 ./cmd/borrownet-agent
	GOARCH=arm64 $(BUILD) -o bin/borrownet-agent-linux-arm64 ./cmd/borrownet-agent

demo: ## the whole job on a built-in cluster: no root, no cluster, a minute (ARGS=--keep leaves it up)
	@hack/demo.sh $(ARGS)

agent-image: ## bin/borrownet-agent-image.tar, reproducible, no docker needed (REF=registry/name:tag)
	@hack/agent-image.sh

setup: ## install the Debian packages that tests and lint use (says which; needs root)
	@hack/setup.sh

test: ## every test tier this machine can run, fast ones first
	@hack/test.sh

test-fast: ## unit tests, fuzz seeds, repository rules, vet
	@hack/test.sh -tiers fast

test-race: ## the fast tests of the packet path under the race detector (needs a C compiler)
	@hack/test.sh -tiers race

test-hook: ## namespaces and seccomp, as an unprivileged user
	@hack/test.sh -tiers hook

test-lab: ## end to end in a real Kubernetes on this machine (needs root; compiles Kubernetes once)
	@hack/test.sh -tiers lab

test-mesh: ## end to end in a real Istio mesh (needs root; compiles Kubernetes and Istio once)
	@hack/test.sh -tiers mesh

test-docker: ## containers and compose files beside a Docker engine of their own (needs root; installs Debian's Docker)
	@hack/test.sh -tiers docker

newcomer: ## make demo and make test in clean clones, as everybody who may try them, with times (needs root; an hour)
	@hack/newcomer.sh

lint: ## gofmt, go vet, staticcheck, shellcheck
	@hack/lint.sh

fmt: ## gofmt everything
	gofmt -l -w $$(git ls-files --cached --others --exclude-standard '*.go')

fuzz: ## fuzz every parser, FUZZTIME each (default 20s)
	@hack/fuzz.sh

soak: ## what takes an hour: storms of sockets, a full tunnel, killed carriers with a report of leaks, renewed tokens, many sessions, a silent node and a lost one (as test-lab)
	@hack/soak.sh

bench: ## every figure next to raw port-forward, in the lab: a table and docs/benchmarks/results.json (ARGS='-run live')
	@hack/bench.sh $(if $(filter 1,$(MESH)),--mesh) $(ARGS)

demo-cluster: ## the whole story on a real Kubernetes with a mesh: the lab (MESH=0: without), or your cluster if KUBECONFIG is set
	@hack/demo-cluster.sh $(MESHED)

lab-build: ## compile the lab (Kubernetes, Istio, images) into its cache (MESH=0: without Istio)
	@hack/lab-build.sh $(MESHED)

lab-up: ## start a single-node Kubernetes with a mesh to play with; prints how to enter its laptop (MESH=0: no mesh, FLUX=1: with Flux, NODES=2: another node, without a mesh)
	@hack/lab-up.sh $(MESHED) $(WITHFLUX) $(ASMANY)

lab-down: ## stop the lab that lab-up started
	@hack/lab-down.sh

lab-run: ## run CMD='…' as an unprivileged user on the laptop of the lab that is up, else of a fresh one (MESH=0: no mesh)
	@hack/lab-run.sh $(MESHED) $(WITHFLUX) $(ASMANY)

docs: build ## regenerate docs/cli from the program's own help, and docs/matrix.md from its test's table
	@hack/docs-cli.sh
	$(GO) test ./integration -run '^TestMatrixPage$$' -update

tour: ## regenerate docs/tour.md: a new user's first session, typed and recorded
	@hack/tour.sh

man: build ## bin/man: manual pages of every command
	@bin/borrownet __tree | $(GO) run ./hack/mkman -version $(VERSION) -date $(shell git log -1 --format=%cs 2>/dev/null || echo 1970-01-01) -o bin/man

release: ## bin/release: archives, Debian packages, agent images, bills of materials, krew and brew manifests, checksums
	@hack/release.sh

release-check: ## build a release twice, in different directories with caches of their own, and compare (slow)
	@hack/release-check.sh

clean: ## remove bin and test leftovers
	rm -rf bin hook/lib/*
