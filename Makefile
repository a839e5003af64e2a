# make demo | test | wheel | lint | format | lines. The first three set everything up themselves.
PYTHON ?= python3
PYTEST_FLAGS ?= -n 2

BIN := .venv/bin
# A stamp stands for the virtual environment with everything installed.
STAMP := .venv/.stamp-dev
SOURCES := dlm evals examples tests

define WORD_PROBLEM
Nina starts with 12 shells, wins 5, loses 4 and then doubles what is left. How many shells does she have?
endef

define CODE_PROMPT
def transform(xs):
    """Keep only the even numbers, multiply each number by 3 and return the sum."""

endef

export WORD_PROBLEM CODE_PROMPT
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help demo test wheel lint format lines

help:
	@echo "make demo    decode a word problem and a small function with the bundled model"
	@echo "make test    lint, types and all tests"
	@echo "make wheel   build the wheel and try it on every Python that is here"
	@echo "make lint    ruff and mypy"
	@echo "make format  rewrite the sources as ruff wants them"
	@echo "make lines   files and their line counts"

demo: $(STAMP)
	$(BIN)/dlm generate "$$WORD_PROBLEM"
	$(BIN)/dlm generate "$$CODE_PROMPT"

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_FLAGS)

wheel: $(STAMP)
	$(BIN)/python -m tests.wheel_check $(DLM_WHEEL_FLAGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict dlm

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lines:
	@find $(wildcard $(SOURCES)) -name '*.py' | LC_ALL=C sort | xargs wc -l | awk ' \
		$$2 == "total" { next } \
		{ split($$2, at, "/"); sum[at[1]] += $$1; files[at[1]]++; print } \
		END { for (top in sum) printf "%5d %s/ (%d files)\n", sum[top], top, files[top] }'

$(STAMP): pyproject.toml constraints.txt
	$(BIN)/python -c "" 2>/dev/null || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@
