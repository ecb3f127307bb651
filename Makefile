# `make check` is what CI runs. PYTHON names the environment: make check PYTHON=/path/to/python
PYTHON ?= $(if $(wildcard .venv/bin/python),.venv/bin/python,python3)

.PHONY: check lint types imports test slow mutate fuzz fix docs site release bench

check: lint types imports test

lint:
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .

types:
	$(PYTHON) -m mypy

imports:
	$(PYTHON) -c "from importlinter.cli import lint_imports_command; lint_imports_command()"

test:
	$(PYTHON) -m pytest -q -n auto

# Everything that needs neither a GPU nor published weights.
slow:
	$(PYTHON) -m pytest -q -n auto -m "not gpu and not weights"

# Thousands of damaged files for every reader; prints how many were tried, read, refused and bad.
fuzz:
	RLZOO_FUZZ=2000 $(PYTHON) -m pytest -q -s tests/test_fuzz.py

# Plants the bugs of tests/planted/bugs.toml one by one in a copy and says which the tests notice: half an hour.
mutate:
	$(PYTHON) tests/planted/run.py

fix:
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

# Generated pages: the plugin table, the command-line reference, the dump of the public interface.
docs:
	$(PYTHON) docs/generate.py

# The documentation site, in build/site; a dead link is an error. Needs the extra `site`.
site:
	$(PYTHON) docs/site.py
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build -q

# Wheel and sdist in dist/, then the wheel in a clean environment: it must start and find every plugin.
release:
	PYTHON=$(PYTHON) sh .ci/release

bench:
	$(PYTHON) -m rlzoo bench run $(SUITE)
	$(PYTHON) -m rlzoo bench report $(SUITE)
