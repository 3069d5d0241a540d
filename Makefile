# make demo: trains a small model with all losses on emoji scenes, evaluates it, draws it.
# make test: the whole test suite.
# Both make their own virtual environment; PYTHON=python3.12 picks the interpreter.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN ?= runs/demo

.PHONY: demo test lint format clean

demo: $(VENV)/ready
	$(BIN)/python -m semmim_jax.main --config=configs/pretrain.py:demo --workdir=$(RUN)

test: lint
	$(BIN)/python -m pytest --numprocesses=logical --maxprocesses=4 --dist=loadfile

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/ready: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    --constraint constraints.txt --editable '.[demo,test]'
	touch $@

clean:
	rm -rf $(VENV) runs .cache
