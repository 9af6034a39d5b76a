# The only entry point. A machine with Python 3.11+, make and a network needs nothing else.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
UV := $(shell command -v uv 2>/dev/null || echo $(BIN)/uv)
MEMBERS := $(wildcard libs/*/pyproject.toml services/*/pyproject.toml)
PACKAGES := $(patsubst %/pyproject.toml,%,$(MEMBERS))
COMPILE := $(UV) pip compile pyproject.toml $(MEMBERS) --group dev --universal --generate-hashes --no-header -q \
	$(foreach m,$(MEMBERS),--no-emit-package cortex-$(notdir $(patsubst %/pyproject.toml,%,$(m))))
PYTEST := $(BIN)/python -m pytest
export UV_PYTHON_DOWNLOADS := never
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
# Compiled once at the installation: the services start in half the time.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help install compile up down env check format lint types layers unit test test-compiled test-integration test-system bench lock lock-check docs clean

help: ## Show this help
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Cortex needs Python 3.11 or newer ($(PYTHON) is older). Try: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "Python cannot make a virtual environment here. On Debian or Ubuntu: apt install python3-venv"; exit 1; }

$(VENV)/.installed: $(BIN)/python requirements.lock pyproject.toml $(MEMBERS)
	@[ -x "$(UV)" ] || command -v $(UV) >/dev/null || { echo "installing uv"; $(BIN)/python -m pip install -q --disable-pip-version-check uv==$(UV_VERSION); }
	@echo "installing the locked packages (a few minutes the first time)"
	@$(UV) pip install -q --compile-bytecode --require-hashes -r requirements.lock
	@$(UV) pip install -q --no-deps $(foreach p,$(PACKAGES),-e ./$(p))
	@touch $@

install: $(VENV)/.installed ## Make .venv from requirements.lock

up: install ## Start Cortex here with a demo model (Ctrl-C stops it)
	@$(BIN)/cortex up $(ARGS)

down: install ## Stop a Cortex that runs in the background
	@$(BIN)/cortex down

check: install lock-check ## Format, lint, types, layers, unit tests
	@$(BIN)/ruff format --check -q . && $(BIN)/ruff check -q .
	@$(BIN)/pyright --warnings
	@$(BIN)/lint-imports
	@$(MAKE) --no-print-directory unit

format: install ## Format and fix what can be fixed
	@$(BIN)/ruff check -q --fix . ; $(BIN)/ruff format .

unit: install ## Unit tests alone (no network, under 10 s)
	@$(PYTEST) -q -m "not integration and not docker and not system and not vllm and not slow" \
		$(wildcard libs/*/tests/unit services/*/tests/unit) services/orchestrator/tests/contract

# What uses the Docker engine runs one test after the other, because a swarm made or left by one changes the networks of all others, but
# beside those that do not use it: both wait more than they compute. Its output is shown when it is through. Exit status 5: ARGS chose no
# test of that half. RETRY=1 repeats what failed, once, with nothing beside it: what passes then depends on the load of the machine.
# Three workers even on two cores, for the same reason, and files in the order of `testpaths`, so that short ones come last.
# Tests that drive a browser come after both, in processes of their own: Playwright leaves an event loop running in its thread.
# $(1): which tests, $(2): a name for its cache, $(3): how.
define run_tests
$(PYTEST) -q -o cache_dir=.pytest_cache/$(2) -m $(1) $(3) $(ARGS)
endef
define run_again
if [ $$status -eq 1 ] && [ -n "$(RETRY)" ]; then \
	echo "== some failed; those once more, with nothing beside them =="; \
	$(call run_tests,$(1),$(2),--last-failed --last-failed-no-failures none); \
else \
	[ $$status -eq 0 ] || [ $$status -eq 5 ]; \
fi
endef

compile: install ## Compile the gateway's hot path (needs cc and Python.h; `cortex up` then uses it)
	@$(BIN)/python services/gateway/compile.py --into $(VENV)/compiled

test: install ## All tests: unit, integration and system, on real servers (ARGS="services/registry -k usage")
	@mkdir -p .pytest_cache; said=.pytest_cache/docker.log; \
	set -m; $(call run_tests,"docker",docker,) > $$said 2>&1 & docker=$$!; set +m; \
	trap "kill -INT -- -$$docker; wait $$docker" INT TERM; \
	$(call run_tests,"not docker and not browser",others,-n 3 --dist loadfile --no-loadscope-reorder); others=$$?; \
	wait $$docker; docker=$$?; cat $$said; \
	$(call run_tests,"browser",browser,-n 2 --dist loadfile); browser=$$?; \
	failed=0; \
	status=$$others; $(call run_again,"not docker and not browser",others) || failed=1; \
	status=$$browser; $(call run_again,"browser",browser) || failed=1; \
	status=$$docker; $(call run_again,"docker",docker) || failed=1; \
	exit $$failed

test-compiled: install ## The gateway's tests against real servers once more, in its compiled form
	@[ -d $(VENV)/compiled ] || { echo "there is no compiled gateway: make compile"; exit 1; }
	@PYTHONPATH=$(CURDIR)/$(VENV)/compiled $(PYTEST) -q services/gateway/tests/integration -m "not vllm" -n 3 --dist loadfile $(ARGS)

test-integration: install ## Tests against real NATS, Postgres, llama-server (and Docker when there is one)
	@$(PYTEST) -q -m "integration or docker" $(ARGS)

test-system: install ## Tests of the whole stack
	@$(PYTEST) -q -m system $(ARGS)

env: ## Write .env for docker compose, with fresh secrets (ARGS="--models /srv/models --profiles gpu")
	@$(PYTHON) deploy/make_env.py $(ARGS)

docs: install ## Generate docs/api, the NATS users, the settings of Compose, the Grafana boards and the tables of metrics from the code
	@$(BIN)/python -m cortex_contracts.asyncapi > docs/api/asyncapi.json
	@$(BIN)/python -m cortex_registry openapi > docs/api/openapi.json
	@$(BIN)/python -m cortex_contracts.permissions > deploy/nats/users.conf
	@$(BIN)/python deploy/render_settings.py > deploy/services.env.example
	@$(BIN)/python deploy/grafana/render_boards.py
	@$(BIN)/python deploy/render_metrics.py

lock: $(BIN)/python ## Write requirements.lock anew (UPGRADE=1 takes newer releases)
	@[ -x "$(UV)" ] || command -v $(UV) >/dev/null || $(BIN)/python -m pip install -q --disable-pip-version-check uv==$(UV_VERSION)
	@$(COMPILE) $(if $(UPGRADE),--upgrade) -o requirements.lock

lock-check: install
	@cp requirements.lock $(VENV)/lock-check.txt && $(COMPILE) -o $(VENV)/lock-check.txt
	@diff <(grep -vE '^ *(#|--hash)' requirements.lock) <(grep -vE '^ *(#|--hash)' $(VENV)/lock-check.txt) || { echo "requirements.lock is stale: run 'make lock'"; exit 1; }
	@! grep -nE '^(--|-e)|://' requirements.lock || { echo "requirements.lock must name no index, no path and no host"; exit 1; }

clean: ## Remove the virtual environment and caches
	@rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis .import_linter_cache
