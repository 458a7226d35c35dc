# Everything starts from a clone and Python 3.11+:  make demo · make test
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help install demo test check format serve clean

help: ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

install: $(INSTALLED) ## Make .venv with everything in it

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[server,dev]'
	touch $@

demo: $(INSTALLED) ## Serve, train, post, estimate, and draw the curve (about two minutes)
	$(BIN)/python examples/modular_addition.py --serve --out demo

test: $(INSTALLED) ## The tests, on real PostgreSQL and Valkey
	$(BIN)/python -m pytest --cov --cov-report=term

check: $(INSTALLED) ## Format, lint, types, imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/pyright

format: $(INSTALLED) ## Format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

serve: $(INSTALLED) ## The whole stack on this machine
	$(BIN)/lambdahat serve

clean: ## Remove .venv, caches and the demo's output
	rm -rf $(VENV) demo .pytest_cache .ruff_cache .coverage*
