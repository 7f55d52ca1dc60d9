# Sublet. `make` lists the targets; `make demo` and `make test` do everything
# on a fresh Debian machine with Go and root.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VERSION ?= 0.1.0
IMAGE ?= ghcr.io/sublet-dev/subletd:$(VERSION)
KUBERNETES_VERSION := $(shell sed -n 's/^\tk8s.io\/kubernetes \(v[0-9.]*\)$$/\1/p' go.mod)
KUBERNETES_MINOR := $(word 2,$(subst ., ,$(KUBERNETES_VERSION)))

# Static binaries, and one set of flags everywhere: another set would compile
# the whole of Kubernetes a second time.
export CGO_ENABLED := 0
export GOFLAGS ?=
export GOTOOLCHAIN ?= auto

VERSION_PACKAGE := k8s.io/component-base/version
LDFLAGS := -s -w \
	-X github.com/sublet-dev/sublet/pkg/version.version=$(VERSION) \
	-X $(VERSION_PACKAGE).gitVersion=$(KUBERNETES_VERSION) \
	-X $(VERSION_PACKAGE).gitMajor=1 \
	-X $(VERSION_PACKAGE).gitMinor=$(KUBERNETES_MINOR) \
	-X $(VERSION_PACKAGE).gitTreeState=clean
GO_BUILD := go build -ldflags '$(LDFLAGS)'

HOST := .cache/bin/host
KUBECONFIG_HOST := $(CURDIR)/.host/kubeconfig

##@ Start here

.PHONY: help
help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} \
		/^##@/ {printf "\n%s\n", substr($$0, 5)} \
		/^[a-zA-Z0-9_-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: build tools up ## the main job, on a local host that it sets up by itself
	@HOST=$(HOST) VERSION=$(VERSION) hack/demo/demo.sh

.PHONY: test
test: verify test-short test-integration e2e ## all tests

##@ Build

.PHONY: build
build: bin/sublet bin/subletd ## bin/sublet and bin/subletd

.PHONY: bin/sublet
bin/sublet:
	@echo "building $@"
	@$(GO_BUILD) -o $@ ./cmd/sublet

.PHONY: bin/subletd
bin/subletd:
	@echo "building $@ (the first time it compiles Kubernetes, etcd and CoreDNS: about ten minutes on 2 cores)"
	@$(GO_BUILD) -o $@ ./cmd/subletd

.PHONY: image
image: bin/subletd ## the image of subletd, with buildah and without any registry
	@command -v buildah >/dev/null || { echo "make image needs buildah: apt-get install buildah"; exit 1; }
	@buildah bud --isolation chroot --tag $(IMAGE) .

.PHONY: tools
tools: .cache/bin/kubectl .cache/bin/helm ## kubectl and helm, of the versions in go.mod, in .cache/bin

.cache/bin/kubectl: go.mod
	@echo "building kubectl $(KUBERNETES_VERSION)"
	@$(GO_BUILD) -o $@ k8s.io/kubernetes/cmd/kubectl

.cache/bin/helm: go.mod
	@echo "building helm"
	@$(GO_BUILD) -o $@ helm.sh/helm/v3/cmd/helm

.PHONY: conformance-tools
conformance-tools: .cache/bin/conformance .cache/bin/e2e.test .cache/bin/ginkgo

.PHONY: .cache/bin/conformance
.cache/bin/conformance:
	@$(GO_BUILD) -o $@ ./hack/conformance

.cache/bin/e2e.test: go.mod
	@echo "building Kubernetes' own tests (the first time about seven minutes on 2 cores)"
	@go test -c -ldflags '$(LDFLAGS)' -o $@ k8s.io/kubernetes/test/e2e

.cache/bin/ginkgo: go.mod
	@$(GO_BUILD) -o $@ github.com/onsi/ginkgo/v2/ginkgo

.PHONY: clean
clean: down ## the local host, everything built and every cache of this checkout
	@rm -rf bin .cache bench/out

##@ The local host

.PHONY: $(HOST)
$(HOST):
	@echo "building $@"
	@$(GO_BUILD) -o $@ ./hack/host

.PHONY: up
up: $(HOST) bin/subletd ## a real Kubernetes on this machine (Linux, root)
	@$(HOST) up

.PHONY: down
down: $(HOST) ## take the local host down, without a trace
	@$(HOST) down

.PHONY: kubeconfig
kubeconfig: ## print the path of the local host's kubeconfig (make -s kubeconfig)
	@echo $(KUBECONFIG_HOST)

.PHONY: install
install: bin/sublet ## install the chart into the current cluster (KUBECONFIG, else the local host)
	@if [ -z "$${KUBECONFIG:-}" ] && [ -f $(KUBECONFIG_HOST) ]; then export KUBECONFIG=$(KUBECONFIG_HOST); fi; \
		bin/sublet install

##@ Tests

.PHONY: test-short
test-short: ## unit tests, goldens, fuzz seeds, import rules: quick, no root, no network
	@go test -short ./...

.PHONY: test-integration
test-integration: ## our own control plane, in process, as host and as tenant
	@go test -count=1 -p 1 -timeout 20m ./pkg/controlplane/... ./e2e/integration/...

.PHONY: e2e
e2e: build tools conformance-tools $(HOST) ## the built binaries on a real node (Linux, root)
	@go test -count=1 -timeout 30m ./e2e

SKEW_VERSIONS ?= v1.33.13

.PHONY: skew
skew: ## tenants on hosts of older releases (SKEW_VERSIONS="v1.33.13 ..."), which it builds: minutes the first time
	@for version in $(SKEW_VERSIONS); do \
		nice go run ./hack/skew -version $$version -dir .cache/skew/$$version; \
		SUBLET_SKEW_HOST=$(CURDIR)/.cache/skew/$$version SUBLET_SKEW_TENANT= go test -count=1 -run TestSkew ./e2e/integration/skew; \
	done

# Given to make conformance; TENANT= (empty) is the bare local host.
TENANT ?= conformance
FOCUS ?=
SKIP ?=
LABELS ?= Conformance
PROCS ?= 4
SPECS ?=
FAILED ?=
KEEP ?=

.PHONY: conformance
conformance: export CONFORMANCE_FOCUS := $(value FOCUS)
conformance: export CONFORMANCE_SKIP := $(value SKIP)
conformance: export CONFORMANCE_LABELS := $(value LABELS)
conformance: build tools conformance-tools $(HOST) ## Kubernetes' own suite in a tenant (TENANT= for the bare host; FOCUS, SKIP, LABELS, PROCS, SPECS, FAILED=1, KEEP=1)
	@.cache/bin/conformance -tenant '$(TENANT)' -procs $(PROCS) -specs '$(SPECS)' \
		-focus "$$CONFORMANCE_FOCUS" -skip "$$CONFORMANCE_SKIP" -labels "$$CONFORMANCE_LABELS" \
		$(if $(FAILED),-failed) $(if $(KEEP),-keep)

.PHONY: conformance-page
conformance-page: .cache/bin/conformance ## render the last reports of tenant and bare host as docs/conformance.md
	@.cache/bin/conformance -page docs/conformance.md

.PHONY: soak
soak: TENANT = soak
soak: build tools up ## random writes, meddling and kills for DURATION=30m on TENANT=soak; then both sides must agree; report in bench/out
	@go run ./hack/soak -duration $(or $(DURATION),30m) -tenant $(TENANT) $(if $(SEED),-seed $(SEED))

# What a tenant's control plane is compared with: the same parts as separate
# programs, as anybody runs them.
BASELINE := .cache/bin/baseline

.PHONY: baseline-tools
baseline-tools: $(BASELINE)/kube-apiserver $(BASELINE)/kube-controller-manager $(BASELINE)/etcd $(BASELINE)/coredns

$(BASELINE)/kube-apiserver $(BASELINE)/kube-controller-manager: $(BASELINE)/%: go.mod
	@echo "building $* $(KUBERNETES_VERSION)"
	@$(GO_BUILD) -o $@ k8s.io/kubernetes/cmd/$*

$(BASELINE)/etcd $(BASELINE)/coredns: $(BASELINE)/%: go.mod $(wildcard hack/images/etcd/*.go hack/images/coredns/*.go)
	@echo "building $*"
	@$(GO_BUILD) -o $@ ./hack/images/$*

# Given to make bench and make density: flags of ./bench, such as "-runs 3".
BENCH ?=

.PHONY: bench
bench: build tools baseline-tools up ## measure the budgets (ONLY=metric,..., BENCH="more flags"); JSON under bench/out, docs/performance.md
	@go run ./bench -page docs/performance.md $(if $(ONLY),-only $(ONLY)) $(BENCH)

TENANTS ?= 100

.PHONY: density
density: build tools up ## how many awake tenants this machine takes, at most TENANTS=100; into docs/performance.md, too
	@go run ./bench -page docs/performance.md -only density -tenants $(TENANTS) $(BENCH)

BENCH_BASELINE := bench/baseline.json

.PHONY: bench-check
bench-check: bin/subletd ## fail when a tenant's process has become bigger than bench/baseline.json by 15 %
	@go run ./bench/footprint -runs 3 -baseline $(BENCH_BASELINE)

.PHONY: bench-baseline
bench-baseline: bin/subletd ## renew bench/baseline.json; say in the commit why
	@go run ./bench/footprint -runs 3 -baseline $(BENCH_BASELINE) -update

##@ Code

.PHONY: generate
generate: ## rewrite everything generated
	@set -e; for script in hack/update-*.sh; do echo "$$script"; "$$script"; done

.PHONY: verify
verify: ## fail when something generated is stale, or the code is not formatted
	@set -e; for script in hack/verify-*.sh; do echo "$$script"; "$$script"; done

.PHONY: lint
lint: ## golangci-lint
	@go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0 run ./...
