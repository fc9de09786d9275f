# Two targets do all: `make demo` and `make test`. Both make the environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test style types contracts unit system bench autobahn clean

help:
	@echo "make demo   a fleet of 8 connections against the embedded exchange; Ctrl-C ends it"
	@echo "make test   formatting, lint, types, import contracts, unit and system tests"
	@echo "make bench  the measurements of docs/performance.md"
	@echo "make autobahn  the Autobahn test suite on both engines; needs docker"

$(VENV)/.runtime: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.runtime
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

demo: $(VENV)/.runtime
	@exec $(BIN)/supervisor run deploy/demo.toml

# Cheapest first, so that a slip is told in seconds.
test: style types contracts unit system

style: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.test
	$(BIN)/mypy

contracts: $(VENV)/.test
	$(BIN)/lint-imports

unit: $(VENV)/.test
	$(BIN)/pytest tests --ignore tests/system -q
	TEST_ENGINE=websockets $(BIN)/pytest tests/conformance -q

system: $(VENV)/.test
	$(BIN)/pytest tests/system -q

bench: $(VENV)/.test
	PYTHONPATH=tests/support $(BIN)/python tests/bench/measure.py

# tests/autobahn/run.py takes a server that runs elsewhere, too.
autobahn: $(VENV)/.test
	PYTHONPATH=tests/support $(BIN)/python tests/autobahn/run.py

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
