# Every target makes and uses .venv in this checkout; nothing is installed outside it.
# Any Python from 3.11 on will do: make PYTHON=python3.12 demo

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: demo test check bench lint types layers rules dashboards clean

demo: $(VENV)/.installed  ## The main job on the sandbox: a bad migration is rolled back by itself. ARGS="--fault latency --exit"
	@$(BIN)/runbookd demo $(ARGS)

test: $(VENV)/.dev  ## All tests; those that need a part this machine lacks say so and are skipped
	$(BIN)/pytest $(ARGS)

check: lint types layers rules test  ## What CI runs

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

layers: $(VENV)/.dev
	$(BIN)/lint-imports

rules: $(VENV)/.dev  ## The page, the rules and the dashboards agree; the rule scripts pass
	$(BIN)/runbookd check
	$(BIN)/runbookd rules test rules/tests/*.yaml

dashboards: $(VENV)/.dev  ## Write grafana/dashboards/*.json anew from grafana/generate.py
	$(BIN)/python grafana/generate.py

bench: $(VENV)/.dev  ## Benchmarks, short by default: see bench/README.md
	$(BIN)/python -m bench $(ARGS)

clean:
	rm -rf $(VENV) .runbookd database-backups database-reports

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "runbookd needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "This Python has no venv module; installing python3-venv."; \
	    apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-venv && $(PYTHON) -m venv $(VENV); \
	  else echo "This Python has no venv module. On Debian or Ubuntu: sudo apt-get install python3-venv"; exit 2; fi; }

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	@echo "Installing runbookd into $(VENV) (once, about a minute) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	@echo "Installing runbookd and its development tools into $(VENV) (once, about a minute) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.installed
