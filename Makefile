# All commands of the project. They need only Python >= 3.11 with venv, make and git.
SHELL := /bin/sh
PYTHON ?= python3
UV_VERSION := 0.13.9
export UV_PYTHON_DOWNLOADS := never
# With this variable, each process that tests start would compile all modules again.
unexport PYTHONDONTWRITEBYTECODE

UV := .uv/bin/uv
# If PYTHON changes, .venv is made again.
MADE_WITH := .venv/.made-with-$(subst /,-,$(PYTHON))
RUN := .venv/bin
PROTOS := $(sort $(shell find protos/mooring -name '*.proto'))
SOURCES := chassis domain broker_service registry_service gateway migrations local bench tests

.PHONY: run test test-all screenshots bench check protos migrate clean help

run: .venv/.run  ## starts all processes and a PostgreSQL on this machine
	@exec $(RUN)/python -m local

# Three workers on two cores, because tests spend much time waiting. Files run in the order of their
# names: the unit tests, which are short, come last, so that no long file is left at the end.
test: .venv/.dev  ## runs the tests that are not heavy (a minute long, or with a heavyweight server)
	$(RUN)/python -m pytest -m 'not heavy' -n 3 --dist loadfile --no-loadscope-reorder

test-all: .venv/.dev  ## runs the heavy tests
	$(RUN)/python -m pytest -m heavy

screenshots: .venv/.dev  ## takes the pictures of the console in docs/images again
	@exec $(RUN)/python -m tests.browser.screenshots

bench: .venv/.bench  ## measures this machine: bench/results.md; ROW=storm,idle measures some rows
	@exec $(RUN)/python -m bench $(ROW)

check: .venv/.dev  ## checks format, lint, types, protos, tables, vendored files and the subjects of commits
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/mypy $(SOURCES)
	$(RUN)/buf lint protos
	$(RUN)/python -m tests.drift protos
	$(RUN)/python -m tests.drift tables
	$(RUN)/python -m tests.vendored
	$(RUN)/python -m tests.commits

protos: .venv/.dev  ## regenerates protos/gen
	$(RUN)/python -m tests.drift protos --write

migrate: .venv/.run  ## brings the database named by MOORING_DATABASE_URL up to date
	$(RUN)/python -m migrations

clean:  ## removes what make made; never MOORING_HOME
	rm -rf .venv .uv .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis

help:  ## lists these targets
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/\1\t\2/p' $(firstword $(MAKEFILE_LIST)) | \
	  while IFS="$$(printf '\t')" read -r target does; do printf '%-10s %s\n' "$$target" "$$does"; done

$(UV):
	$(PYTHON) -m venv .uv
	.uv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(MADE_WITH): | $(UV)
	$(UV) venv --quiet --clear --python $(PYTHON)
	@touch $@

.venv/.run: uv.lock pyproject.toml $(MADE_WITH) | $(UV)
	$(UV) sync --quiet --locked --inexact --extra local --python $(PYTHON)
	@touch $@

.venv/.dev: uv.lock pyproject.toml $(MADE_WITH) | $(UV)
	$(UV) sync --quiet --locked --extra local --group dev --python $(PYTHON)
	@rm -f .venv/.bench
	@touch $@ .venv/.run

.venv/.bench: uv.lock pyproject.toml $(MADE_WITH) | $(UV)
	$(UV) sync --quiet --locked --inexact --extra local --group bench --python $(PYTHON)
	@touch $@
