# The whole interface: make align | test | serve | bench | setup. Needs Python 3.11 or later, and make.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/pip --disable-pip-version-check -q
# Compiled when first used, and kept: half of what is installed no test ever loads.
PINNED := -c constraints.txt --no-compile
# Half of all bytes: PyTorch and the libraries of a GPU.
LARGE := ^(nvidia-|torch==|triton)
export PYTHONDONTWRITEBYTECODE :=

.PHONY: align serve test bench setup format components ready

# --- set-up: .venv on first use, again when the requirements change --------------------------------

setup: .venv/dev

.venv/python:
	@echo "Setting up .venv (once; a few minutes)"
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed")'
	$(PYTHON) -m venv .venv
	@touch $@

.venv/run: .venv/python pyproject.toml constraints.txt
	$(PIP) install $(PINNED) -e '.[model,training,service]'
	@touch $@

# All at once: one installation on top of another would resolve and build everything twice. Before,
# what is pinned is unpacked in two halves, for each takes a core; where one has something that is
# not for this machine, the installation does all of it.
.venv/dev: .venv/python pyproject.toml constraints.txt
	@grep -E '$(LARGE)' constraints.txt >.venv/large.txt; grep -vE '$(LARGE)' constraints.txt >.venv/rest.txt
	@for half in large rest; do \
	  $(PIP) install --no-deps --no-compile -r .venv/$$half.txt >/dev/null 2>&1 & \
	done; wait
	$(PIP) install $(PINNED) -e '.[model,detector,training,service,traces,dev]'
	@touch .venv/run $@

# Real components of the tests, from Debian's packages where that is possible; the upload client
# of browsers from npm, where there is one. (The command of iproute2 is ip.)
components:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  for package in chromium curl iproute2 redis-server wrk; do \
	    command -v $${package%route2} >/dev/null || { \
	      echo "Installing $$package"; \
	      apt-get update -qq && apt-get install -y -qq --no-install-recommends $$package >/dev/null; \
	    }; \
	  done; \
	fi
	@if command -v npm >/dev/null && [ ! -d tests/service/tusjs/node_modules ]; then \
	  echo "Installing tus-js-client"; \
	  npm install --prefix tests/service/tusjs --no-package-lock --no-audit --no-fund --silent \
	    || echo "tus-js-client could not be installed"; \
	fi

# Both at a time: pip takes a core and minutes.
ready:
	@$(MAKE) --no-print-directory -j 2 .venv/dev components

# --- work ------------------------------------------------------------------------------------------

# make align VIDEO=take.mp4 AUDIO=take.wav; without AUDIO the sound inside VIDEO; without both a
# synthetic take is rendered and aligned. Results go beside the track. ARGS adds options.
align: .venv/run
ifdef VIDEO
	@audio="$(or $(AUDIO),-)"; track="$$audio"; [ "$$audio" = - ] && track="$(VIDEO)"; \
	$(BIN)/python -m model.align "$(VIDEO)" "$$audio" --output-dir "$$(dirname "$$track")" $(ARGS)
else ifdef AUDIO
	@echo "AUDIO=$(AUDIO) needs a picture: say VIDEO=... too" >&2; exit 2
else
	$(BIN)/python -m training.data.takes demo --easy --seed 4
	$(BIN)/python -m model.align demo/take-0004.mp4 demo/take-0004.wav --output-dir demo \
	  --preview demo/take-0004_preview.mp4 $(ARGS)
endif

serve: .venv/run
	$(BIN)/python -m service

# Three at a time, on two cores: tests of the service wait for each other's processes. They are
# compiled while types are checked, or each of the three would do it.
test: ready
	$(BIN)/ruff format --check -q .
	$(BIN)/ruff check -q .
	@$(BIN)/pytest --collect-only -qq >/dev/null 2>&1 & $(BIN)/mypy -n 2 && wait
	$(BIN)/pytest -n 3 --no-loadscope-reorder --benchmark-disable

bench: .venv/dev
	$(BIN)/pytest tests/benchmarks -s

format: .venv/dev
	$(BIN)/ruff format -q .
	$(BIN)/ruff check --fix -q .
