# Everything starts from a clone and Python 3.11+:  make demo · make test
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help install demo runs test coverage check format serve bench-peers bench-speed bench-accuracy bench-stages soak fuzz clean

help: ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

install: $(INSTALLED) ## Make .venv with everything in it

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[server,dev]'
	touch $@

demo: $(INSTALLED) ## Serve, train, post, estimate, and draw the curve (about two minutes)
	$(BIN)/python examples/modular_addition.py --serve --out demo

runs: $(INSTALLED) ## Three training runs with three seeds each → docs/runs.md and its pictures
	OMP_NUM_THREADS=1 $(BIN)/python examples/figure.py --run --out docs

# Half of the time that all tests take.
HALF := tests/llc tests/bench tests/lambdahat
PYTEST := $(BIN)/python -m pytest

test: $(INSTALLED) ## The tests, on real PostgreSQL and Valkey; in two halves, the mathematics in one, for two cores
	@log=$$(mktemp); \
	COVERAGE_FILE=.coverage.half $(PYTEST) $(HALF) >$$log 2>&1 & half=$$!; \
	COVERAGE_FILE=.coverage.rest $(PYTEST) $(HALF:%=--ignore=%); rest=$$?; \
	wait $$half; half=$$?; cat $$log; rm -f $$log; \
	exit $$((rest + half))

coverage: $(INSTALLED) ## The tests, and which lines they don't reach (half as long again)
	@rm -f .coverage*
	$(MAKE) test PYTEST="$(PYTEST) --cov --cov-report="; status=$$?; \
	$(BIN)/coverage combine --quiet .coverage.half .coverage.rest && $(BIN)/coverage report; exit $$status

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

bench-peers: ## Make the peers' environments, .venv-peers: what the benchmarks compare us with
	PYTHON=$(PYTHON) bench/peers/install.sh

bench-accuracy: $(INSTALLED) ## Every method on problems with known answers → docs/accuracy.md: hours; ARGS=--quick: minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m bench.accuracy $(ARGS)

bench-speed: $(INSTALLED) bench-peers ## Row-steps per second beside the peers: docs/speed.md (half an hour, one thread)
	OMP_NUM_THREADS=1 $(BIN)/python -m bench.speed

bench-stages: $(INSTALLED) ## Planted stages found again, beside other ways → docs/stages.md (an hour)
	PYTHON=$(PYTHON) bench/peers/install.sh segmentation
	OMP_NUM_THREADS=1 $(BIN)/python -m bench.stages $(ARGS)

soak: $(INSTALLED) ## Jobs under faults, ten seeds of 200 shards and 60 faults each (an hour and a half)
	$(BIN)/python -m tests.chaos.soak $(ARGS)

fuzz: $(INSTALLED) ## Hostile and damaged files, and requests made up from the OpenAPI (half an hour)
	$(BIN)/python -m tests.hostile.mutations
	PYTHON=$(PYTHON) tests/hostile/install.sh
	$(BIN)/python -m tests.hostile.schema

clean: ## Remove .venv, caches and the demo's output
	rm -rf $(VENV) demo .pytest_cache .ruff_cache .coverage*
