# Needs Python >= 3.11 and make; everything else is installed into .venv and a cache directory.
PYTHON ?= python3
export PIPENV_VENV_IN_PROJECT = 1
export PIPENV_IGNORE_VIRTUALENVS = 1
export PIPENV_VERBOSITY = -1
# pipenv tells Python not to keep what it compiles, and each program would compile all its libraries at each start.
RUN := pipenv run env -u PYTHONDONTWRITEBYTECODE
# Where pip puts programs for this Python, which need not be on the PATH.
SCRIPTS := $(shell $(PYTHON) -c 'import site, sysconfig; print(sysconfig.get_path("scripts") + ":" + site.getuserbase() + "/bin")')
export PATH := $(PATH):$(SCRIPTS):$(CURDIR)/.tools/bin
INSTALLED := .venv/.installed
PROJECT := core ingestion_api uploader serving_api cli local_stack load_testing deployment tests

.PHONY: up down clean install vendor bench loadtest soak test test-pages test-serving test-ingestion test-parts test-security test-stack test-whole test-containers unit unit-apis unit-others mutants \
	check lint types format lock audit sbom licences compose-env compare measure

up: $(INSTALLED)  ## Start everything; Ctrl-C stops it
	@$(RUN) python -m local_stack up

down: $(INSTALLED)  ## Stop a running stack
	@$(RUN) python -m local_stack down

clean: $(INSTALLED)  ## Stop a running stack and delete its data
	@$(RUN) python -m local_stack clean

install: $(INSTALLED)  ## Install what the project needs

test: lint  ## Check the code, and run every test on real components, but for make soak
	@$(MAKE) --no-print-directory -j 4 --output-sync=line test-serving test-security test-parts test-whole test-ingestion test-stack test-pages unit-apis unit-others types

# Side by side, four at a time, the longest first. What only computes gives way to what waits for servers that compute.
test-serving: $(INSTALLED)
	nice -n 5 $(RUN) pytest tests/integration/serving_api

test-ingestion: $(INSTALLED)
	nice -n 5 $(RUN) pytest tests/integration/ingestion_api

test-parts: $(INSTALLED)
	nice -n 5 $(RUN) pytest tests/integration --ignore tests/integration/cli --ignore tests/integration/serving_api \
		--ignore tests/integration/ingestion_api --ignore tests/integration/security

test-security: $(INSTALLED)
	nice -n 5 $(RUN) pytest tests/integration/security

# Start everything for themselves.
README_TEST := tests/e2e/test_readme.py

test-stack: $(INSTALLED)
	$(RUN) pytest $(README_TEST) tests/integration/cli

test-whole: $(INSTALLED)
	$(RUN) pytest tests/e2e tests/chaos --ignore $(README_TEST) --ignore tests/e2e/pages

test-pages: $(INSTALLED)
	nice -n 5 $(RUN) pytest tests/e2e/pages

# Kills, freezes and cuts off every part for MINUTES, and sends hostile requests for MINUTES; other long tests run once.
soak: $(INSTALLED)  ## Run the tests that take too long for make test
	CHAOS_MINUTES=$(or $(MINUTES),30) FUZZ_MINUTES=$(or $(MINUTES),30) $(RUN) pytest -m soak --capture=no tests

# ROWS=10000000: with as many texts there. ONLY="single lag": some of the tables.
bench: $(INSTALLED)  ## Measure, each figure beside its peer
	$(RUN) python -m load_testing.bench $(if $(ROWS),--rows $(ROWS)) $(if $(ONLY),--only $(ONLY))

# Each name in capitals is an option of `python -m load_testing`: make loadtest USERS=100 SHAPE=steps SECONDS=200
LOAD_OPTIONS := USERS SECONDS SHAPE THINK_SECONDS RATE IN_FLIGHT MODELS REPEATS SEED TEXTS OBJECTIVE_POST_MS OBJECTIVE_GET_MS KEEP
as_option = $(if $($(1)),--$(shell echo $(1) | tr A-Z_ a-z-) $($(1)))
loadtest: $(INSTALLED)  ## Load both APIs with Locust, and report
	$(RUN) python -m load_testing $(foreach name,$(LOAD_OPTIONS),$(call as_option,$(name)))

unit: $(INSTALLED)  ## Run the tests that need no servers
	@$(MAKE) --no-print-directory -j 2 --output-sync=target unit-apis unit-others

# Two halves that take as long. What loads scikit-learn, which takes three seconds, is in one of them.
UNIT_APIS := tests/unit/core tests/unit/ingestion_api tests/unit/serving_api
UNIT_MODELS := tests/unit/core/test_classifier.py tests/unit/core/test_measures.py tests/unit/serving_api/test_serving_agreement.py

unit-apis: $(INSTALLED)
	$(RUN) pytest $(UNIT_APIS) $(addprefix --ignore ,$(UNIT_MODELS))

unit-others: $(INSTALLED)
	$(RUN) pytest $(filter-out $(addsuffix /,$(UNIT_APIS)) %/__pycache__/,$(wildcard tests/unit/*/ tests/unit/test_*.py)) $(UNIT_MODELS)

# make mutants MODULE=uploader/push/claiming.py SAMPLE=50 MINUTES=10 SEED=2 MATCH="lease_until"
mutants: $(INSTALLED)  ## Plant small faults into a MODULE, and tell which ones its tests do not notice
	@$(RUN) python -m tests.mutants --module $(MODULE) $(foreach name,SAMPLE MINUTES SEED,$(call as_option,$(name))) \
		$(if $(MATCH),--match "$(MATCH)")

check: lint types  ## Lint, types, import rules, layout, documents
	$(RUN) pytest --quiet tests/unit/test_docs.py tests/unit/test_layout.py

lint: $(INSTALLED)
	$(RUN) ruff check $(PROJECT)
	$(RUN) ruff format --check $(PROJECT)
	$(RUN) lint-imports

types: $(INSTALLED)
	nice -n 5 $(RUN) mypy

format: $(INSTALLED)  ## Put the code into its canonical form
	$(RUN) ruff check --fix $(PROJECT)
	$(RUN) ruff format $(PROJECT)

lock:  ## Pin the newest versions that Pipfile allows, without the address of a package index
	pipenv lock
	$(PYTHON) -m local_stack.locked_packages strip Pipfile.lock

audit: $(INSTALLED) sbom  ## Check locks, licences and known vulnerabilities; exit code 2: nobody could be asked
	$(RUN) pytest --quiet -m "soak or not soak" tests/unit/test_supply_chain.py
	$(RUN) python -m tests.supply_chain.vulnerabilities

sbom: $(INSTALLED)  ## List what the programs are made of as sbom.json (CycloneDX 1.6)
	PYTHONWARNINGS=ignore $(RUN) cyclonedx-py pipenv --spec-version 1.6 --output-reproducible \
		--pyproject pyproject.toml --output-file sbom.json .

vendor: $(INSTALLED)  ## Copy the pages' JavaScript packages, as packages.json pins them, from the npm registry
	$(RUN) python -m deployment.vendor

licences: $(INSTALLED)  ## Write docs/licences.md from the installed packages
	$(RUN) python -m tests.supply_chain.licences

$(INSTALLED): Pipfile.lock
	@command -v pipenv > /dev/null || $(PYTHON) -m pip install --quiet pipenv 2> /dev/null || { \
		$(PYTHON) -m venv .tools && .tools/bin/pip install --quiet pipenv && \
		echo "The system manages this Python, so pipenv is in .tools/bin: put that folder on your PATH."; }
	@echo "Installing the packages of Pipfile.lock into .venv."
	@$(PYTHON) -m local_stack.locked_packages install || pipenv sync --dev
	@touch $@

# Needs nothing installed. COMPOSE_ENV=FILE: into another file.
compose-env:  ## Make the secrets of docker compose, once
	@$(PYTHON) deployment/compose_env.py write $(or $(COMPOSE_ENV),.env)

test-containers: $(INSTALLED)  ## Build the images and try the whole compose file; needs a container engine
	$(RUN) pytest -m containers --capture=no tests/containers

# make compare STEPS="1 50" SECONDS=20 REPEATS=3 THINK_SECONDS=1. Needs a whole Java 17, and says how to get it.
compare: $(INSTALLED)  ## Put version 1 and version 2 under the same users, and report
	$(RUN) python -m load_testing.compare $(foreach name,STEPS SECONDS REPEATS THINK_SECONDS,$(call as_option,$(name)))

# Ten minutes, on a machine that has nothing else to do.
measure: $(INSTALLED)  ## Measure anew all that load_testing/README.md tells, and write it there
	$(RUN) python -m load_testing.compare
	-$(RUN) python -m load_testing --models closed --shape steps --users 40 --seconds 50 --think-seconds 0.001 \
		--results load_testing/results/steps
	$(RUN) python -m load_testing.sizing
	$(RUN) python -m load_testing.measured
