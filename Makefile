PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STYLE ?= coat

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all mutants ui lint docs audit bench clean

help:  ## show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /	/' | expand -t 10

setup: $(VENV)/installed  ## install everything into .venv

$(VENV)/program: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/installed: $(VENV)/program
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,docs]'
	@touch $@

demo: $(VENV)/program  ## run the whole chain on a sample style (STYLE=coat, dress, bag or sneaker)
	$(BIN)/fashion-pipeline run --mode full --style $(STYLE) --source data/samples

test: setup  ## run the tests that protect most
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not thorough"

test-all: setup  ## run all tests: clusters, faults, browser, Kubernetes, PostgreSQL too
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

mutants: setup  ## plant known mistakes, then small ones all over core/, and see whether tests notice
	$(BIN)/python -m tools.plant_mutations
	$(BIN)/mutmut run

ui: $(VENV)/program  ## open the Dagster UI on 127.0.0.1:3000
	$(BIN)/fashion-pipeline ui

lint: setup  ## style, import rules and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

docs: setup  ## build the documentation site into build/site and check its links
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

audit: setup  ## known vulnerabilities, licences, and a bill of materials in sbom.json; needs the internet
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[audit]'
	$(BIN)/python -m tools.licences > docs/licences.md
	$(BIN)/cyclonedx-py environment --output-reproducible --outfile sbom.json
	$(BIN)/pip-audit --progress-spinner off

bench: setup  ## benchmarks that need nothing but this machine
	$(BIN)/python -m benchmarks.loading
	$(BIN)/python -m benchmarks.generation
	$(BIN)/python -m benchmarks.embedding

clean:  ## remove the environment and all outputs, but not the sample catalog
	rm -rf $(VENV) build mutants
	cd data && find . -mindepth 1 -maxdepth 1 ! -name samples -exec rm -rf {} +

