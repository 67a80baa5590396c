# Everything runs in .venv, which is made on demand: a fresh machine needs Python 3.11 or newer and make, nothing else.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The first Python that is new enough; `make PYTHON=/path/to/python …` chooses another.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$python"; exit; }; \
	done; echo python3)

VENV := .venv
RUN := $(VENV)/bin/python
FUZZ_VENV := .venv-fuzz
NEWEST_VENV := .venv-newest
ENGINES_VENV := .venv-engines

# The newest Python of this machine, if it is newer than that of .venv: on PATH, or one that pyenv keeps.
NEWEST ?= $(shell for python in python3.15 python3.14 python3.13 python3.12 $$(ls -d ~/.pyenv/versions/*/bin/python 2>/dev/null || true); do \
	"$$python" -c 'import sys; sys.version_info >= (3, 12) and print("%d.%d" % sys.version_info[:2], sys.executable)' 2>/dev/null || true; \
	done | sort -t. -k2n | tail -1 | cut -d' ' -f2)
# Environments of converters, gigabytes each; HEADRACE_CONVERTERS names another folder for them.
export HEADRACE_CONVERTERS ?= $(CURDIR)/.venv-litert
PIP_INSTALL := $(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable
# pip runs again only when one of these is newer than the stamp it left.
INSTALL_INPUTS := pyproject.toml constraints.txt

# Words after the command of a target: make test ARGS="-k batcher", make demo ARGS=--exit
ARGS ?=

# Test files that run side by side, each lot with servers of its own. Most tests wait for a process to start or to die.
JOBS ?= 2
# In the order of tests/conftest.py, where long files come first; xdist would put files of many tests first.
SIDE_BY_SIDE = --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder

# Folders whose tests need no library that has no wheel for a new Python yet, as torch has none for months.
NEWEST_TESTS := $(addprefix tests/,contracts fuzz house producers queueing results_store security testing workers) \
	--ignore tests/workers/models/test_served_runtimes.py --ignore tests/workers/execution/test_failure_causes.py \
	--deselect tests/house/test_wheel.py::test_every_entry_point_leads_to_something \
	--deselect tests/house/test_layout.py::test_the_pre_commit_hooks_are_all_local_and_need_no_network

# Environments of model servers, gigabytes together; HEADRACE_SERVERS names another folder for them.
export HEADRACE_SERVERS ?= $(CURDIR)/.venv-servers

# How large a `make chaos` is, and which of its schedules.
REQUESTS ?= 1000000
SEED ?= 1

.PHONY: help demo test test-fast test-newest test-browser test-converters test-engines test-servers chaos chaos-jobs fuzz check format bench bench-bulk train clean

help: ## Show this list
	@echo "headrace: make TARGET [ARGS=\"words for the command\"] [PYTHON=python3.13]"; echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.installed-local ## Score real images through Celery, Valkey, ONNX Runtime and Postgres, with Flower beside
	@$(VENV)/bin/headrace demo $(ARGS)

test: $(VENV)/.installed-dev ## Run every test that needs no browser, converter, engine or model server, against a real Valkey and a real Postgres
	@bash deploy/ensure_pgbouncer.sh
	@$(RUN) -m pytest -m "not browser and not converters and not engines and not modelservers" $(SIDE_BY_SIDE) $(ARGS)

FAST := -m "not server and not slow and not browser and not converters and not engines and not modelservers"

test-fast: $(VENV)/.installed-dev ## Run the tests that need no server, no worker and no training, in a minute
	@$(RUN) -m pytest $(FAST) $(SIDE_BY_SIDE) $(ARGS)

test-newest: ## Run the fast tests on the newest Python of this machine, without torch and what needs it
	@if [ -z "$(NEWEST)" ]; then echo "There is no Python newer than 3.11 here: nothing to test."; \
	else $(MAKE) --no-print-directory $(NEWEST_VENV)/.installed && \
		$(NEWEST_VENV)/bin/python -m pytest $(FAST) $(SIDE_BY_SIDE) $(NEWEST_TESTS) $(ARGS); fi

test-browser: $(VENV)/.installed-dev ## Run the tests that look at Flower in Chromium (installs Debian's chromium when root)
	@bash deploy/ensure_chromium.sh
	@$(RUN) -m pytest -m browser $(ARGS)

test-converters: $(VENV)/.installed-dev ## Run the tests of litert-torch, in an environment of its own that it makes first (2 GB)
	@$(RUN) -c "from headrace.compression.conversion.environment import *; set_up_litert(converters_folder(), print)"
	@$(RUN) -m pytest -m converters $(ARGS)

test-engines: $(VENV)/.installed-dev $(ENGINES_VENV)/.installed ## Run the tests of Ray Data, Daft, polars, DuckDB and pandas, in an environment of their own
	@$(RUN) -m pytest -m engines $(ARGS)

test-servers: $(VENV)/.installed-dev ## Run the tests against Triton and other model servers, in environments that it makes first (3 GB)
	@bash deploy/ensure_java.sh
	@$(RUN) -m tests.servers.environments
	@$(RUN) -m pytest -m modelservers $(ARGS)

chaos: $(VENV)/.installed-dev ## Break workers, servers and connections under load, and check every request (REQUESTS=1000000 SEED=1)
	@$(RUN) -m tests.chaos.run --requests $(REQUESTS) --seed $(SEED) $(ARGS)

chaos-jobs: $(VENV)/.installed-dev ## Break workers, servers, object store and clients while bulk jobs run (FAULTS=200 SEED=1)
	@$(RUN) -m tests.chaos.jobs.run --faults $(or $(FAULTS),200) --seed $(SEED) $(ARGS)

fuzz: $(FUZZ_VENV)/.installed ## Feed a million malformed messages, bodies and manifests to what reads them (INPUTS=1000000 SEED=1)
	@$(FUZZ_VENV)/bin/python -m tests.fuzz.run --inputs $(or $(INPUTS),1000000) --seed $(or $(SEED),1) $(ARGS)

check: $(VENV)/.installed-dev ## Formatting, lint, types and the direction of imports
	@$(VENV)/bin/ruff format --check
	@$(VENV)/bin/ruff check
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports

format: $(VENV)/.installed-dev ## Lay out the code and mend what ruff can mend
	@$(VENV)/bin/ruff format
	@$(VENV)/bin/ruff check --fix

bench: $(VENV)/.installed-dev ## Measure headrace against plain Celery on this machine
	@$(RUN) benchmarks/online.py $(ARGS)

bench-bulk: $(VENV)/.installed-dev $(ENGINES_VENV)/.installed ## Measure bulk jobs against bare loops, Ray Data and Daft
	@$(RUN) -m benchmarks.bulk $(ARGS)

train: $(VENV)/.installed-examples ## Train the demo's digits model anew (downloads torch)
	@$(RUN) examples/digits/train.py $(ARGS)

clean: ## Remove .venv, caches and build products; data in .headrace stays
	@rm -rf $(VENV) $(FUZZ_VENV) $(NEWEST_VENV) $(ENGINES_VENV) .venv-litert .venv-servers build dist .coverage htmlcov .hypothesis
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	@find . -name .headrace -prune -o -name __pycache__ -type d -exec rm -rf {} +

$(VENV)/bin/python:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "headrace needs Python 3.11 or newer, and '$(PYTHON)' is not: $$("$(PYTHON)" --version 2>&1 || true)." >&2; \
		echo "Install one, or name it: make PYTHON=/path/to/python3.13 …" >&2; exit 1; }
	@echo "Making $(VENV) with $$("$(PYTHON)" --version)" >&2
	@"$(PYTHON)" -m venv --clear $(VENV) || { \
		echo "'$(PYTHON) -m venv' failed; on Debian and Ubuntu the package python3-venv brings it." >&2; \
		rm -rf $(VENV); exit 1; }

$(VENV)/.installed-local: $(INSTALL_INPUTS) | $(VENV)/bin/python
	@echo "Installing headrace with its worker and the local stack into $(VENV)" >&2
	@$(PIP_INSTALL) ".[worker,local]"
	@touch $@

# The development set-up holds the local one, so that `make demo` after it installs nothing.
$(VENV)/.installed-dev: $(INSTALL_INPUTS) | $(VENV)/bin/python
	@echo "Installing headrace and its development tools into $(VENV)" >&2
	@$(PIP_INSTALL) ".[dev]"
	@touch $(VENV)/.installed-local $@

$(VENV)/.installed-examples: $(INSTALL_INPUTS) | $(VENV)/bin/python
	@echo "Installing headrace and what the examples need into $(VENV)" >&2
	@$(PIP_INSTALL) ".[worker,local,examples]"
	@touch $(VENV)/.installed-local $@

# Not all of `dev`: constraints.txt pins a torch that exists for one Python only.
$(NEWEST_VENV)/.installed: $(INSTALL_INPUTS)
	@echo "Installing headrace and its tests into $(NEWEST_VENV) with $$("$(NEWEST)" --version)" >&2
	@"$(NEWEST)" -m venv --clear $(NEWEST_VENV)
	@$(NEWEST_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable ".[test]"
	@touch $@

# An environment of its own: atheris comes as a wheel for some platforms only, and nothing else needs it.
$(FUZZ_VENV)/.installed: $(INSTALL_INPUTS) | $(VENV)/bin/python
	@echo "Installing headrace and atheris into $(FUZZ_VENV)" >&2
	@$(RUN) -m venv --clear $(FUZZ_VENV)
	@$(FUZZ_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[worker]"
	@$(FUZZ_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --only-binary atheris "atheris>=3" \
		|| echo "no atheris for this platform: fuzzing without coverage" >&2
	@touch $@

# An environment of its own, of gigabytes: Ray and Daft bring their own Arrow. Tests and benchmarks use it.
$(ENGINES_VENV)/.installed: $(INSTALL_INPUTS) | $(VENV)/bin/python
	@echo "Installing Ray Data, Daft, polars, DuckDB and pandas into $(ENGINES_VENV)" >&2
	@$(RUN) -m venv --clear $(ENGINES_VENV)
	@$(ENGINES_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		"ray[data]>=2.51,<3" "daft>=0.7,<0.8" "polars>=1.30,<3" "duckdb>=1.3,<3" "pandas>=2.2,<4" --editable ".[bulk]"
	@touch $@
