# Two targets do all: `make demo` and `make test`. Both make the environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-peers
# Most tests wait for something: three at a time keep two cores busy.
SPREAD := -n 3 --dist loadfile
# What fails in company is tried again alone, and told.
TWICE := $(BIN)/python tests/support/second_look.py
QUIETLY := install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test style types contracts unit system fuzz chaos bench running autobahn clean

help:
	@echo "make demo   a fleet of 8 connections against the embedded exchange; Ctrl-C ends it"
	@echo "make test   formatting, lint, types, import contracts, unit and system tests"
	@echo "make fuzz   bad input for FUZZ_SECONDS (60) in all; FUZZ_SEED, FUZZ_ONLY and FUZZ_CASE repeat a fault"
	@echo "make chaos  random faults on a fleet under load and an account: CHAOS_SECONDS (60), CHAOS_WORKERS (20); CHAOS_SEED repeats them"
	@echo "make autobahn  the Autobahn test suite on both engines; needs docker"
	@echo "make bench  the measurements of docs/performance.md; QUICK=1 for a short run"
	@echo "make running  finds out anew which functions a worker runs (worker/running.txt)"

$(VENV)/.runtime: pyproject.toml
	@echo "making the environment in $(VENV): half a minute or so"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.runtime
	@echo "adding what the tests need"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
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
	$(TWICE) tests --ignore tests/system --ignore tests/faults -q $(SPREAD)
	TEST_ENGINE=websockets $(TWICE) tests/conformance -q $(SPREAD)

system: $(VENV)/.test
	$(TWICE) tests/system tests/faults -q $(SPREAD)

# A fault is told with the three variables that show it again.
FUZZ_SECONDS ?= 60
fuzz: $(VENV)/.test
	PYTHONPATH=tests:tests/support:. $(BIN)/python -m fuzz --seconds $(FUZZ_SECONDS) \
	    $(if $(FUZZ_SEED),--seed $(FUZZ_SEED)) $(if $(FUZZ_ONLY),--only $(FUZZ_ONLY)) \
	    $(if $(FUZZ_CASE),--case $(FUZZ_CASE))

# Ends with 1 if a message was lost, a new session untold, or a descriptor, a file or a process left. CHAOS_ONLY takes
# words that names of faults contain: CHAOS_ONLY=rotate.
CHAOS_SECONDS ?= 60
CHAOS_WORKERS ?= 20
chaos: $(VENV)/.test
	PYTHONPATH=tests:tests/support:. $(BIN)/python -m chaos --seconds $(CHAOS_SECONDS) \
	    --workers $(CHAOS_WORKERS) $(if $(CHAOS_SEED),--seed $(CHAOS_SEED)) \
	    $(if $(CHAOS_RATE),--rate $(CHAOS_RATE)) $(if $(CHAOS_ONLY),--only $(CHAOS_ONLY))

$(VENV)/.bench: $(VENV)/.test
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test,bench]'
	@touch $@

# Peers live apart from ours: supervisord owns an import package called supervisor, too. What cannot be
# installed is told in the table as not installed.
$(PEERS)/.made:
	for venv in clients supervisord circus; do $(PYTHON) -m venv $(PEERS)/$$venv || exit 1; done
	-$(PEERS)/clients/bin/pip $(QUIETLY) 'websockets>=15.0' 'uvloop>=0.21' 'pyzmq>=26.0'
	-$(PEERS)/clients/bin/pip $(QUIETLY) 'picows>=1.8'
	-$(PEERS)/clients/bin/pip $(QUIETLY) 'aiohttp>=3.9'
	-$(PEERS)/clients/bin/pip $(QUIETLY) 'jetsocket>=0.1'
	-$(PEERS)/supervisord/bin/pip $(QUIETLY) 'supervisor>=4.2'
	-$(PEERS)/circus/bin/pip $(QUIETLY) 'circus>=0.18'
	@touch $@

# make bench QUICK=1 takes less than 3 minutes; ONLY=hot,latency runs these sections; DOCS=1 writes the
# result into docs/performance.md; RECORDING=FILE takes its messages instead of seeded ones.
bench: $(VENV)/.bench $(PEERS)/.made
	PYTHONPATH=tests:tests/support $(BIN)/python -m bench $(if $(QUICK),--quick) \
	    $(if $(ONLY),--only $(ONLY)) $(if $(SEED),--seed $(SEED)) \
	    $(if $(RECORDING),--recording $(RECORDING)) $(if $(DOCS),--write-docs)

# After functions of a worker were renamed or many added (worker/running.py).
running: $(VENV)/.bench
	PYTHONPATH=tests:tests/support:. $(BIN)/python -m bench.running_code

# tests/autobahn/run.py takes a server that runs elsewhere, too.
autobahn: $(VENV)/.test
	PYTHONPATH=tests/support $(BIN)/python tests/autobahn/run.py

clean:
	rm -rf $(VENV) $(PEERS) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
