# Runyard's commands. `make help` lists them; each sets up what it needs first.
# Python 3.11+ and make are all that a machine has to bring.

PYTHON ?= python3
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test check e2e e2e-docker crash bench docs lint compiler docker

# Found before .venv/bin leads the PATH: what makes .venv cannot come from it.
BASE_PYTHON := $(shell command -v $(PYTHON) 2>/dev/null)
UV := $(or $(shell command -v uv 2>/dev/null),.tools/bin/uv)
SETUP := .venv/.stamp

export PATH := $(CURDIR)/.venv/bin:$(PATH)
# One environment, whatever the caller has activated.
unexport VIRTUAL_ENV
# Workers and tools start many times; compiled bytecode is what makes that quick.
unexport PYTHONDONTWRITEBYTECODE

help:   ## Say what there is
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: $(SETUP)  ## Start a platform, deploy a handler, send it a request, stop
	@python examples/01-hello/demo.py

test: lint compiler docker  ## Everything: check's steps, all tests, the compatibility page
	@pytest --compat-page=docs/reference/compatibility.md

check: lint  ## Before each commit, under a minute: format, lint, types, architecture, unit, contract
	@pytest tests/unit tests/contract tests/test_architecture.py

e2e: $(SETUP)   ## The tests that start real processes
	@pytest tests/e2e

e2e-docker: $(SETUP) docker  ## The tests with a Docker engine of their own (root; installs it on Debian)
	@pytest -rs tests/e2e_docker

crash: $(SETUP) ## Kill, cut and restart a platform N times (200) under load: no job may be lost or done twice
	@python -m tests.crash --rounds $(or $(N),200) $(if $(SEED),--seed $(SEED))

bench: $(SETUP) ## Measure: fixed loads, raw JSON results and ratios
	@python -m bench

docs: $(SETUP)  ## Write the generated reference pages anew
	@python docs/generate.py

lint: $(SETUP)
	@ruff format --check --quiet . || { echo "To format: .venv/bin/ruff format" >&2; exit 1; }
	@ruff check --quiet
	@basedpyright --level error
	@lint-imports --no-logo

# --- Set-up: once, and again when the lock changes --------------------------------------------------------------------

$(SETUP): pyproject.toml uv.lock | $(UV)
	@echo "Setting up .venv (once)..."
	@$(UV) sync --quiet --frozen --all-groups --python "$(BASE_PYTHON)"
	@touch $@

.tools/bin/uv:
	@"$(BASE_PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "Runyard needs Python 3.11 or newer; name one: make PYTHON=python3.12" >&2; exit 1; }
	@"$(BASE_PYTHON)" -c 'import ensurepip' 2>/dev/null || $(install_venv)
	@"$(BASE_PYTHON)" -m venv .tools
	@.tools/bin/pip install --quiet --disable-pip-version-check 'uv>=0.13,<0.14'

# The power-loss tests build a library. Where no compiler can be had they are skipped, and say what to install.
compiler:
	@command -v cc >/dev/null || command -v gcc >/dev/null || [ "$$(id -u)" != 0 ] || \
	  { apt-get -qq update && apt-get -qq install gcc libc6-dev >/dev/null; } || true

# Where Docker may not be installed, the tests that need it are skipped, and say why.
docker:
	@tests/docker_kit/install.sh

# Debian and its children keep venv in a package of its own.
install_venv = { [ "$$(id -u)" = 0 ] && apt-get -qq update && apt-get -qq install python3-venv >/dev/null; } || \
  { echo "Python lacks its venv module; on Debian or Ubuntu: sudo apt-get install python3-venv" >&2; exit 1; }
