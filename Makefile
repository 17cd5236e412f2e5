# Everything a newcomer needs: Python 3.11 or newer, make, and a package registry.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export CJ_HOME ?= $(CURDIR)/.cj
# Two BLAS threads on two busy cores are far slower than one, and the matrices here are small.
export OPENBLAS_NUM_THREADS ?= 1
# Every run in Dagster is a process of its own: without compiled files each would compile its imports.
export PYTHONDONTWRITEBYTECODE :=

# The fast tests, as pytest's options.
ON_TWO_CORES := -n 2 --dist worksteal
QUICK := $(ON_TWO_CORES) -m "not journey and not slow and not postgres"

.PHONY: demo ui docs test test-all nightly newest check lock clean sbom audit

$(VENV)/.runtime: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-dev.lock
	touch $@

demo: $(VENV)/.runtime  ## Judge, score and grade the example batches, then show what came out
	$(BIN)/cj demo

ui: $(VENV)/.runtime  ## Serve the Dagster UI over what the demo made
	$(BIN)/cj ui

docs: $(VENV)/.dev  ## Build the documentation into site/; a broken link fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "Open site/index.html, or with search: $(BIN)/python -m http.server -d site"

STYLE = $(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

# Each tier holds the one before it; tests/conftest.py says which tests are in which.
check: $(VENV)/.dev  ## Style, types, direction of imports, and the tests of single modules
	$(STYLE)
	$(BIN)/python -m pytest $(ON_TWO_CORES) -m "not batch and not journey and not slow and not postgres"

test: $(VENV)/.dev  ## `make check`, and everything else a change needs to know
	$(STYLE)
	$(BIN)/python -m pytest $(QUICK)

test-all: test  ## `make test`, then every journey, kills, a daemon, the browser and PostgreSQL
	$(BIN)/python -m pytest $(ON_TWO_CORES) -m "journey and not slow and not postgres"
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "slow or postgres"

nightly: $(VENV)/.dev  ## What takes an hour: every kill point, 1,000 kills of store commands, 100,000 fuzzed results and files
	CJ_TESTS=nightly $(BIN)/python -m pytest -rP tests/journeys/test_killed_anywhere.py \
		tests/journeys/test_fuzzed_results.py tests/journeys/test_killed_at_any_instant.py \
		tests/journeys/test_restless_operator.py tests/journeys/test_hosts.py tests/cj_pipeline/intake
	$(MAKE) newest

sbom: $(VENV)/.dev  ## What an image holds: a bill of materials (CycloneDX) and its licences, into sbom/
	$(BIN)/python deploy/bill_of_materials.py sbom

audit: $(VENV)/.dev  ## Published advisories on what is shipped; says so where no source can be reached
	@$(BIN)/python deploy/audit.py || [ $$? = 3 ]

newest:  ## Run the fast tests on the newest of everything, in an environment thrown away; never fails
	@home=$$(mktemp -d) && trap 'rm -rf "$$home"' EXIT && new=$$home/bin/python && \
	$(PYTHON) -m venv "$$home" && \
	$$new -m pip install --quiet --upgrade pip && \
	$$new -m pip install --quiet --editable . --group build --group dev && \
	$$new -m pip install --quiet --upgrade dagster dagster-webserver && \
	sed -n 's/^\([^ ]*==[^ ]*\).*/\1/p' requirements-dev.lock >"$$home/locked" && \
	echo "newest: not the versions in the lock:" && \
	{ $$new -m pip freeze --exclude-editable | tr A-Z_ a-z- | grep -vxFf "$$home/locked" || echo none; } && \
	if $$new -m pip install -q --dry-run --no-deps "duckdb-extension-quack>=2" >/dev/null 2>&1; \
	then echo "newest: DuckDB 2 has extensions, see docs/decisions/0018-duckdb-2.md"; fi && \
	$$new -m pytest $(QUICK) && echo "newest: all passed" || \
	echo "newest: FAILED, as shown above; the versions in the lock are not concerned"

RESOLVE := uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-header --quiet --group build

# Everything is resolved together first, since dagster-postgres names one Dagster exactly: what is
# run, what is tested and what is deployed are then the same versions.
lock:  ## Resolve the dependencies anew; needs uv
	$(RESOLVE) --upgrade --all-extras --group dev -o requirements-dev.lock
	$(RESOLVE) -c requirements-dev.lock -o requirements.lock
	$(RESOLVE) -c requirements-dev.lock --all-extras -o deploy/requirements.lock

clean:  ## Remove the environment and what the demo made
	rm -rf $(VENV) .cj site sbom
