# The commands of the README are `make demo`, `make test` and `make fuzz`. Each makes .venv, installs what it needs and runs; the
# second time it finds that done. They need Python 3.10 or later with venv, and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
QUIET := -qq --disable-pip-version-check
TEST_WORKERS ?= 2
# Folders that have nothing for make test-fast: it is faster not to look there.
NOT_FAST := fuzz mutants packaging torture
FUZZ_SECONDS ?= 600
FUZZ_SEED ?= 1
FUZZ_RUNS ?= 20000
TORTURE_MUTANTS ?= 1000000
TORTURE_SEED ?= 1
MUTANTS_SINCE ?=
MUTANTS_SAMPLE ?= $(if $(MUTANTS_SINCE),all,150)
MUTANTS_SEED ?= 1
MUTANTS_SECONDS ?= 3600

.DEFAULT_GOAL := help
.PHONY: help demo test clients apps test-fast lint fuzz fuzz-seeded torture mutants bench bench-quick clean

help: ## list these commands
	@echo "securefs: encrypts what your users upload"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## start the reference app on 127.0.0.1 with a key and a token of its own
	@$(BIN)/securefs demo $(DEMO_ARGS)

test: $(VENV)/.test ## run all tests with coverage
	@echo "Running the tests (a quarter of an hour on two cores) ..."
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest -q --durations=5 --numprocesses=$(TEST_WORKERS) --dist=loadfile --no-loadscope-reorder $(PYTEST_ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

clients: $(VENV)/.clients ## install the upload clients of pip and npm that tests/clients tries
	@echo "They are in $(VENV)/clients. The other clients are Debian packages: their tests name them."

apps: $(VENV)/.apps ## install the Django applications of examples/ that tests/test_examples_django.py drives
	@echo "They are in $(VENV)/apps."

test-fast: $(VENV)/.test ## run the tests that start no server and no browser and are not slow (under a minute)
	@$(BIN)/python -m pytest -q --numprocesses=$(TEST_WORKERS) --dist=worksteal $(NOT_FAST:%=--ignore=tests/%) -m 'not server and not browser and not slow' $(PYTEST_ARGS)

lint: $(VENV)/.test ## check style, types, dependency rules and known insecure patterns
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --strict
	@$(BIN)/lint-imports
	@$(BIN)/bandit --quiet --configfile pyproject.toml --recursive securefs/*.py securefs/app securefs/cli securefs/integrations securefs/keys middleware audit gunicorn.conf.py

fuzz: $(VENV)/.test ## fuzz uploads, guided by coverage and chance, for FUZZ_SECONDS (600)
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/python -m pip install $(QUIET) --editable '.[fuzz]' 2>/dev/null || true
	@$(BIN)/python tests/fuzz/campaign.py --seconds $(FUZZ_SECONDS)

fuzz-seeded: $(VENV)/.test ## check FUZZ_RUNS (20000) mutated uploads that follow from FUZZ_SEED (1) alone
	@$(BIN)/python tests/fuzz/campaign.py --seed $(FUZZ_SEED) --runs $(FUZZ_RUNS)

torture: $(VENV)/.test ## mutate files of both formats, a million times, and read them with five readers (a quarter of an hour)
	@$(BIN)/python tests/torture/campaign.py --mutants $(TORTURE_MUTANTS) --seed $(TORTURE_SEED)

mutants: $(VENV)/.test ## put MUTANTS_SAMPLE (150) small faults into the code, and see that tests find each (twenty minutes)
	@$(BIN)/python tests/mutants/campaign.py --sample $(MUTANTS_SAMPLE) --seed $(MUTANTS_SEED) --seconds $(MUTANTS_SECONDS) \
	  $(if $(MUTANTS_SINCE),--since $(MUTANTS_SINCE)) $(MUTANTS_ONLY)

bench: $(VENV)/.bench ## measure, side by side with peers (ten minutes); the figures also go to build/bench.json
	@$(BIN)/python -m bench --json build/bench.json

bench-quick: $(VENV)/.test ## measure the ratios that matter (a minute)
	@$(BIN)/python -m bench --quick

clean: ## remove .venv and everything that the other commands made
	rm -rf $(VENV) build dist *.egg-info .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "securefs needs Python 3.10 or later: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' || { echo "Python's venv module is missing: apt-get install python3-venv" >&2; exit 1; }
	@echo "Making $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml
	@echo "Installing securefs and its server into $(VENV) (once, about half a minute) ..."
	@$(BIN)/python -m pip install $(QUIET) --editable '.[fast,server]'
	@touch $@

$(VENV)/.test: $(VENV)/bin/python pyproject.toml
	@echo "Installing securefs and what its tests need into $(VENV) (once, about a minute) ..."
	@$(BIN)/python -m pip install $(QUIET) --editable '.[dev]'
	@touch $@ $(VENV)/.demo

# In folders of their own: nothing else in the environment may come to need them.
$(VENV)/.clients: $(VENV)/.test Makefile
	@echo "Installing upload clients ..."
	@rm -rf $(VENV)/clients
	@$(BIN)/python -m pip install $(QUIET) --target $(VENV)/clients/python 'httpx>=0.28' 'aiohttp>=3.14'
	@$(BIN)/python -m pip install $(QUIET) --target $(VENV)/clients/urllib3-1.24 --no-deps urllib3==1.24.3 six
	@# Its own copy of six does not import on Python 3.12 and later.
	@mv $(VENV)/clients/urllib3-1.24/six.py $(VENV)/clients/urllib3-1.24/urllib3/packages/
	@command -v npm >/dev/null || { echo "npm is missing: apt-get install npm" >&2; exit 1; }
	@npm install --prefix $(VENV)/clients --no-audit --no-fund --loglevel=error 'axios@>=1' 'form-data@>=4' 'got@>=13' 'undici@>=6'
	@touch $@

# In a folder of their own, too: Wagtail alone needs forty packages.
$(VENV)/.apps: $(VENV)/.test Makefile
	@echo "Installing Django applications ..."
	@rm -rf $(VENV)/apps
	@$(BIN)/python -m pip install $(QUIET) --target $(VENV)/apps 'django>=5.2.19,<6' 'easy-thumbnails>=2.10' \
	  'django-import-export>=4.4' 'django-filer>=3.6' 'wagtail>=8' 'django-storages[s3]>=1.14' 'moto>=5.2'
	@touch $@

$(VENV)/.bench: $(VENV)/.test
	@echo "Installing what securefs is measured beside ..."
	@$(BIN)/python -m pip install $(QUIET) --editable '.[bench]' || echo "Not all of it is there: the tables name what is missing."
	@touch $@
