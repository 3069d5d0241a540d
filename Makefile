# make demo: trains a small model with all losses on emoji scenes, evaluates it, draws it.
# make demo-video: trains a tower to name directions of motion, and from it a small model of SCL on
#   emoji videos, half of which are others backwards.
# make test: style, types, and the tests that take seconds each.
# make test-slow: the tests that take minutes.
# make docs: the pages and a reference from docstrings, as build/site/index.html.
# All make their own virtual environment, the demos with what they need alone; PYTHON=python3.12
#   picks the interpreter.
# make locked: one for training and the demo from files with the hashes in requirements.lock only;
#   make demo VENV=.venv-locked then uses it.
# make lock: writes requirements.lock anew, after a change of setup.cfg or constraints.txt.
# make audit: asks pip-audit's service for known vulnerabilities of what requirements.lock lists.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN ?= runs/demo
RUN_DIRECTIONS ?= runs/demo_directions
RUN_VIDEO ?= runs/demo_video

.PHONY: demo demo-video test test-slow docs lint format locked lock audit clean

# Each step reuses the memory that the step before it freed: docs/performance.md section 6.
KEPT := glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=9223372036854775807
demo demo-video: export GLIBC_TUNABLES ?= $(KEPT)

demo: $(VENV)/ready-demo
	$(BIN)/python -m semmim_jax.main --config=configs/pretrain.py:demo --workdir=$(RUN)

demo-video: $(VENV)/ready-demo
	$(BIN)/python -m semmim_jax.main --config=configs/completion.py:demo_directions \
	    --workdir=$(RUN_DIRECTIONS)
	$(BIN)/python -m semmim_jax.main --config=configs/completion.py:demo_video \
	    --workdir=$(RUN_VIDEO) --config.init_from=$(RUN_DIRECTIONS)

test: lint
	$(BIN)/python -m pytest -m 'not slow' --numprocesses=logical --maxprocesses=4 --dist=loadfile

test-slow: $(VENV)/ready
	$(BIN)/python -m pytest -m slow --numprocesses=logical --maxprocesses=4 --dist=loadfile

docs: $(VENV)/ready-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/ready-demo: setup.py setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    --constraint constraints.txt --editable '.[demo]'
	touch $@

$(VENV)/ready: $(VENV)/ready-demo
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    --constraint constraints.txt --editable '.[demo,test]'
	touch $@

$(VENV)/ready-docs: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    --constraint constraints.txt --editable '.[docs]'
	touch $@

locked:
	$(PYTHON) -m venv $(VENV)-locked
	$(VENV)-locked/bin/python -m pip install --quiet --disable-pip-version-check \
	    --require-hashes --requirement requirements.lock
	$(VENV)-locked/bin/python -m pip install --quiet --disable-pip-version-check \
	    --no-deps --no-build-isolation --editable .
	touch $(VENV)-locked/ready-demo

lock: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	echo setuptools | $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
	    --generate-hashes --no-header --no-annotate --no-emit-index-url \
	    --extra demo --constraint constraints.txt setup.cfg - \
	    --output-file requirements.lock

audit: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	$(BIN)/pip-audit --requirement requirements.lock --require-hashes --disable-pip

clean:
	rm -rf $(VENV) runs .cache
