# Two commands do everything: `make run` and `make test`. The rest is for developers.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_ENV := PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

.PHONY: run test lint types prove bench pins clean

# The set-up: a virtual environment with pinned, hashed dependencies, made once and again when the pins change.
$(BIN)/.ready: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mailtui needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(PIP_ENV) $(BIN)/pip install --quiet --require-hashes -r requirements.txt
	$(PIP_ENV) $(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

run: $(BIN)/.ready
	@$(BIN)/mailtui

# Three workers, for many tests wait; who has done his share takes from the others. Bytecode is written even where the
# environment says no: many tests start processes.
test: $(BIN)/.ready
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 3 --dist worksteal tests

lint: $(BIN)/.ready
	$(BIN)/ruff check src tests bench
	$(BIN)/ruff format --check src tests bench

types: $(BIN)/.ready
	$(BIN)/mypy

# Sizes, times, memory, kills, a million rows: minutes, by hand (bench/README.md).
prove: $(BIN)/.ready
	$(BIN)/python -m bench.prove

# mailtui and Postfix in turn on loopback.
bench: $(BIN)/.ready
	$(BIN)/python -m bench.relay

# After a change of the dependencies in pyproject.toml.
pins: $(BIN)/.ready
	$(BIN)/pip-compile --quiet --upgrade --extra dev --generate-hashes --allow-unsafe --no-emit-index-url \
	  --no-emit-find-links --strip-extras --output-file requirements.txt pyproject.toml

clean:
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
