# Two commands: `make quickstart` and `make test`. Each sets up what it needs, and starts at once the second time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
READY_DEV := $(VENV)/.ready-dev

.PHONY: quickstart quickstart-full test test-slow bench lint clean

$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)

$(READY): pyproject.toml | $(BIN)/pip
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	touch $@

$(READY_DEV): pyproject.toml $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

quickstart: $(READY)  ## prompt, retrieve, finetune and compare a real 135M model on the tickets task
	$(BIN)/python examples/tickets/quickstart.py

quickstart-full: $(READY)  ## the same on every row
	$(BIN)/python examples/tickets/quickstart.py --full

lint: $(READY_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint  ## everything that must hold, in minutes
	$(BIN)/python -m pytest

test-slow: $(READY_DEV)  ## the slow tier as well
	$(BIN)/python -m pytest -m 'slow or not slow'

bench: $(READY)  ## training side by side with other tools, whose environments it makes; about an hour
	$(BIN)/python benchmarks/train.py --search --out benchmarks/results/lora.json --plot benchmarks/results/lora.svg

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
