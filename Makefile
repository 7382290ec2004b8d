# `make` prints this help. Every target makes its own virtual environment first.
#
#   PYTHON=python3.13   use another interpreter, in its own environment (.venv-python3.13)
#   FAST=1              notebooks at small sizes (make notebooks, make docs)
#   N=2                 test processes
#   PART=cycles         one part of the demo, in full; ALL=1: all of them
#   ARGS='-k name'      further arguments for pytest

SHELL := /bin/sh
.DEFAULT_GOAL := help

PYTHON ?= python3
ifeq ($(origin PYTHON),file)
# The default: the first interpreter that is new enough.
PYTHON := $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
else
VENV ?= .venv-$(notdir $(PYTHON))
endif

BIN := $(VENV)/bin
PY := $(BIN)/python
STAMP := $(VENV)/installed

N ?= 2
ARGS ?=
# Files in alphabetical order, so that the demo, which is one long test, starts early.
PYTEST := -m pytest -n $(N) --dist loadfile --no-loadscope-reorder
TEST_CACHE := JAX_COMPILATION_CACHE_DIR="$(CURDIR)/.cache/jax" \
	JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1

.PHONY: help venv demo test test-slow test-nightly test-budget test-portable mutants check format docs \
	notebooks bench bench-all bench-list lock clean

help: ## print this help
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | \
		awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'
	@sed -n '3,7s/^# *\([^ ]*\) /  \1 /p' Makefile

venv: $(STAMP) ## make the virtual environment (other targets do it by themselves)

$(STAMP): pyproject.toml $(wildcard constraints/*.txt)
	@test -n "$(PYTHON)" || { echo "bayesjx needs Python 3.11 or newer; none was found." \
		"Install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) does not run or is older than Python 3.11." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' || { echo "$(PYTHON) cannot make virtual environments;" \
		"on Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@lock=constraints/$$($(PY) -c 'import sys; print("py%d%d" % sys.version_info[:2])').txt; \
		test -f $$lock || lock=/dev/null; echo "installing with constraints: $$lock"; \
		$(PY) -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c $$lock
	@touch $@

demo: $(STAMP) ## real data: a tour of 3 minutes, pictures in demo/ (PART=NAME: one part in full; ALL=1)
	$(PY) -m demo $(PART) $(if $(ALL),--all)

test: $(STAMP) ## run the tests, without the slow ones (SLOW=1: all; COV=1: with coverage)
	@mkdir -p .cache
	$(PY) $(if $(COV),-m slipcover --out .cache/coverage.json) $(PYTEST) \
		$(if $(SLOW),,-m "not slow") --costs .cache/test-costs.json $(ARGS) || test $$? -eq 5
	$(if $(COV),$(PY) tests/covered.py .cache/coverage.json)

test-slow: $(STAMP) ## run the slow tests only
	$(PY) $(PYTEST) -m slow $(ARGS)

test-nightly: $(STAMP) ## run the nightly tests only: long chains, second derivatives, the whole demo
	$(PY) $(PYTEST) -m nightly $(ARGS)

test-budget: $(STAMP) ## CPU seconds of each package of tests in the last `make test`, and its budget
	$(PY) tests/costs.py

# Breaks copies of the library on purpose and runs the tests that should notice.
mutants: $(STAMP) ## which of the planted mistakes no test finds (ARGS='ops vi': of these packages)
	$(PY) tests/mutants $(ARGS)

# Tolerances follow from precision, size and condition, not from one processor: hours, not in CI.
test-portable: $(STAMP) ## all tests under each instruction set of XLA, and with one thread
	bash tests/portable.sh $(PY) $(PYTEST) -q $(ARGS)

check: $(STAMP) ## format, lint, types, layering
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/ty check --python $(VENV) --error-on-warning
	$(PY) -m pytest -q tests/test_layering.py

format: $(STAMP) ## rewrite the sources as `make check` wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

notebooks: $(STAMP) ## execute all notebooks (FAST=1: small sizes)
	$(if $(FAST),BAYESJX_FAST=1) $(TEST_CACHE) $(PY) docs/run_notebooks.py

docs: notebooks ## build the documentation in docs/_build/html
	$(PY) -m benchmarks page
	$(PY) -m sphinx -W --keep-going -q docs docs/_build/html

bench: $(STAMP) ## measure one claim: NAME=... [QUICK=1] [JSON=file]
	@test -n "$(NAME)" || { echo "which one? make bench NAME=...; make bench-list shows them" >&2; exit 2; }
	$(PY) -m benchmarks run $(NAME) $(if $(QUICK),--quick) $(if $(JSON),--json $(JSON))

bench-all: $(STAMP) ## all benchmarks in one table: what holds, and what does not (QUICK=1)
	@$(MAKE) --no-print-directory bench NAME=all-summary

bench-list: $(STAMP) ## list the benchmarks
	@$(PY) -m benchmarks list

# The lock files are what CI and everybody else installs; without one, the newest releases are taken.
lock: ## resolve all dependencies anew and write constraints/pyXY.txt for this PYTHON
	$(PYTHON) -m venv --clear .cache/lock
	.cache/lock/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	.cache/lock/bin/python -m pip check
	.cache/lock/bin/python -m pip freeze --exclude-editable > constraints/$$(.cache/lock/bin/python -c \
		'import sys; print("py%d%d" % sys.version_info[:2])').txt
	rm -rf .cache/lock

clean: ## remove what was built, and the environments
	rm -rf .venv .venv-* .cache .pytest_cache .ruff_cache docs/_build docs/_api docs/notebooks
	find . -name __pycache__ -prune -exec rm -rf {} +
