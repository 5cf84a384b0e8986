# What a person does with VX11. Needs Python 3.11+ and make; everything else goes into .venv.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
SOAK_S ?= 3600
SEEDS  ?= 50
SOAK_VICTIMS := actor madre host nats-server tentaculo_link
ROUNDS ?= 5
EXTRAS ?= local
NEEDS  := pyproject.toml deploy/constraints.txt
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint deploy/constraints.txt

.PHONY: help up test lint bench soak clean

help:
	@echo "make up     start VX11 here, in the foreground (Ctrl-C stops it), with what runs language models on this machine and a"
	@echo "            small one, which is fetched once it is up (93 MB); make up EXTRAS= leaves both out"
	@echo "make test   everything that is checked: style, types, imports, tests"
	@echo "make lint   the first three of these"
	@echo "make bench  every figure against its baseline in the same run, in a table; takes ten minutes (FIGURES=wake ROUNDS=1"
	@echo "            for one of gateway, wake, sleepers, durable, recording, replay, relaying, routing, thinking, rest and so many"
	@echo "            rounds; JSON=--json for programs)"
	@echo "make soak   1,000 forced sleeps and wakes at 500 requests/s, every answer counted; then an hour with everything"
	@echo "            killed and frozen on the way (SOAK_S=60 for a minute); then the matrix of faults, each in SEEDS=50 orders"
	@echo "make clean  remove .venv and what the tools left; data/ stays"

up: $(VENV)/.run $(EXTRAS:%=$(VENV)/.extra-%)
	@echo "The vx11 command is $(CURDIR)/$(BIN)/vx11; for this shell: export PATH=\"$(CURDIR)/$(BIN):\$$PATH\""
	@exec $(BIN)/vx11 up $(if $(filter local,$(EXTRAS)),--pull smollm2)

test: lint
	$(BIN)/python -m pytest --skips tests/skips.txt --budget 1140 || { [ $$? -eq 1 ] && $(BIN)/python -m tests.again; }

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet . || { echo "some files are not formatted; to do it: $(BIN)/ruff format ."; exit 1; }
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

bench: $(VENV)/.bench
	@$(BIN)/python -m tests.bench --rounds $(ROUNDS) $(JSON) $(FIGURES)

soak: $(VENV)/.dev
	$(BIN)/vx11 torture --cycles 1000 --rate 500 --storm 1000
	$(BIN)/vx11 torture --seconds $(SOAK_S) --rate 100 $(SOAK_VICTIMS:%=--kill %) $(SOAK_VICTIMS:%=--freeze %)
	VX11_SEEDS=$(SEEDS) $(BIN)/python -m pytest tests/faults
	VX11_LONG_LOG=1 $(BIN)/python -m pytest tests/log tests/keeper tests/replay tests/standards
	VX11_LONG_SWITCH=1 $(BIN)/python -m pytest tests/switch

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find schemas bus actors gateway tests -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is younger than what it was made from, or it is made again.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "VX11 needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Compiled beforehand: a process that compiles while it starts keeps the holes of that in its memory, 7 MB in all.
COMPILE := $(BIN)/python -m compileall -q schemas bus actors gateway

$(VENV)/.run: $(NEEDS) | $(VENV)/bin/python
	$(INSTALL) --editable .
	@$(COMPILE)
	@touch $@

# It exists for some platforms only; VX11 runs without it. Nothing is compiled: that would take a quarter of an hour.
$(VENV)/.extra-%: $(NEEDS) | $(VENV)/.run
	@$(INSTALL) --only-binary :all: --editable '.[$*]' \
	  || echo "The extra '$*' cannot be had here: VX11 runs without it. To try again: touch pyproject.toml; to leave it out: EXTRAS="
	@touch $@

$(VENV)/.bench: $(NEEDS) | $(VENV)/bin/python
	$(INSTALL) --editable '.[bench]'
	@$(COMPILE)
	@touch $(VENV)/.run $@

$(VENV)/.dev: $(NEEDS) | $(VENV)/bin/python
	$(INSTALL) --editable '.[dev]'
	@touch $(VENV)/.run $(VENV)/.extra-local $@
