# Everything runs in a virtual environment of its own, set up on first use. `make help` lists the targets.

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
LAUNCHERS := $(VENV)/.launchers
SERVER := $(VENV)/.server
NOTEBOOKS := $(VENV)/.notebooks
# The first Python here that is 3.11 to 3.13 and starts; PYTHON=... chooses another.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$python && break; done)
# MNIST may lie beside the checkout.
ifneq ($(wildcard ../shared/data),)
export EXPERIMENTS_DATA_DIR ?= $(abspath ../shared/data)
endif
PORT ?= 5000
ARGS ?=

# A setting of the program that is typed as a variable of make would have no effect.
UNKNOWN := $(strip $(filter-out VENV BIN PYTHON PORT ARGS EXPERIMENTS_DATA_DIR,$(foreach name,$(.VARIABLES),\
	$(if $(findstring command line,$(origin $(name))),$(name)))))
ifneq ($(UNKNOWN),)
$(error make has no variable $(UNKNOWN); try  make $(MAKECMDGOALS) ARGS="$(foreach name,$(UNKNOWN),$(name)=$($(name)))")
endif

.PHONY: help run test check ui server format wheel launchers notebooks clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 20

run: $(INSTALLED) ## train the default network; ARGS="optimizer=adam epochs=3" overrides
	@$(BIN)/python scripts/quickstart.py $(ARGS)

test: $(INSTALLED) ## run the tests
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(INSTALLED) ## lint, types, YAML
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/yamllint --strict conf .yamllint.yaml

ui: $(INSTALLED) ## open the records at http://127.0.0.1:5000 (PORT=... for another)
	@$(BIN)/python scripts/ui.py $(PORT)

server: $(SERVER) ## try a team's MLflow server: PostgreSQL, access control, loopback only (PORT=...)
	@$(BIN)/python scripts/server.py $(PORT)

format: $(INSTALLED) ## let ruff format and fix the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

wheel: $(INSTALLED) ## build a wheel into dist/
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

launchers: $(LAUNCHERS) ## add the joblib and Ray launchers, see docs/scaling.md

notebooks: $(NOTEBOOKS) ## add a kernel for Jupyter, see docs/python.md

clean: ## remove the environment and what tools left behind; records stay
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis

INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps

# The newest pip needs half the time of those that Python brings along. Without ensurepip (a package of its own on
# Debian) the system's pip installs it.
$(INSTALLED): requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11, 3.12 or 3.13 found; install one, or name it: make PYTHON=/path/to/python3.12 ..." >&2; exit 2; }
	@echo "setting up $(VENV) with $(PYTHON): a few minutes, once"
	@$(PYTHON) -m venv --clear $(VENV) 2>/dev/null || { $(PYTHON) -m venv --clear --without-pip $(VENV) && \
	$(PYTHON) -m pip --python $(abspath $(BIN)/python) install --quiet pip; }
	@$(INSTALL) --upgrade pip
	@$(INSTALL) -r requirements.txt
	@$(INSTALL) --no-build-isolation --editable .
	@touch $@

$(LAUNCHERS): requirements-launchers.txt $(INSTALLED)
	@$(INSTALL) -r requirements-launchers.txt
	@touch $@

$(NOTEBOOKS): requirements-notebooks.txt $(INSTALLED)
	@$(INSTALL) -r requirements-notebooks.txt
	@touch $@

$(SERVER): requirements-server.txt $(INSTALLED)
	@$(INSTALL) -r requirements-server.txt
	@touch $@
