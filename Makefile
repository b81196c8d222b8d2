# Drover from nothing: `make up` brings a cloud up, `make test` checks a change. `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help

export DROVER_STATE ?= /var/lib/drover
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/sbin:/sbin

TARGET := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
DROVER := $(TARGET)/release/drover
GUEST := $(TARGET)/guest
# Further arguments of `up`, `down`, `status` and `tempest`: make tempest ARGS=--update
ARGS ?=
# How many worlds `sim` runs, or the one that it runs again.
SEEDS ?= 100
SEED ?=

.PHONY: help up down status lab test sim fuzz storm chaos upgrade lint bench bench-cluster bench-real tempest conformance guest deb build deps dev-deps clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  State is in $(DROVER_STATE); set DROVER_STATE to change it. Arguments go in ARGS: make tempest ARGS=--update"

up: deps build guest ## a running cloud on this machine, ready to use (as root; safe to repeat)
	@$(DROVER) up --guest-image $(GUEST)/tiny.qcow2 $(ARGS)

down: ## stop everything, keep the data (drover down --destroy removes it)
	@if [ -x $(DROVER) ]; then $(DROVER) down $(ARGS); else echo "$(DROVER) is not built, so nothing of it runs; make up builds it." >&2; fi

status: ## what runs and how it is
	@if [ -x $(DROVER) ]; then $(DROVER) status $(ARGS); else echo "$(DROVER) is not built; run make up." >&2; exit 1; fi

lab: deps build ## three controllers and three nodes in namespaces of this machine, to try faults on (drover lab --help)
	@$(DROVER) lab up $(ARGS)

test: dev-deps lint ## everything a change must pass
	cargo nextest run --workspace
	@if [ -x tests/run ]; then tests/run; fi

sim: ## a whole cloud in one thread while everything fails, from many seeds (SEEDS=1000), or one again (SEED=7)
	@DROVER_SIM_SEEDS=$(SEEDS) DROVER_SIM_SEED=$(SEED) cargo test --quiet --package testkit --test sim -- many --exact --ignored --nocapture

fuzz: dev-deps build ## hostile requests from a new seed: ours, then schemathesis against our OpenAPI documents and the published ones (DROVER_FUZZ_SECONDS, _SEED, _EXAMPLES)
	DROVER_FUZZ_SEED=$${DROVER_FUZZ_SEED:-$$RANDOM} DROVER_FUZZ_SECONDS=$${DROVER_FUZZ_SECONDS:-150} \
	  cargo test --quiet --package testkit --test cloud misuse::fuzz -- --test-threads 1
	DROVER_BIN=$(DROVER) scripts/schemathesis $(ARGS)
	DROVER_BIN=$(DROVER) scripts/schemathesis --published $(ARGS)

storm: deps build ## 20 servers created and deleted at once, ten times, while processes are killed (DROVER_STORM, DROVER_STORM_SEED)
	DROVER_STORM=$${DROVER_STORM:-20x10} DROVER_BIN=$(abspath $(DROVER)) tests/run storm

chaos: dev-deps build ## every fault after the other on a lab under load, and a table of what clients noticed (ARGS=--short; DROVER_CHAOS_RATE, _HOLD, _PAUSE, _FAULTS)
	DROVER_BIN=$(abspath $(DROVER)) tests/chaos/chaos.py $(ARGS)

upgrade: dev-deps build ## a lab under load upgraded one machine after the other, from the previous commit or FROM=REV, and one taken back
	DROVER_BIN=$(abspath $(DROVER)) FROM=$(FROM) tests/chaos/upgrade.py $(ARGS)

lint: dev-deps ## format, clippy, the arrows between crates, licences and sources of dependencies
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo xtask deps
	scripts/deny

bench: deps build ## the figures, beside those of upstream
	@bench/run $(ARGS)

bench-cluster: dev-deps build ## the figures of three controllers with 1,000 simulated hosts and 10,000 servers (DROVER_BENCH_NODES, _SERVERS)
	cargo build --release --package bench --bin fleet
	bench/cluster $(DROVER) $(TARGET)/release/fleet

bench-real: deps build ## the time of a server from the call to ACTIVE, on real QEMU and OVN
	DROVER_BIN=$(abspath $(DROVER)) bench/run --real $(ARGS)

tempest: ## upstream's Tempest against the running cloud, held to tests/tempest/ratchet.txt
	@scripts/tempest $(ARGS)

conformance: deps build ## upstream's own tests of identity and image, RBAC and SDK's among them, against a cloud of their own (ARGS=rbac for one suite)
	DROVER_BIN=$(abspath $(DROVER)) scripts/conformance $(ARGS)

guest: deps ## the small cloud guest that `up` registers as an image
	@guest/build.sh $(GUEST)

deb: build ## the Debian package, in target/deb
	scripts/deb $(DROVER) $(TARGET)/deb

build: deps
	cargo build --release --package drover

deps:
	@scripts/install-deps

dev-deps:
	@scripts/install-deps --dev

clean: ## remove what was built; the cloud's data stays
	cargo clean
	rm -rf $(GUEST)
