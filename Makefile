# `make book` and `make test` set themselves up; `make help` lists the rest.
PRESET ?= cpu
PYTHON ?= python3.11
BIN := .venv/bin
SMOKE := _build/smoke/source/book
# two processes, each with whole files: fixtures are shared within a file, and a notebook's cells share a kernel
SIDE_BY_SIDE := --numprocesses 2 --dist loadfile

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 12
	@echo "PRESET=smoke|cpu|gpu|paper (default cpu)"

setup: .venv/.installed  ## make .venv with the locked requirements and the `replicate` command

.venv/.installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

book: setup  ## compute what is missing, execute the pages at PRESET, render _build/html
	$(BIN)/replicate book --preset $(PRESET)

page: setup  ## execute one page and render: make page NAME=gao2024-frontier
	$(BIN)/replicate book --preset $(PRESET) --page $(NAME)

notebooks: setup  ## execute the pages without rendering
	$(BIN)/replicate book --preset $(PRESET) --no-site

site: setup  ## render the pages that were executed last
	$(BIN)/replicate book --preset $(PRESET) --no-execute

models: setup  ## list the embedded language models (replicate models --train NAME retrains one)
	$(BIN)/replicate models

# one thread for each of two processes; the same for the pages, whose numbers nbval must find again
test: export OMP_NUM_THREADS = 1
test: setup  ## lint, unit and contract tests, the book at smoke size, its notebooks again under nbval
	$(BIN)/ruff check .
	$(BIN)/replicate book --preset smoke
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) --nbval --nbval-sanitize-with tests/nbval.cfg $(SMOKE)

bench: setup  ## time a training step, ours and our peers', and compare its quality, into benchmarks/results (leave the machine alone)
	$(BIN)/python benchmarks/train_step.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/quality.py

lock: setup  ## write requirements.lock from what .venv holds
	echo "# From a CPU build of torch: with a GPU build pip adds the CUDA packages that this torch asks for." > requirements.lock
	$(BIN)/pip freeze --exclude-editable | sed -E "s/\+cpu$$//; s/^triton==.*/&; sys_platform == 'linux' and platform_machine == 'x86_64'/" >> requirements.lock

clean:  ## remove everything generated but the environment
	rm -rf _build data/cache

.PHONY: help setup book page notebooks site models test bench lock clean
