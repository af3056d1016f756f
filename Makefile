# lensfs. "make demo" shows it, "make test" tests it; both install what they need on Debian. Run as root.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := build

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
# Later ones need modules that the proxy does not hand out.
export NFPM := go run github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.2
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
# Without a tag v1.2.3 behind it, a tree is older than any release, and the younger the later its last commit is.
PACKAGE_VERSION := $(shell git describe --tags --match 'v[0-9]*' 2>/dev/null | sed 's/^v//; s/-/+/; s/-/./g' | grep . || \
	TZ=UTC git log -1 --date=format-local:%Y%m%d%H%M%S --format='0~%cd.%h' 2>/dev/null || echo '0~devel')
PACKAGES := ./...
UNIT := $(shell go list ./... 2>/dev/null | grep -v /e2e)
# Where images that take minutes to make are kept between runs.
export LENSFS_CACHE ?= /var/cache/lensfs

# What each target needs of Debian.
DEMO_DEBS := procps python3
TEST_DEBS := procps python3 gcc libc6-dev lxc uidmap runc podman busybox-static attr debootstrap e2fsprogs iproute2 util-linux systemd \
	htop sysstat tmux nodejs musl-tools default-jre-headless rpm groff-base

.PHONY: build device-plugin packages demo test unit root soak differential test-vm bench bench-smoke lint closed ci deps-demo deps-test clean

build: ## the binary, static: out/lensfs
	mkdir -p out
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o out/lensfs ./cmd/lensfs

device-plugin: ## for the image of share/kubernetes/lensfs-cdi.yaml: out/lensfs-device-plugin
	mkdir -p out
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o out/lensfs-device-plugin ./cmd/lensfs-device-plugin

packages: build ## out/packages/*.deb and *.rpm
	rm -rf out/packages
	bash share/package/build.sh out/lensfs "$(PACKAGE_VERSION)" out/packages

demo: deps-demo build ## its main job in a minute: the host beside a container
	bash demo.sh out/lensfs

test: deps-test unit root test-vm bench-smoke ## all tests

unit: ## what needs neither root nor mounts; then what the race detector does not let be measured, or makes too slow
	go test -race -count=1 $(UNIT)
	go test -count=1 -run 'Alloc|WhatStays' $(UNIT)

root: packages ## real mounts, cgroups and containers on this machine
	LENSFS_MUST_RUN=1 go test -count=1 -timeout 40m ./e2e

soak: deps-test ## the soak test for longer, or once more: make soak FOR=10m SEED=1
	LENSFS_MUST_RUN=1 go test -count=1 -timeout 0 -v -run 'TestSoak$$' ./e2e -soak.for=$(or $(FOR),10m) -soak.seed=$(or $(SEED),0)

differential: deps-test ## field by field against the LXCFS of this machine: more of the random containers of which "root" and "test-vm" have a few
	LENSFS_MUST_RUN=1 LENSFS_CONTAINERS=$${LENSFS_CONTAINERS:-32} go test -count=1 -timeout 20m -v -run TestDifferential ./e2e

test-vm: build deps-test ## the same in a virtual machine: systemd, cgroup v2 only, 8 CPUs, swap
	bash e2e/vm/test.sh out/lensfs

# An installed LXCFS, or Debian's unpacked into the cache: installing it would start a service and mount for all containers to come.
define find_lxcfs
lxcfs=$$(bash bench/lxcfs.sh $(LENSFS_CACHE)/lxcfs) || lxcfs=""
endef

bench: build ## the same work on the kernel, an empty FUSE file, LXCFS and lensfs: about a quarter of an hour, as root
	go build -o out/bench ./bench
	$(find_lxcfs); out/bench -lensfs out/lensfs -lxcfs "$$lxcfs" -doc docs/benchmarks.md

bench-smoke: build ## does it work? Less than a minute; too short for the goals
	go build -o out/bench ./bench
	$(find_lxcfs); out/bench -quick -lensfs out/lensfs -lxcfs "$$lxcfs"

lint: ## formatting, vet, staticcheck
	@test -z "$$(gofmt -l . | tee /dev/stderr)" || { echo "run gofmt -w on these"; exit 1; }
	go vet $(PACKAGES)
	go run $(STATICCHECK) $(PACKAGES)

closed: ## the build needs nothing that go.sum does not name
	go mod verify
	GOPROXY=off GOFLAGS=-mod=readonly go build -o /dev/null ./cmd/lensfs ./cmd/lensfs-device-plugin

ci: lint closed test

# apt is asked only for what is missing, so that a second run needs no network.
define install_debs
	@missing=$$(for p in $(1); do dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	if [ -n "$$missing" ]; then \
		apt-get update -qq; \
		mkdir -p /usr/share/man/man1; : without it Java is not installed; \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi
endef

deps-demo:
	$(call install_debs,$(DEMO_DEBS))

deps-test:
	$(call install_debs,$(TEST_DEBS))
	bash e2e/setup.sh

clean:
	rm -rf out e2e/out bench/out
