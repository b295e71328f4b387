# The front door. Every target first makes .venv with all that it needs; nothing else has to be installed by hand.

PYTHON  ?= python3
PROFILE ?= quick
VENV    ?= .venv
ARGS    ?=

BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
EXTRAS := .[notebooks,eval,slurm,site,dev]
QUIET  := --quiet --disable-pip-version-check
RECENT := sys.exit(sys.version_info < (3, 11))

# Python compiles what it imports and keeps that. To compile all that is installed takes long, and most is never used.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help venv reproduce test lab train publish benchmark site site-test device-test wheel-test clean
.DEFAULT_GOAL := help

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { names[++n] = $$1; says[n] = $$2; if (length($$1) > w) w = length($$1) } \
	  END { for (i = 1; i <= n; i++) printf "  make %-*s  %s\n", w, names[i], says[i] }' $(firstword $(MAKEFILE_LIST))

reproduce: $(READY) ## run the notebooks and print the paper's claims (PROFILE=quick, hour or full)
	$(BIN)/sinkprune reproduce --profile $(PROFILE) $(ARGS)

test: $(READY) ## check the style and the layers, and run the tests on all cores
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m vulture
	$(BIN)/python -m pytest -q -n auto --dist worksteal $(ARGS)

lab: $(READY) ## open the notebooks in JupyterLab
	JUPYTER_CONFIG_PATH=tools/jupyter$${JUPYTER_CONFIG_PATH:+:$$JUPYTER_CONFIG_PATH} $(BIN)/jupyter lab $(ARGS)

train: $(READY) ## train the adapter of the embedded diffusion model, or go on training it
	$(BIN)/sinkprune train $(ARGS)

publish: $(READY) ## put the results of a run into notebooks/, figures/ and README.md
	$(BIN)/sinkprune publish $(ARGS)

benchmark: $(READY) ## measure time and memory, and write docs/performance.md
	$(BIN)/python -m pytest tests/benchmarks -s --record $(ARGS)
	$(BIN)/python -m sinkprune_companion.pages

site: $(READY) ## build the static site in build/site, from what is committed
	$(BIN)/python site/build_site.py

site-test: $(READY) ## build the site, follow its links, read it in a real Chromium (three minutes)
	@command -v npm >/dev/null && npm install --silent --prefix build axe-core@4 || echo "no npm: not checked by axe"
	$(BIN)/python -m pytest -q tests/browser $(ARGS)

device-test: $(READY) ## run every notebook on a GPU, or on a pretended one, in seven minutes
	$(BIN)/python -m pytest -q tests/device_notebooks.py tests/device_cases.py $(ARGS)

wheel-test: $(READY) ## run every notebook from the wheel alone, with Colab's Jupyter (ten minutes, 2 GB)
	$(BIN)/python -m pytest tests/wheel -q $(ARGS)

venv: $(READY) ## only make .venv

clean: ## remove .venv and what tools leave behind; results in runs/ and downloaded weights stay
	rm -rf $(VENV) build dist sinkprune.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp comes last, so whatever interrupts this rule, the next make takes it up again. An environment that works is
# kept and updated; one that does not (half made, or its Python has gone or is too old) is made anew.
$(READY): pyproject.toml
	@$(BIN)/python -c 'import sys, pip; $(RECENT)' >/dev/null 2>&1 || { \
	  found=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || found=missing; \
	  $(PYTHON) -c 'import sys; $(RECENT)' 2>/dev/null || { \
	    echo "error: Python 3.11 or newer is needed and $(PYTHON) is $$found; name another one: make PYTHON=python3.12" >&2; exit 1; }; \
	  $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "error: $(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt install python$$found-venv" >&2; exit 1; }; \
	  test ! -L $(VENV) || { echo "error: $(VENV) is a link, and what it leads to would be cleared: remove the link" >&2; exit 1; }; \
  echo "making $(VENV) with Python $$found"; \
	  $(PYTHON) -m venv --clear $(VENV); }
	@echo "installing what the project needs into $(VENV): some minutes the first time"
	@export PYTHONWARNINGS='ignore:Editable install,ignore:Package'; \
	if command -v uv >/dev/null 2>&1; then \
	  uv pip install --quiet --python $(BIN)/python --editable '$(EXTRAS)'; \
	else \
	  $(BIN)/python -m pip install $(QUIET) --upgrade pip && \
	  $(BIN)/python -m pip install $(QUIET) --no-compile --editable '$(EXTRAS)'; \
	fi
	@touch $@
