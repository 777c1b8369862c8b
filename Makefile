# The whole interface: make align | test | serve | bench | setup. Needs Python 3.11 or later, and make.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/pip --disable-pip-version-check -q

.PHONY: align test bench setup format components

# --- set-up: .venv on first use, again when the requirements change --------------------------------

setup: .venv/dev

.venv/run: pyproject.toml constraints.txt
	@echo "Setting up .venv (once; a few minutes)"
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed")'
	$(PYTHON) -m venv .venv
	$(PIP) install -c constraints.txt -e .
	@touch $@

.venv/dev: .venv/run
	$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@

# Real components of the tests, from Debian's packages where that is possible.
components:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  for package in chromium; do \
	    command -v $$package >/dev/null || { \
	      echo "Installing $$package"; \
	      apt-get update -qq && apt-get install -y -qq --no-install-recommends $$package >/dev/null; \
	    }; \
	  done; \
	fi

# --- work ------------------------------------------------------------------------------------------

test: .venv/dev components
	$(BIN)/ruff format --check -q .
	$(BIN)/ruff check -q .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --benchmark-disable

bench: .venv/dev
	$(BIN)/pytest tests/benchmarks --benchmark-only

format: .venv/dev
	$(BIN)/ruff format -q .
	$(BIN)/ruff check --fix -q .
