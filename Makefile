# Needs python3 (3.10 or newer, with venv) and make. Everything else goes into .venv, which is
# made on first use and belongs to this file: a half-made one is thrown away.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.SUFFIXES:

override VENV := .venv
PY := $(VENV)/bin/python
UV := $(VENV)/bin/uv
STAMP := $(VENV)/.stamp
DOCS_STAMP := $(VENV)/.stamp-docs

# What the caller's environment must not leak into ours; $(shell) needs to be told by itself.
unexport PYTHONHOME PYTHONPATH VIRTUAL_ENV PYTHONDONTWRITEBYTECODE
export PYTHONNOUSERSITE := 1
CLEAN := unset PYTHONHOME PYTHONPATH VIRTUAL_ENV;

# The newest suitable one. Each is run, since a launcher may exist without its interpreter.
PYTHON ?= $(shell $(CLEAN) for p in python3.13 python3.12 python3.11 python3.10 python3; do \
	"$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' \
	>/dev/null 2>&1 && { echo "$$p"; break; }; done)

# The stamp is written last and names its place: no stamp, a moved checkout or a python that is
# gone all mean "start again".
VENV_OK := $(shell $(CLEAN) test "$$(cat $(STAMP) 2>/dev/null)" = "$$(pwd -P)" \
	&& $(PY) -m pip --version >/dev/null 2>&1 && echo yes)

.PHONY: help setup demo test slow test-all upgrade lowest newest lint format types notebooks docs wheel check clean FORCE

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP)  ## make .venv with everything installed (the others do it by themselves)
	@echo "$(VENV) is ready"

demo: $(STAMP)  ## compare strategies on the bundled data, on the CPU
	@$(PY) -m tokenred compare --demo

# One thread for each of the few workers: more would fight over the cores.
PYTEST = @OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(PY) -m pytest -n auto --maxprocesses 4 \
	$(if $(COVERAGE),--cov=tokenred --cov-report=term:skip-covered)

test: $(STAMP)  ## run the tests (COVERAGE=yes: and demand that they reach the code)
	$(PYTEST) $(PYTEST_ARGS)

slow: $(STAMP)  ## run the tests that make test leaves out because they take long
	$(PYTEST) -m slow $(PYTEST_ARGS)

test-all: $(STAMP)  ## both at once
	$(PYTEST) -m 'slow or not slow' $(PYTEST_ARGS)

upgrade: $(STAMP)  ## raise constraints.txt, the tested versions, to the newest ones
	@$(PY) scripts/versions.py upgrade

lowest: $(STAMP)  ## run a choice of tests with the lowest declared versions, in .venv-lowest
	@$(PY) scripts/versions.py lowest $(PYTEST_ARGS)

newest: $(STAMP)  ## the same with the newest versions, in .venv-newest, if newer than the tested ones
	@$(PY) scripts/versions.py newest $(PYTEST_ARGS)

lint: $(STAMP)  ## ruff: style and format
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

format: $(STAMP)  ## ruff: repair style and format
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

types: $(STAMP)  ## mypy --strict
	@$(PY) -m mypy

notebooks: $(STAMP)  ## run every notebook on the CPU; none may have outputs in git
	@$(PY) scripts/run_notebooks.py

# NOTEBOOKS=no leaves their outputs out, to look at pages and links quickly.
docs: $(DOCS_STAMP)  ## build the documentation into site/ (NOTEBOOKS=no: without running them)
	@if test "$(NOTEBOOKS)" != no; then \
		$(PY) scripts/run_notebooks.py --output build/notebooks; fi
	@NO_MKDOCS_2_WARNING=1 TOKENRED_PLUGINS=0 \
		TOKENRED_NOTEBOOKS="$$(test "$(NOTEBOOKS)" = no || echo build/notebooks)" \
		$(PY) -m mkdocs build --strict
	@echo "site/index.html is ready"

wheel: $(STAMP)  ## build wheel and sdist into dist/, check and try both
	@rm -rf dist
	@$(PY) -m build --no-isolation --outdir dist >/dev/null
	@$(PY) scripts/check_wheel.py dist

check: lint types notebooks wheel  ## lint, types, notebooks and wheel

clean:  ## remove what was built or cached (.venv and the like stay)
	@rm -rf build dist site htmlcov .coverage .coverage.* tokenred-out \
		.hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find . -path './$(VENV)*' -prune -o -path ./.git -prune -o \
		-type d -name __pycache__ -exec rm -rf {} +

FORCE:

$(STAMP): pyproject.toml constraints.txt $(if $(VENV_OK),,FORCE)
ifeq ($(VENV_OK),)
	@test -n "$(PYTHON)" || { echo "Python 3.10 or newer with its venv module is needed" \
		"(Debian, Ubuntu: apt install python3-venv); make PYTHON=/path/to/python3 names one." >&2; \
		exit 1; }
	@echo "== making $(VENV) with $(PYTHON) (PyTorch is large: the first time takes a while)"
	@rm -rf $(VENV)
	@"$(PYTHON)" -m venv $(VENV)
endif
	@rm -f $@
	@$(UV) --version >/dev/null 2>&1 \
		|| $(PY) -m pip install --quiet --disable-pip-version-check --force-reinstall uv \
		|| echo "== uv could not be installed: going on with pip, which is slower"
	@$(PY) scripts/versions.py install dev
	@pwd -P > $@

# What only the documentation needs; anew when .venv or pyproject.toml is.
$(DOCS_STAMP): $(STAMP)
	@$(PY) scripts/versions.py install dev docs
	@touch $@
