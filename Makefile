# fusemix: extract latents once, fuse them, measure what came out.
#
# Variables: RECIPE  name of a packaged recipe or a YAML file of yours   (emoji)
#            RUN     name of the run                                     (the recipe's name)
#            DEVICE  auto, cpu, cuda or cuda:N                           (auto)
#            TORCH_INDEX  where to get another PyTorch build, for a V100 https://download.pytorch.org/whl/cu126
#            PYTHON  Python 3.11 or newer, for the environment           (python3)

RECIPE ?= emoji
RUN ?=
DEVICE ?= auto
TORCH_INDEX ?=
PYTHON ?= python3

ENVIRONMENT := .venv/.ready
BIN := .venv/bin
EXTRAS := .venv-extras
OPTIONS := --device $(DEVICE) $(if $(RUN),--run $(RUN))

.DEFAULT_GOAL := help
.PHONY: help setup extract fuse benchmark test test-slow test-extras test-wheel test-models lint format clean

help:  ## list the targets
	@sed -n '/^$$/q;s/^# \{0,1\}//p' Makefile; echo
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(ENVIRONMENT)  ## make the environment in .venv

$(ENVIRONMENT): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(if $(TORCH_INDEX),$(BIN)/pip install --index-url $(TORCH_INDEX) 'torch==2.13.0')
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[emoji,dev]'
	@touch $@

extract: $(ENVIRONMENT)  ## encode what is missing of RECIPE's dataset
	$(BIN)/fusemix extract $(RECIPE) --device $(DEVICE)

fuse: $(ENVIRONMENT)  ## extract what is missing, train RECIPE, print retrieval on its test split
	$(BIN)/fusemix fuse $(RECIPE) $(OPTIONS)

benchmark: $(ENVIRONMENT)  ## compare FuseMix, no mixup and ridge on RECIPE's test split
	$(BIN)/fusemix benchmark $(RECIPE) $(OPTIONS)

test: $(ENVIRONMENT)  ## run the tests, under 4 minutes on 2 cores
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(ENVIRONMENT)  ## run the tests that take minutes
	$(BIN)/python -m pytest -m slow

test-extras: test-wheel test-models  ## run the tests that need environments of their own

test-wheel: $(ENVIRONMENT)  ## build the wheel and test it in an environment without extras
	rm -rf build dist $(EXTRAS)/wheel
	$(BIN)/python -m build --quiet --wheel
	$(PYTHON) -m venv $(EXTRAS)/wheel
	$(EXTRAS)/wheel/bin/pip install --quiet --constraint constraints.txt dist/*.whl pytest
	$(EXTRAS)/wheel/bin/python -m pytest -m extras tests/extras/wheel

test-models: $(EXTRAS)/models/.ready  ## test the encoders of timm, open_clip and laion_clap (6 GB without TORCH_INDEX)
	HF_HUB_OFFLINE=1 $(EXTRAS)/models/bin/python -m pytest -m extras tests/extras/models

$(EXTRAS)/models/.ready: pyproject.toml constraints-extras.txt
	rm -rf $(EXTRAS)/models
	$(PYTHON) -m venv $(EXTRAS)/models
	$(if $(TORCH_INDEX),$(EXTRAS)/models/bin/pip install --quiet --index-url $(TORCH_INDEX) --constraint constraints-extras.txt torch torchvision)
	$(EXTRAS)/models/bin/pip install --quiet --no-compile --constraint constraints-extras.txt --editable '.[laion-clap,open-clip,timm]' pytest
	@touch $@

lint: $(ENVIRONMENT)  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(ENVIRONMENT)  ## rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove environments, builds and caches; latents, runs and results stay
	rm -rf .venv .venv-extras build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
