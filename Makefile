# Everything a developer or a newcomer does. `make` alone lists it.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
READY   = $(VENV)/.ready
# Packages whose pins disagree with ours are tested in environments of their own.
POLYSTORE ?= .venv-polystore
NEXUSLIMS ?= .venv-nexuslims
# napari, Qt and Java's bridge are heavy (1 GB).
VIEWERS   ?= .venv-viewers
# Sphinx and its packages are no business of those who run labrelay.
DOCS      ?= .venv-docs
# Checkers of deploy/: hadolint, docker-compose, the schemas of Kubernetes.
DEPLOY    ?= .venv-deploy
SEEDS  ?= 1
# Tests at once: those with real servers mostly wait.
JOBS   ?= 3

.DEFAULT_GOAL := help
.PHONY: help demo deploy-tools test test-fast test-deploy test-polystore test-nexuslims test-viewers faults faults-requests check format docs bench \
	bench-growth bench-scale bench-storage constraints constraints-docs constraints-viewers clean

help: ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY) ## See sample sessions arrive: embedded Redis, one worker, five places
	@$(BIN)/labrelay demo

test: $(READY) $(NEXUSLIMS)/.ready test-polystore docs deploy-tools ## Run every test: unit, integration with real servers, faults
	@tests/integration/prepare.sh
	@$(BIN)/pytest tests --ignore tests/polystore --ignore tests/viewers -n $(JOBS) --dist worksteal

test-fast: $(READY) ## Run the unit tests alone
	@$(BIN)/pytest tests/unit

deploy-tools: $(DEPLOY)/.ready ## Get the programs that check deploy/: hadolint, docker-compose, Redis, promtool …
	@tests/deploy/prepare.sh

test-deploy: $(READY) deploy-tools ## Check deploy/ with real parsers and servers: access list, TLS, failover, scaling, restore
	@$(BIN)/pytest tests/deploy $(ARGUMENTS)

test-polystore: $(POLYSTORE)/.ready ## Run the tests of the bridge to the polystore package
	@$(POLYSTORE)/bin/python -m pytest --noconftest -q tests/polystore

test-nexuslims: $(READY) $(NEXUSLIMS)/.ready ## Run the tests with the real NexusLIMS package
	@$(BIN)/pytest tests/nexuslims

# The plugins of napari for pytest are for napari's own tests, and fail on its warnings.
test-viewers: $(VIEWERS)/.ready ## Stream into real napari and ImageJ on a virtual display; installs them first
	@tests/viewers/prepare.sh
	@PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 $(VIEWERS)/bin/pytest -p pytest_timeout -p xdist.plugin -n 2 --dist worksteal \
		tests/viewers $(ARGUMENTS)

faults: $(READY) ## Run the whole fault matrix; SEEDS="1 2 3" chooses the seeds
	@$(BIN)/python tests/faults/matrix.py $(SEEDS)

faults-requests: $(READY) ## Hurt every request of every destination in every way, with real workers
	@$(BIN)/python tests/faults/requests_matrix.py

check: $(READY) ## Lint, format, types, import directions, file sizes
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python tests/house_rules.py

format: $(READY) ## Format and sort imports
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

docs: $(DOCS)/.ready ## Build the documentation site into build/docs/html; a warning is an error
	@$(DOCS)/bin/python docs/site/build.py build/docs

bench: $(READY) ## Measure labrelay beside other queues, round by round; ARGUMENTS="--rounds 5" for more
	@$(BIN)/python -m benchmarks.queue $(ARGUMENTS)

bench-growth: $(READY) ## Measure how costs grow with exports and workers; ARGUMENTS="--sizes 1000 10000" for less
	@$(BIN)/python -m benchmarks.growth $(ARGUMENTS)

bench-scale: $(READY) ## Measure 1, 3 and 1 workers under load, each on a host of its own; needs root
	@$(BIN)/python -m benchmarks.scale

bench-storage: $(READY) ## Compare disk and zarr with np.save, tifffile, plain zarr and polystore
	@$(BIN)/python benchmarks/storage/storage.py --polystore install

# $(call renew,FILE,ENVIRONMENT,FILTER): write the versions that are installed below the first two lines of a file.
renew = { sed -n '1,2p' $(1); $(2)/bin/pip freeze --exclude-editable | grep -vE '^(pip|setuptools)==' | $(3); } > constraints.new \
	&& mv constraints.new $(1)

constraints: $(READY) ## Renew constraints.txt from what is installed
	@$(call renew,constraints.txt,$(VENV),cat)

constraints-docs: $(DOCS)/.ready ## Renew constraints-docs.txt from what is installed
	@$(call renew,constraints-docs.txt,$(DOCS),grep -vxFf constraints.txt)

constraints-viewers: $(VIEWERS)/.ready ## Renew constraints-viewers.txt from what is installed
	@$(call renew,constraints-viewers.txt,$(VIEWERS),grep -vxFf constraints.txt)

clean: ## Remove the environment and caches
	rm -rf $(VENV) $(POLYSTORE) $(NEXUSLIMS) $(VIEWERS) $(DOCS) $(DEPLOY) build .pytest_cache .mypy_cache .ruff_cache .hypothesis

# $(call environment,FOLDER,WHAT IS IN IT AND HOW LONG IT TAKES): make a virtual environment with a new pip.
define environment
	@echo "labrelay: setting up $(1) ($(2) the first time)"
	@$(PYTHON) -m venv $(1)
	@$(1)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip
endef
PIP = -m pip install --quiet --disable-pip-version-check

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "labrelay needs Python 3.11 or newer; set PYTHON=python3.12")'
	$(call environment,$(VENV),about a minute)
	@$(BIN)/python $(PIP) -c constraints.txt -e '.[worker,embedded,monitor,otel,zarr]' --group dev
	@touch $@

$(POLYSTORE)/.ready: pyproject.toml tests/polystore/constraints.txt
	$(call environment,$(POLYSTORE),500 MB: about a minute)
	@$(POLYSTORE)/bin/python $(PIP) -c tests/polystore/constraints.txt -e '.[worker]' polystore pytest pytest-timeout
	@touch $@

# Without its dependencies: of the 136 packages its exporters and its database need those of requirements.txt.
$(NEXUSLIMS)/.ready: pyproject.toml constraints.txt tests/nexuslims/requirements.txt
	$(call environment,$(NEXUSLIMS),about a minute)
	@$(NEXUSLIMS)/bin/python $(PIP) -c constraints.txt -e '.[worker]' -r tests/nexuslims/requirements.txt
	@$(NEXUSLIMS)/bin/python $(PIP) --no-deps nexuslims==2.8.0
	@touch $@

$(DOCS)/.ready: pyproject.toml constraints.txt constraints-docs.txt
	$(call environment,$(DOCS),Sphinx: half a minute)
	@$(DOCS)/bin/python $(PIP) -c constraints.txt -c constraints-docs.txt -e '.[worker,zarr]' --group docs
	@touch $@

$(DEPLOY)/.ready: tests/deploy/requirements.txt
	$(call environment,$(DEPLOY),the checkers of deploy/: half a minute)
	@$(DEPLOY)/bin/python $(PIP) -r tests/deploy/requirements.txt
	@touch $@

$(VIEWERS)/.ready: pyproject.toml constraints.txt constraints-viewers.txt
	$(call environment,$(VIEWERS),napari and JPype: some minutes)
	@$(VIEWERS)/bin/python $(PIP) -c constraints.txt -c constraints-viewers.txt -e '.[worker,embedded,zarr,napari,imagej]' --group dev
	@touch $@
