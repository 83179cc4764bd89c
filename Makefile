# Everything a developer or a newcomer does. `make` alone lists it.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
READY   = $(VENV)/.ready
SEEDS  ?= 1
# Tests at once: those with real servers mostly wait.
JOBS   ?= 3

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast faults check format bench constraints clean

help: ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY) ## See sample sessions arrive: embedded Redis, one worker, three destinations
	@$(BIN)/labrelay demo

test: $(READY) ## Run every test: unit, integration with real servers, faults
	@$(BIN)/pytest tests -n $(JOBS) --dist worksteal

test-fast: $(READY) ## Run the unit tests alone
	@$(BIN)/pytest tests/unit

faults: $(READY) ## Run the whole fault matrix; SEEDS="1 2 3" chooses the seeds
	@$(BIN)/python tests/faults/matrix.py $(SEEDS)

check: $(READY) ## Lint, format, types, import directions, file sizes
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python tests/house_rules.py

format: $(READY) ## Format and sort imports
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(READY) ## Measure submit and delivery on this machine
	@$(BIN)/python benchmarks/throughput.py

constraints: $(READY) ## Renew constraints.txt from what is installed
	@{ sed -n '1,2p' constraints.txt; $(BIN)/pip freeze --exclude-editable | grep -vE '^(pip|setuptools)=='; } > constraints.new
	@mv constraints.new constraints.txt

clean: ## Remove the environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(READY): pyproject.toml constraints.txt
	@echo "labrelay: setting up $(VENV) (about a minute the first time)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "labrelay needs Python 3.11 or newer; set PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all]' --group dev
	@touch $(READY)
