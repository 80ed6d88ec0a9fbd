# The verbs of the project. Each sets up what it needs first.

VENV := .venv/bin
PYTEST := $(VENV)/python -m pytest
PARALLEL := -n 2 --dist loadfile
PROGRAMS := scripts/demo examples/three-servers/run

.PHONY: help setup setup-run demo test test-unit test-host test-slow check bench trace docs clean

help:
	@echo 'make setup      install system packages and .venv, link sublet into /usr/local/bin'
	@echo 'make demo       two versions of one database, side by side, then nothing left'
	@echo 'make test       every test that takes seconds (unit and host; root)'
	@echo 'make test-unit  no root, seconds'
	@echo 'make test-host  root: real containers and networks'
	@echo 'make test-slow  root: what takes minutes by nature'
	@echo 'make check      ruff and mypy'
	@echo 'make bench      Sublet beside Docker, Podman and the bare OCI runtimes (root)'
	@echo 'make trace      where the milliseconds of a start go, into docs/assets/start*.svg'
	@echo 'make docs       the documentation, into site/'
	@echo 'make clean      remove .venv, caches and what was built'

setup:
	@scripts/setup --dev

setup-run:
	@scripts/setup

demo: setup-run
	@$(VENV)/python scripts/demo

test: setup
	$(PYTEST) $(PARALLEL) -m 'not slow' tests

test-unit: setup
	$(PYTEST) $(PARALLEL) -m 'not slow' tests/unit

test-host: setup
	$(PYTEST) $(PARALLEL) -m 'not slow' tests/host

test-slow: setup
	$(PYTEST) -m slow tests

check: setup
	$(VENV)/ruff check . $(PROGRAMS)
	$(VENV)/ruff format --check . $(PROGRAMS)
	$(VENV)/mypy
	for program in $(PROGRAMS); do $(VENV)/mypy $$program || exit; done
	$(VENV)/mypy --explicit-package-bases scripts/errors_page.py scripts/cli_page.py scripts/guest_kernel.py bench/*.py

bench:
	@scripts/setup --bench
	$(VENV)/python -m bench

trace:
	@scripts/setup --bench
	$(VENV)/python -m bench.trace
	$(VENV)/python -m bench.trace --vm

docs: setup
	$(VENV)/python scripts/errors_page.py
	$(VENV)/python scripts/cli_page.py
	NO_MKDOCS_2_WARNING=1 $(VENV)/mkdocs build --strict --quiet

clean:
	rm -rf .venv site build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find sublet tests bench scripts -name __pycache__ -type d -prune -exec rm -rf {} +
