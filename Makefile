# Everything runs in .venv, which the first target builds: Python 3.11 and make are all it takes.
PYTHON ?= python3.11
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
STAMP := $(VENV)/.installed

# One thread a process: Ray's workers fill the processors, and threads on top of them only wait for each other.
export OMP_NUM_THREADS ?= 1
export RAY_USAGE_STATS_ENABLED ?= 0
# A Ray started here asks for a token of this checkout's own, instead of one it would leave in the home folder.
export RAY_AUTH_MODE ?= token
export RAY_AUTH_TOKEN_PATH ?= $(CURDIR)/$(VENV)/ray-token
export IDGBR_DATA ?= $(CURDIR)/.data
export MLFLOW_DISABLE_TELEMETRY ?= true
export MPLBACKEND ?= Agg

# Two processes of tests, each with a Ray of its own. The slow ones run one by one: their clusters are many processes each.
PARALLEL ?= --numprocesses 2 --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo serve test test-slow soak browser lint clean

help:
	@echo "make demo       train, evaluate and refine on synthetic scenes (about 15 minutes on 2 cores)"
	@echo "make serve      the demo's model behind http://127.0.0.1:8000, with a page to look at"
	@echo "make test       ruff, mypy, import-linter, tests (8 minutes on 2 cores)"
	@echo "make test-slow  the tests that start clusters, services and jobs (25 minutes); installs Chromium where it can"
	@echo "make soak       20 races of promotions, workers killed again and again, larger scenes: by hand, about an hour"
	@echo "make clean      remove the virtual environment"

# Built anew only when the lock or the project's metadata change; pip then installs only what differs.
$(STAMP): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
	# A baseline that is compiled on installation; without a C++ compiler the tables do without DenseCRF.
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps "pydensecrf2>=1.1,<2" \
		|| echo "DenseCRF is left out of the tables: pydensecrf2 needs a C++ compiler"
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
	$(BIN)/pytest -m slow

# What CI leaves out: repetitions of faults that `make test-slow` injects once, and scenes of 2,000 and 4,000 px.
soak: $(STAMP)
	$(BIN)/pytest -m soak
	$(BIN)/python jobs/benchmark.py memory

# The page is tested in a browser: Debian's, where root may install it.
browser:
	@if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then :; \
	elif test "$$(id -u)" = 0 && command -v apt-get >/dev/null; then \
		apt-get install --yes --quiet --no-install-recommends chromium chromium-driver \
			|| { apt-get update --quiet && apt-get install --yes --quiet --no-install-recommends chromium chromium-driver; } \
			|| echo "The page is not tested: chromium and chromium-driver could not be installed"; \
	else echo "The page is not tested: install chromium and chromedriver (Debian: apt-get install chromium chromium-driver)"; fi

clean:
	rm -rf $(VENV)
