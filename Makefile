# make demo | serve | test | wheel | docs | lint | format | lines. The first five set everything up
# themselves.
PYTHON ?= python3
PYTEST_FLAGS ?= -n 2 --dist worksteal
SERVE_FLAGS ?=

BIN := .venv/bin
# A stamp stands for the virtual environment with everything installed.
STAMP := .venv/.stamp-dev
SOURCES := dlm docs evals examples tests
ENGINE := core cache guidance unmasking decode engine model
# The site's tools have an environment of their own, without torch.
DOCS_BIN := build/docs/venv/bin
DOCS_STAMP := build/docs/venv/.stamp

define WORD_PROBLEM
Nina starts with 12 shells, wins 5, loses 4 and then doubles what is left. How many shells does she have?
endef

define CODE_PROMPT
def transform(xs):
    """Keep only the even numbers, multiply each number by 3 and return the sum."""

endef

export WORD_PROBLEM CODE_PROMPT
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help demo serve test wheel docs lint format lines

help:
	@echo "make demo    decode a word problem and a small function with the bundled model"
	@echo "make serve   serve the bundled model at http://127.0.0.1:8000 (SERVE_FLAGS=...)"
	@echo "make test    lint, types and all tests"
	@echo "make wheel   build the wheel and try it on every Python that is here"
	@echo "make docs    build the documentation site; a dead link fails"
	@echo "make lint    ruff and mypy"
	@echo "make format  rewrite the sources as ruff wants them"
	@echo "make lines   files and lines of each room, and files of more than 300"

demo: $(STAMP)
	$(BIN)/dlm generate "$$WORD_PROBLEM"
	$(BIN)/dlm generate "$$CODE_PROMPT"

serve: $(STAMP)
	exec $(BIN)/dlm serve $(SERVE_FLAGS)

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_FLAGS)

wheel: $(STAMP)
	$(BIN)/python -m tests.wheel_check $(DLM_WHEEL_FLAGS)

docs: $(DOCS_STAMP)
	$(DOCS_BIN)/python docs/build.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict dlm

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lines:
	@find $(wildcard $(SOURCES)) -name '*.py' | LC_ALL=C sort | xargs wc -l | awk -v engine="$(ENGINE)" ' \
		BEGIN { split(engine, names, " "); for (i in names) counts["dlm/" names[i]] = 1 } \
		$$2 == "total" { next } \
		{ depth = split($$2, at, "/"); room = at[1] (at[1] == "dlm" && depth > 2 ? "/" at[2] : ""); \
		  if (!(room in lines)) order[++rooms] = room; \
		  lines[room] += $$1; files[room]++; \
		  if ($$1 > 300) long[++longs] = $$1 " " $$2; \
		  if (room in counts) { lines["engine"] += $$1; files["engine"]++ } \
		  if (at[1] == "dlm") { lines["all"] += $$1; files["all"]++ } } \
		END { row = "%-18s %3d files %6d lines\n"; \
		  for (i = 1; i <= rooms; i++) printf row, order[i] "/", files[order[i]], lines[order[i]]; \
		  printf row, "the seven rooms", files["engine"], lines["engine"]; \
		  printf row, "dlm in all", files["all"], lines["all"]; \
		  for (i = 1; i <= longs; i++) print "more than 300 lines: " long[i] }'

$(STAMP): pyproject.toml constraints.txt
	$(BIN)/python -c "" 2>/dev/null || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

$(DOCS_STAMP): pyproject.toml constraints.txt
	$(DOCS_BIN)/python -c "" 2>/dev/null || $(PYTHON) -m venv --clear build/docs/venv
	$(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"], sep="\n")' \
		| $(DOCS_BIN)/python -m pip install --quiet -c constraints.txt -r /dev/stdin
	@touch $@
