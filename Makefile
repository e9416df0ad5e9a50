PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EXTRAS ?= dev

.PHONY: setup run test lint bench proof lock clean
.DEFAULT_GOAL := run

$(STAMP): setup.py pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

setup: $(STAMP)  ## the virtual environment; EXTRAS=dev,train adds what the training example needs

run: $(STAMP)  ## make demo recordings, align them, look at the result
	@rm -rf demo/out
	@test -f demo/in/truth.json || $(BIN)/align synth demo/in --force
	$(BIN)/align run --source ego4d --input demo/in --output demo/out --format parquet,webdataset
	$(BIN)/align verify demo/out

lint: $(STAMP)  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint  ## every check
	$(BIN)/python -m pytest -n 2

bench: $(STAMP)  ## the short form of the benchmarks
	$(BIN)/python -m benchmarks.run --short

proof: $(STAMP)  ## the table of timing targets, measured; exits 1 if a row falls short
	$(BIN)/python -m benchmarks.proof

lock: $(STAMP)  ## write constraints.txt from what is installed and tested here
	$(BIN)/python -m pip freeze --exclude-editable --disable-pip-version-check | sed 's/+cpu$$//' > constraints.txt

clean:  ## remove what the other targets made, recordings of your own excepted
	rm -rf $(VENV) demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
