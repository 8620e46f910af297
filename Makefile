# Everything runs in .venv, which the first target creates. Needs Python 3.11 and make.
PYTHON ?= python3.11
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
STAMP := $(VENV)/.installed
DOCS ?= .venv-docs

# One thread per process: Ray's workers already use all cores.
export OMP_NUM_THREADS ?= 1
export RAY_USAGE_STATS_ENABLED ?= 0
# A Ray cluster started here uses a token of this checkout instead of one in the home folder.
export RAY_AUTH_MODE ?= token
export RAY_AUTH_TOKEN_PATH ?= $(CURDIR)/$(VENV)/ray-token
export IDGBR_DATA ?= $(CURDIR)/.data
export MLFLOW_DISABLE_TELEMETRY ?= true
export MPLBACKEND ?= Agg

# Two test processes, each with its own Ray.
PARALLEL ?= --numprocesses 2 --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo serve test test-slow soak browser lint docs clean

help:
	@echo "make demo       train, evaluate and refine on synthetic scenes (about 15 minutes on 2 cores)"
	@echo "make serve      serve the demo's model at http://127.0.0.1:8000: an API and a page"
	@echo "make test       ruff, mypy, import-linter, tests (about 10 minutes on 2 cores)"
	@echo "make test-slow  the tests that start clusters, services and jobs (about 40 minutes); installs Chromium where it can"
	@echo "make soak       races, kills and benchmarks at length, larger scenes: by hand, more than an hour"
	@echo "make docs       build the documentation site into site/; a broken link fails"
	@echo "make clean      remove the virtual environments and the site"

# Runs again only if the lock or the project's metadata change; pip then installs only what differs.
$(STAMP): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
	# This baseline is compiled on installation; without a C++ compiler the tables lack DenseCRF.
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps "pydensecrf2>=1.1,<2" \
		|| echo "The tables will lack DenseCRF: pydensecrf2 needs a C++ compiler"
	(umask 077; $(BIN)/python -c "import secrets; print(secrets.token_hex(32), end='')" > $(VENV)/ray-token)
	touch $@

demo: $(STAMP)
	$(BIN)/python jobs/pipeline.py --config configs/demo.yaml

serve: $(STAMP)
	$(BIN)/python -m serve_apps.run --config configs/serve/local.yaml

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

test: lint
	$(BIN)/pytest -m "not slow" $(PARALLEL)

test-slow: $(STAMP) browser
	$(BIN)/pytest -m slow $(PARALLEL)

# What CI leaves out: repetitions of faults that `make test-slow` injects once, comparing benchmarks, larger scenes.
soak: $(STAMP)
	$(BIN)/pytest -m soak
	$(BIN)/python jobs/benchmark.py memory

# The page is tested in Debian's Chromium, which is installed where root may do so.
browser:
	@if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then :; \
	elif test "$$(id -u)" = 0 && command -v apt-get >/dev/null; then \
		apt-get install --yes --quiet --no-install-recommends chromium chromium-driver \
			|| { apt-get update --quiet && apt-get install --yes --quiet --no-install-recommends chromium chromium-driver; } \
			|| echo "The page is not tested: chromium and chromium-driver could not be installed"; \
	else echo "The page is not tested: install chromium and chromedriver (Debian: apt-get install chromium chromium-driver)"; fi

# The site's packages get a separate environment, so that they cannot change the locked ones.
$(DOCS)/.installed: docs/requirements.txt
	test -x $(DOCS)/bin/python || $(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --disable-pip-version-check --quiet --requirement docs/requirements.txt
	touch $@

docs: $(DOCS)/.installed
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict --quiet
	@echo "open site/index.html"

clean:
	rm -rf $(VENV) $(DOCS) site
