# Everything runs from .venv, which the first target that needs it makes.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help train test tensorboard clean

help:
	@echo "make train        set up, then train the default task"
	@echo "make test         set up, then linter, type checker and tests"
	@echo "make tensorboard  look at all runs at http://localhost:6006"
	@echo "make clean        remove the environment; runs in outputs/ stay"

train: .venv/installed
	$(BIN)/python scripts/train.py

test: .venv/installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest -n auto

tensorboard: .venv/installed
	$(BIN)/tensorboard --logdir outputs

clean:
	rm -rf .venv

.venv/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/installed-test: .venv/installed
	$(BIN)/pip install --quiet --editable '.[test]'
	touch $@
