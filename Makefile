# Everything runs from .venv, which the targets make and fill themselves: Python 3.11+ and make
# are all a fresh machine needs. `make PYTHON=python3.13 test` picks another interpreter.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install -q
# One BLAS thread a worker: two workers with two threads each would fight over two cores.
TESTS := OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto
RUFF := $(BIN)/ruff format --check -q . && $(BIN)/ruff check -q .

.PHONY: help demo test test-all lint bench results docs notebooks data clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1|/p' Makefile | awk -F'|' '{ printf "  make %-9s %s\n", $$1, $$2 }'

demo: $(VENV)/.run  ## train a small network and show what the compiler did to it
	$(BIN)/python -m gemmc demo

test: $(VENV)/.test  ## the tests, the format and the linter
	$(TESTS)
	$(RUFF)

test-all: $(VENV)/.test  ## the same, with the slow tests
	$(TESTS) -m ""
	$(RUFF)

lint: $(VENV)/.test  ## the format, the linter and the types
	$(RUFF)
	@mkdir -p .typecheck && ln -sfn .. .typecheck/gemmc
	$(BIN)/mypy

bench: $(VENV)/.test  ## measure gemmc beside PyTorch on this machine, a quarter of an hour, and keep it
	$(BIN)/gemmc bench spiral --against torch,torch-tuned,jax --json bench/measured/spiral.json
	$(BIN)/gemmc bench fashion-mnist --against torch,torch-tuned,torch-compile,onnxruntime \
	  --mode both --json bench/measured/fashion-mnist.json
	$(BIN)/gemmc bench sweep --json bench/measured/sweep.json
	$(MAKE) results

results: $(VENV)/.run  ## write the README's table of results again, from bench/measured
	$(BIN)/python -m gemmc.bench.readme README.md bench/measured/*.json

docs: $(VENV)/.run  ## write docs/ops.md again, from the table of ops
	$(BIN)/python -m gemmc.ir.ops_table > docs/ops.md.new
	@mv docs/ops.md.new docs/ops.md

notebooks: $(VENV)/.test  ## run the notebooks of examples again, and keep their outputs
	$(BIN)/python tools/run_notebooks.py

data: $(VENV)/.run  ## make the shipped subset of Fashion-MNIST again, from the whole set
	$(BIN)/python tools/make_fashion_subset.py

clean:  ## remove what was built; .venv stays, and is filled again
	rm -rf build dist *.egg-info .typecheck .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -f $(VENV)/.made $(VENV)/.run $(VENV)/.test
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# The stamps: an install happens once, and again when pyproject.toml changes.

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "gemmc needs Python 3.11 or newer, $(PYTHON) is" \
	    "$$($(PYTHON) --version 2>&1 || true): try make PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.run: pyproject.toml $(VENV)/.made
	$(PIP) -e .
	@touch $@

$(VENV)/.test: $(VENV)/.run
	$(PIP) -e '.[test]'
	@touch $@
