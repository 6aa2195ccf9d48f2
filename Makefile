# make demo    install what is needed into .venv and show everything once
# make test    install the development tools too, and run the tests
# make check   format, lint, types, import contracts, tests with branch coverage, docs: what a change must pass
# make docs    build the documentation into site/
# make bench   every benchmark, one after the other
# make fuzz    damaged files and requests of any kind: CONVSCOPE_FUZZ of each (2000), then SECONDS_EACH guided by coverage (60)
# make audit   known holes in what is installed
# make sbom    what is installed, as CycloneDX, into dist/
# make clean   remove what the tools left behind (.venv stays)

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test check docs bench fuzz audit sbom clean browser

export NO_MKDOCS_2_WARNING := 1

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# pip tells little: its large downloads, when it installs, and errors. torch is large: minutes the first time.
PIP_INSTALL := PYTHONWARNINGS=ignore $(BIN)/python -m pip install --disable-pip-version-check --root-user-action=ignore
LARGE_ONLY := { grep --line-buffered -oE 'Downloading .* \([0-9.]+ [MG]B\)|Installing collected packages' || true; }

help:
	@sed -n 's/^# make/make/p' Makefile

demo: $(VENV)/.installed
	@$(BIN)/convscope demo

test: $(VENV)/.installed-dev browser
	@$(BIN)/pytest

check: $(VENV)/.installed-dev browser
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	@if command -v npx >/dev/null; then npx --yes --package=typescript@7 tsc -p tests/lab; \
	else echo "npx is missing: the types of the lab's JavaScript were not checked"; fi
	$(BIN)/lint-imports --no-logo
	$(BIN)/pytest --cov --cov-report=term
	$(BIN)/mkdocs build --strict --quiet

docs: $(VENV)/.installed-dev
	$(BIN)/mkdocs build --strict --quiet
	@echo "open site/index.html"

bench: $(VENV)/.installed-dev
	@for script in bench/*.py; do echo "== $$script"; $(BIN)/python "$$script"; done

fuzz: $(VENV)/.installed-dev
	CONVSCOPE_FUZZ=$${CONVSCOPE_FUZZ:-2000} $(BIN)/pytest -q tests/test_fuzz.py tests/test_fuzz_targets.py \
	  tests/data/test_formats_fuzz.py tests/lab/test_load.py -k "not crowd"
	@if $(BIN)/python -c 'import atheris' 2>/dev/null; then $(BIN)/python tests/fuzz.py --seconds $${SECONDS_EACH:-60}; \
	else echo "guided fuzzing is left out: pip install 'convscope[fuzz]'"; fi

audit: $(VENV)/.installed-dev
	@mkdir -p dist
	@$(BIN)/python -m pip freeze --exclude-editable >dist/installed.txt
	@$(BIN)/python tests/audit.py dist/installed.txt

sbom: $(VENV)/.installed-dev
	@mkdir -p dist
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible -o dist/convscope.cdx.json $(BIN)/python

clean:
	rm -rf site build dist .coverage .coverage.* .pytest_cache .ruff_cache .hypothesis .fuzz .import_linter_cache
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "convscope needs Python 3.11 or newer; name one: make PYTHON=python3.12 ...")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "installing convscope into $(VENV) ..."
	@$(PIP_INSTALL) -e '.[pictures]' | $(LARGE_ONLY)
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	@echo "installing convscope and its development tools into $(VENV) ..."
	@$(PIP_INSTALL) -e '.[dev]' | $(LARGE_ONLY)
	@touch $@ $(VENV)/.installed

# Tests that open a page need chromium; without it they are skipped, and say so.
APT_CHROMIUM := apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	apt-get install -y -qq --no-install-recommends chromium >/dev/null
browser:
	@if command -v chromium >/dev/null; then exit 0; fi; \
	if ! command -v apt-get >/dev/null; then as=none; \
	elif [ "$$(id -u)" = 0 ]; then as="bash -c"; \
	elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then as="sudo -n bash -c"; \
	else as=none; fi; \
	if [ "$$as" != none ] && echo "installing chromium for the browser tests ..." && $$as '$(APT_CHROMIUM)'; then exit 0; fi; \
	echo "chromium is missing and could not be installed: the browser tests will be skipped (install chromium to run them)"
