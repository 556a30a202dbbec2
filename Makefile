# make demo    a virtual environment, onefold with its compiled kernel, and the main job
# make test    every tier that can run here; what cannot is named in the last lines
# make check   lint, format, types, tidy
# make services  servers for development, as processes on loopback, until Ctrl-C: Kafka, a schema registry and Iceberg's
#              REST catalog (need Java 17 and Maven), PostgreSQL, MariaDB; one that is missing is named and left out
# make bench   the benchmarks (BENCH=payments for one)
# make clean   removes what these made
#
# Needs Python 3.11+ (PYTHON=… chooses one) and a C compiler. All is kept in .venv; the network serves pip alone.

VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= auto
PYTEST_ARGS ?=
DEMO_ARGS ?=
COMPILED_FROM := $(shell find src -name '*.pyx' -o -name '*.pxd' -o -name '*.h')
BUILT_FROM := pyproject.toml setup.py $(COMPILED_FROM)
BENCHMARKS := $(basename $(notdir $(shell grep -l __main__ benchmarks/*.py)))
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test check lint services bench clean
.DELETE_ON_ERROR:

demo: $(VENV)/.runs
	$(BIN)/onefold demo $(DEMO_ARGS)

test: check
	$(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 8 --dist worksteal $(PYTEST_ARGS)

check: lint
	$(BIN)/python -m pytest -q tests/tidy

lint: $(VENV)/.tests
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .
	$(BIN)/mypy --no-error-summary -p onefold

services: $(VENV)/.tests
	$(BIN)/python -m services

bench: $(VENV)/.tests
	@set -e; for name in $(or $(BENCH),$(BENCHMARKS)); do echo "$$name"; $(BIN)/python -m "benchmarks.$$name"; done

clean:
	rm -rf $(VENV) build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src \( -name '*.so' -o -name '*.c' \) -delete
	rm -rf .services
	find src tests spec benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@set -e; python=$$(.ci/toolchain python); echo "$$python -m venv $(VENV)"; "$$python" -m venv $(VENV)

# Editable, so that the kernel is compiled in place and later edits of Python files need no new installation.
$(VENV)/.runs: $(BUILT_FROM) | $(BIN)/python
	@set -e; compiler=$$(.ci/toolchain compiler $(BIN)/python); echo "installing onefold into $(VENV), compiling with $$compiler"; \
	CC=$$compiler $(PIP) install --editable .
	@touch $@

$(VENV)/.tests: $(BUILT_FROM) | $(BIN)/python
	@set -e; compiler=$$(.ci/toolchain compiler $(BIN)/python); echo "installing onefold and its tools into $(VENV), compiling with $$compiler"; \
	CC=$$compiler $(PIP) install --editable '.[dev]'
	@touch $(VENV)/.runs $@
