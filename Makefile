# `make demo` and `make test` do all the set-up themselves; `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# One worker a core, and one more: that of the flow tests, which share one applied stack, mostly waits for it.
PYTEST_WORKERS ?= $(shell $(PYTHON) -c 'import os; print((os.cpu_count() or 1) + 1)')

# What is compiled is kept: three workers compile 170 files of tests, and each process that they start compiles the package.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: setup
setup: $(INSTALLED) ## make the virtual environment in .venv; done again only when the lock or the package's settings change

$(INSTALLED): requirements-dev.lock runner/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 4))' || \
	  { echo "setup: $(PYTHON) is older than Python 3.11.4: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "setup: installing $$(grep -c '==' requirements-dev.lock) packages into $(VENV) (about a minute)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes --no-deps -r requirements-dev.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e runner
	@touch $@

.PHONY: demo
demo: setup ## the main job on the embedded AWS: apply, publish, run, audit trail; no account, no Docker
	@$(BIN)/dbt-runner local demo

.PHONY: demo-rollback
demo-rollback: setup ## a broken release and the way back, on the embedded AWS
	@$(BIN)/dbt-runner local rollback

.PHONY: test
test: setup ## what the project promises: one of each kind, for every day; test-slow has the rest
	@$(BIN)/pytest -n $(PYTEST_WORKERS) --dist loadgroup --no-loadscope-reorder

.PHONY: faults
faults: setup ## what a run survives, with figures: kills at random moments, outages of AWS, every error of every call
	@$(BIN)/pytest -n 0 -m "slow or not slow" tests/faults tests/asl/test_explore.py

.PHONY: security
security: setup ## attacks on real processes, each with a control, and a long fuzzing run; prints the figures
	@SECURITY_EXAMPLES=2000 $(BIN)/pytest -n $(PYTEST_WORKERS) --dist loadgroup -m "slow or not slow" tests/security

# It pins what the tests have another version of, hence an environment of its own; docs/adr/0002-dependencies.md.
SECOND_AWS := .second-aws/.installed
.PHONY: test-second-aws
test-second-aws: setup $(SECOND_AWS) ## the module on a second AWS (ministack, on 127.0.0.1) with IAM enforced, and its paths against moto's; 5 minutes
	@$(BIN)/pytest -n 0 -m "slow or not slow" tests/second_aws

$(SECOND_AWS): tests/second_aws/requirements.lock
	@$(PYTHON) -m venv --clear .second-aws
	@.second-aws/bin/python -m pip install -qq --disable-pip-version-check --require-hashes --no-deps -r $<
	@touch $@

.PHONY: field
field: setup ## situations from the field, each through a whole attempt on the real dbt
	@$(BIN)/pytest -n $(PYTEST_WORKERS) -m "slow or not slow" tests/field --ignore tests/field/test_differential.py

# DIFFERENTIAL_PROJECTS=1000 for more than 200.
.PHONY: differential
differential: setup ## the runner against plain dbt, node by node, on 200 projects that hypothesis makes up; prints the figures
	@$(BIN)/pytest -n $(PYTEST_WORKERS) -m "slow or not slow" tests/field/test_differential.py

.PHONY: test-slow
test-slow: setup ## what takes too long for every day: a thousand warm starts, the image, sixty kills
	@$(BIN)/pytest -n 0 -m slow --ignore tests/second_aws --ignore tests/field/test_differential.py

# IMAGE_ARGS: --warehouses postgres, --base python@sha256:..., --platform linux/arm64, --tag NAME, ...; --help lists them.
.PHONY: image
image: ## build the runner's image with docker, podman or buildah
	@$(PYTHON) runner/build_image.py build $(IMAGE_ARGS)

.PHONY: image-check
image-check: ## run the image's smoke test in it, with a read-only root and without a network
	@$(PYTHON) runner/build_image.py check $(IMAGE_ARGS)

.PHONY: image-sbom
image-sbom: ## write sbom.json (CycloneDX): every package that is installed in the image
	@$(PYTHON) runner/build_image.py sbom $(IMAGE_ARGS)

.PHONY: lint
lint: setup ## terraform fmt and validate, ruff, mypy --strict
	@command -v terraform >/dev/null || { echo "lint: terraform is not on PATH; install Terraform 1.9 or newer" >&2; exit 1; }
	TF_CLI_CONFIG_FILE=/dev/null terraform fmt -check -diff -recursive .
	$(BIN)/python -m tests.terraform.validate
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# It pins what moto and dbt have left behind, hence an environment of its own; docs/adr/0002-dependencies.md.
CHECKOV := 3.3.30
.PHONY: checkov
checkov: .checkov/.installed-$(CHECKOV) ## checkov over modules/, from an environment of its own; needs a package index
	@.checkov/bin/checkov --config-file .checkov.yaml

.checkov/.installed-$(CHECKOV):
	@$(PYTHON) -m venv --clear .checkov
	@.checkov/bin/python -m pip install -qq --disable-pip-version-check checkov==$(CHECKOV)
	@touch $@

.PHONY: format
format: setup ## write what lint would complain about
	TF_CLI_CONFIG_FILE=/dev/null terraform fmt -recursive .
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: lock
lock: ## resolve the locks anew (needs uv); they hold versions and hashes, no index
	uv pip compile -q --upgrade --no-strip-extras --generate-hashes --no-header --no-annotate --universal --python-version 3.11.4 \
	  --extra test runner/pyproject.toml -o requirements-dev.lock
	cd runner && uv pip compile -q --no-strip-extras --generate-hashes --no-header --no-annotate --universal --python-version 3.12 \
	  --only-binary :all: --constraints ../requirements-dev.lock --extra athena --extra bigquery --extra duckdb --extra lambda --extra openlineage --extra postgres --extra redshift --extra snowflake \
	  pyproject.toml requirements/build.in -o requirements/image.txt
	cd runner && uv pip compile -q --upgrade --generate-hashes --no-header --no-annotate --universal --python-version 3.11.4 \
	  --only-binary :all: requirements/sbom.in -o requirements/sbom.txt
	cd tests/second_aws && uv pip compile -q --upgrade --generate-hashes --no-header --no-annotate --universal --python-version 3.11 \
	  requirements.in -o requirements.lock

.PHONY: clean
clean: ## remove what make made
	rm -rf $(VENV) .checkov .second-aws .local .pytest_cache .mypy_cache .ruff_cache
