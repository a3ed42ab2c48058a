# make run         finds winning tickets in real digits; prints where they are
# make quick       the tests to run while working, under 5 minutes
# make test        everything that CI runs
# make test-slow   by hand; the last result is in docs/slow_tests.md
# make faults      kills lotteries, by hand: KILLS=500; result in docs/reliability.md
# make bench       measures anew what benchmarks/RESULTS.md says: hours
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SHARED := $(wildcard ../shared/data)

export TF_CPP_MIN_LOG_LEVEL ?= 3
ifneq ($(SHARED),)
export TFDS_DATA_DIR ?= $(abspath $(SHARED)/tfds)
export KERAS_LOTTERY_DATA ?= $(abspath $(SHARED)/raw)
endif

.PHONY: run test quick test-slow faults bench lint format clean

run: $(VENV)/installed-all
	$(BIN)/keras-lottery run

# A file's tests stay in one process: they share what is trained once.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --doctest-modules
# Several devices have to be there before TensorFlow starts: by themselves.
ALONE := tests/distribution

test: lint
	$(PYTEST) -m "not slow" --durations=15 --ignore=$(ALONE) \
	    keras_lottery tests; others=$$?; \
	$(PYTEST) -m "not slow" --durations=15 $(ALONE) && exit $$others

quick: lint
	$(PYTEST) -q -m "not slow and not thorough" --ignore=$(ALONE) \
	    keras_lottery tests; others=$$?; \
	$(PYTEST) -q -m "not slow and not thorough" $(ALONE) && exit $$others

test-slow: $(VENV)/installed-test
	$(BIN)/python -m pytest -m slow tests

KILLS ?= 500
SEED ?= 0
faults: $(VENV)/installed-test
	PYTHONPATH=. $(BIN)/python tests/faults/kills.py --kills=$(KILLS) \
	    --seed=$(SEED) --to=results/faults/kills_$(KILLS)_$(SEED).json

bench: $(VENV)/installed-bench
	$(BIN)/python benchmarks/bench.py

lint: $(VENV)/installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: $(VENV)/installed-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Editable, so that the tests run what is checked out.
$(VENV)/installed-%: setup.py pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[$*]"
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
