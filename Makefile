# `make demo` and `make test` set up everything they need in .venv; a Python and a C compiler suffice.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint bench clean

demo: $(VENV)/demo
	$(BIN)/python examples/demo.py

test: lint
	$(BIN)/pytest -n auto

# Types are checked on the package as it is installed, where its folders are in their places.
lint: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf $(VENV)/typed
	$(BIN)/pip install --quiet --no-deps --target $(VENV)/typed .
	cd $(VENV)/typed && MYPYPATH=../.. ../bin/mypy --config-file ../../pyproject.toml --package cnnc --package benchmarks

bench: $(VENV)/bench
	$(BIN)/python -m benchmarks

$(VENV)/demo: pyproject.toml | $(VENV)/made
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/test $(VENV)/bench: $(VENV)/%: pyproject.toml | $(VENV)/made
	$(BIN)/pip install --quiet --editable '.[$*]'
	touch $@

$(VENV)/made:
	$(PYTHON) -m venv $(VENV)
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
