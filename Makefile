# The verbs of this project. `make` alone lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
UV := $(shell command -v uv 2>/dev/null)

# The page is built from these; PAGE_LIBRARIES is what npm writes last where it puts what the page is built with.
PAGE := services/gateway/page/index.html
PAGE_LIBRARIES := web/node_modules/.package-lock.json
PAGE_SOURCES := $(wildcard web/*.html web/*.json web/*.ts) $(shell find web/src 2>/dev/null)

# npm would put the libraries into one folder twice at once, as two environments share theirs.
.NOTPARALLEL:
# What a build left that failed is no page.
.DELETE_ON_ERROR:

.PHONY: help run test check format page screenshots bench faults secrets lock clean

help: ## List the verbs
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

run: .venv/run ## Run the whole room on http://127.0.0.1:8888
	@$(MAKE) --no-print-directory page || echo "So the page is as it was built before, or there is none; the room runs." >&2
	@exec $(BIN)/m3 up

test: .venv/dev .venv-litellm/ready $(PAGE_LIBRARIES) $(PAGE) ## Run every test
	@exec $(BIN)/pytest

check: .venv/dev $(PAGE_LIBRARIES) ## Lint, check the format and the types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	web/npm run --silent check

format: .venv/dev $(PAGE_LIBRARIES) ## Lay the code out
	$(BIN)/ruff check --fix --quiet || true
	$(BIN)/ruff format
	web/npm run --silent format

page: $(PAGE) ## Build the page from web/
	@:

screenshots: .venv/dev page ## Take the README's pictures anew, into docs/pictures
	@exec $(BIN)/python -m tests.browser.screenshots

MEASURES := roundtrip first_delta agents flood fanout live many accept history listing idle checking sealing page

bench: .venv/dev $(PAGE) ## Measure everything that bench/results.md tells, an hour; ONLY=<name> for one
	@set -e; for name in $(or $(ONLY),$(MEASURES)); do $(BIN)/python -m bench.$$name; done

faults: .venv/dev ## Kill, freeze and cut off everything under load, most of an hour; ONLY=<name> for one fault
	@exec $(BIN)/python -m tests.faults $(ONLY)

SECRETS := broker_password database_password erlang_cookie grafana_password

secrets: ## Make what is missing of the secrets of a compose deployment, in deploy/secrets
	@mkdir -p -m 700 deploy/secrets
	@set -e; umask 077; cd deploy/secrets; random() { head -c $$1 /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }; \
		for name in $(SECRETS); do test -s $$name || random 24 > $$name; done; \
		test -s token_keys || printf 'k1:%s' "$$(random 32)" > token_keys; \
		test -s llm_api_key || echo none > llm_api_key; \
		test -e content_keys || : > content_keys # to seal what is said it takes a line like that of token_keys
	@cd deploy/secrets && chmod 644 $(SECRETS) token_keys llm_api_key content_keys # whoever runs in a container may read it; on the machine, the folder keeps others out

lock: .venv/dev $(PAGE_LIBRARIES) ## Pin the dependencies anew (needs uv)
	@test -n "$(UV)" || { echo "make lock needs uv: https://docs.astral.sh/uv/" >&2; exit 1; }
	$(call compile,requirements.lock) --extra otel --group build pyproject.toml
	$(call compile,requirements-dev.lock) --extra otel --group build --group dev pyproject.toml
	$(call compile,tests/litellm.lock) tests/litellm.in
	$(call compile,web/node.lock) web/node.in
	web/npm update --package-lock-only

clean: ## Remove the environments, the page and caches; the room's data stay
	rm -rf .venv .venv-litellm .venv-node web/node_modules services/gateway/page .mypy_cache .pytest_cache .ruff_cache .hypothesis

# Lock files carry hashes and no registry address, so that they hold behind any mirror.
compile = uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --custom-compile-command "make lock" -o $(1)

# $(call environment,FOLDER,LOCK FILE): an environment with just what the lock file says, which is all of it: pip 23 would
# look for a newer release of what another package wants with an extra, and refuse that for want of a hash.
ifdef UV
environment = test -x $(1)/bin/python || uv venv -q --python '>=3.11' $(1); \
	uv pip install -q --python $(1) --no-deps --require-hashes -r $(2)
else
environment = test -x $(1)/bin/pip || $(PYTHON) -m venv $(1); \
	$(1)/bin/pip install -q --disable-pip-version-check --no-deps --require-hashes -r $(2)
endif
# $(call project,FOLDER): the project itself, linked into an environment that has all it needs.
ifdef UV
project = uv pip install -q --python $(1) --no-deps --no-build-isolation -e .
else
project = $(1)/bin/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
endif

.venv/run: requirements.lock pyproject.toml
	@echo "Making the environment in .venv …"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || test -n "$(UV)" || \
		{ echo "M3 needs Python 3.11 or newer; set PYTHON=python3.11 or install uv." >&2; exit 1; }
	@set -e; $(call environment,.venv,requirements.lock); $(call project,.venv)
	@touch $@

.venv/dev: requirements-dev.lock .venv/run
	@echo "Adding what the tests need …"
	@set -e; $(call environment,.venv,requirements-dev.lock)
	@touch $@

.venv-litellm/ready: tests/litellm.lock
	@echo "Making the environment of a third-party model server in .venv-litellm …"
	@set -e; $(call environment,.venv-litellm,tests/litellm.lock)
	@touch $@

# The versions of node that web/package.json takes; a test compares them.
NODE_WILL_DO := const [major, minor] = process.versions.node.split(".").map(Number); \
	process.exit(major > 22 || (major === 20 && minor > 18) || (major === 22 && minor > 11) ? 0 : 1)
NODE := $(if $(shell command -v npm >/dev/null && node -e '$(NODE_WILL_DO)' 2>/dev/null && echo yes),,.venv-node/ready)

.venv-node/ready: web/node.lock
	@echo "Fetching node into .venv-node, for building the page …"
	@set -e; $(call environment,.venv-node,web/node.lock)
	@touch $@

$(PAGE_LIBRARIES): web/package-lock.json | $(NODE)
	@echo "Fetching the page's libraries into web/node_modules …"
	@web/npm ci --loglevel=error || { echo "npm did not fetch the page's libraries. Where there is no way to \
	$$(web/npm config get registry), set npm_config_registry to a mirror of it; where a proxy has a certificate of its own, \
	NODE_EXTRA_CA_CERTS to the file that has that." >&2; exit 1; }
	@touch $@

# The libraries are no prerequisite: a page that is newer than its sources stands without them, and without node.
$(PAGE): $(PAGE_SOURCES)
	@$(MAKE) --no-print-directory $(PAGE_LIBRARIES)
	@echo "Building the page …"
	@web/npm run --silent build -- --logLevel=warn
