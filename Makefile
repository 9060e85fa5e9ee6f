# One verb a task.  `make` alone lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
CHILDREN ?= 20000
PORT ?= 8400
ONLY ?=
SEED ?= $(shell date +%Y%m%d)
EVERY ?= 1
# More than the cores: much of a test waits for a process, a disk or a page.
WORKERS ?= 3
PACKAGES := broker linkage agreements audit

.PHONY: help demo test check deploy-check written format bench faults properties spark lock vendor clean

help: ## List what can be typed here
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

demo: $(VENV)/run.stamp ## A synthetic area, three organisations, the whole way; keeps serving (ARGS=--once CHILDREN=n PORT=n)
	@$(BIN)/python -m deploy.demo --children $(CHILDREN) --port $(PORT) $(ARGS)

test: $(VENV)/test.stamp ## Install the test tools, then pass every test (ARGS="-k words" for some, WORKERS=n)
	@$(BIN)/python deploy/test_tools.py
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --durations 20 $(ARGS)

check: $(VENV)/test.stamp ## Format, lint, security rules, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/bandit -q -c pyproject.toml -r $(PACKAGES) deploy
	$(BIN)/mypy
	$(BIN)/lint-imports

deploy-check: $(VENV)/test.stamp ## Hold everything in deploy/ to its own tool, offline (needs nginx, caddy and systemd)
	@$(BIN)/python -c 'import kubernetes_validate' 2>/dev/null || { echo "Installing the tools of deploy-check (once) ..."; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --require-hashes -r requirements-deploy.lock; }
	@$(BIN)/python deploy/check.py
	@$(BIN)/python deploy/test_tools.py
	$(BIN)/python -m pytest -q tests/deploy $(ARGS)

written: $(VENV)/run.stamp ## Write anew what deploy/ has from the code: example configuration, inventory
	@$(BIN)/python -m deploy.configuration
	@$(BIN)/python -m deploy.assurance

format: $(VENV)/test.stamp ## Put the format right
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

bench: $(VENV)/test.stamp ## Every benchmark table, as ratios of one run (ONLY=linkage|privacy|audit|agreements|ingest|journeys or one; SIZE=small)
	$(BIN)/python -m tests.benchmarks $(ONLY)

faults: $(VENV)/test.stamp ## Every fault F01-F32, its points counted (SEED=n, EVERY=n: every nth point alone)
	@$(BIN)/python deploy/test_tools.py
	$(BIN)/python -m tests.faults -n 2 --dist worksteal --seed $(SEED) --every $(EVERY) $(ARGS)

properties: $(VENV)/test.stamp ## The laws of decision, linkage and log, ten times as long
	HYPOTHESIS_PROFILE=long INCREMENTAL_EXAMPLES=200 $(BIN)/python -m pytest -n 2 --dist worksteal tests/agreements tests/spec \
	  tests/audit tests/linkage/matching tests/broker/test_api_document.py tests/broker/test_submitter.py $(ARGS)

spark: $(VENV)/test.stamp ## Install PySpark (456 MB; needs Java 17) and hold it to DuckDB's results
	@command -v java >/dev/null || { echo "make spark needs Java 17 or newer"; exit 2; }
	@$(BIN)/python -c 'import pyspark' 2>/dev/null || { echo "Installing PySpark (once) ..."; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --require-hashes -r requirements-spark.lock; }
	$(BIN)/python -m pytest tests/linkage/matching/test_spark.py $(ARGS)

lock: ## Resolve the lock files anew (maintainers; needs uv)
	@command -v uv >/dev/null || { echo "make lock needs uv: pip install uv"; exit 2; }
	printf 'setuptools>=80\n' > build-backend.in
	uv pip compile pyproject.toml build-backend.in --extra agency --extra broker --extra auditor --extra evaluation \
	  --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
	  --custom-compile-command "make lock" --quiet -o requirements.lock
	uv pip compile pyproject.toml build-backend.in --extra agency --extra broker --extra auditor --extra evaluation --extra test --extra dev \
	  --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate -c requirements.lock \
	  --custom-compile-command "make lock" --quiet -o requirements-test.lock
	uv pip compile pyproject.toml --extra spark --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
	  -c requirements-test.lock --custom-compile-command "make lock" --quiet -o requirements-spark.lock
	for image in "broker --extra broker --extra pkcs11" "gateway --extra agency"; do set -- $$image; name=$$1; shift; \
	  uv pip compile pyproject.toml build-backend.in "$$@" --extra auditor --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate -c requirements-test.lock --custom-compile-command "make lock" --quiet \
	  -o deploy/images/$$name.lock || exit 1; done
	uv pip compile pyproject.toml --extra deploy-check --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
	  -c requirements-test.lock --custom-compile-command "make lock" --quiet -o requirements-deploy.lock
	rm build-backend.in

vendor: ## Fetch and rewrite the pages' vendored assets (maintainers; needs node)
	$(PYTHON) deploy/vendor_frontend.py

clean: ## Remove what was built here (not the virtual environment)
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# A virtual environment in two steps: what a user runs, then the test tools on top.  Plain pip, so that a mirror or a
# certificate set up for pip is honoured; hashes, so that nothing else gets in.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed"; exit 2; }
	@echo "Making a virtual environment ..."
	@$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: requirements.lock pyproject.toml | $(VENV)/bin/python
	@echo "Installing the locked packages (once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary :all: --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/test.stamp: requirements-test.lock pyproject.toml | $(VENV)/bin/python
	@echo "Installing the locked packages and test tools (once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary :all: --require-hashes -r requirements-test.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@ $(VENV)/run.stamp
