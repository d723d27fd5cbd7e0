# The README's commands. Each sets up what it needs by itself, in .venv.
#
#   make demo                 analyse a generated chest phantom with the shipped weights
#   make demo CT=path         analyse a DICOM folder, NIfTI, NRRD or MetaImage file instead
#   make test                 linter, formatter, type checker and all tests
#   make test TESTS=path      only the tests under path, without the checks before them
#   make lint                 linter and formatter only
#   make check                linter, formatter and type checker
#   make format               let the formatter and the linter correct what they can
#   make bench CT=path        where time and memory of an analysis go
#   make screenshots          make the pictures under Resources/Screenshots: the module, run on the phantom
#   make weights DATA=folder  train all weights that ship anew and put them under Resources (hours)
#   make cmake-lists          write the Python files of the tree into the CMake lists
#   make clean                remove what these commands made, except .venv
#
# OUTPUT=folder says where the demo writes; TORCH_INDEX_URL=url, PYTHON=path: see .ci/set-up.

CT ?=
DATA ?=
OUTPUT ?= output
TESTS ?=
WORKERS ?= 2
BIN := .venv/bin
export PYTHON TORCH_INDEX_URL

.PHONY: help demo test lint check format bench screenshots weights cmake-lists clean set-up-demo set-up-test
.NOTPARALLEL:

help:
	@sed -n 's/^#   \(make .*\)/\1/p' Makefile

set-up-demo set-up-test:
	@.ci/set-up $(subst set-up-,,$@)

demo: set-up-demo
ifeq ($(CT),)
	@$(BIN)/covid-multitask demo -o "$(OUTPUT)"
else
	@$(BIN)/covid-multitask analyze "$(CT)" -o "$(OUTPUT)" --overwrite
endif

lint: set-up-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

check: lint
	$(BIN)/python -m mypy

format: set-up-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

ifeq ($(TESTS),)
test: check
else
test: set-up-test
endif
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(TESTS)

bench: set-up-demo
	$(BIN)/python Testing/benchmarks/analyze.py $(if $(CT),"$(CT)")

screenshots: set-up-test
	$(BIN)/python Testing/slicer/make_screenshots.py

TRAIN = $(BIN)/python -m training.train $(if $(DATA),--data "$(DATA)")
weights: set-up-test
	$(TRAIN) --config training/configs/joint_base.yaml --no-export
	$(TRAIN) --config training/configs/joint.yaml --bundle Resources/Bundles/joint
	$(TRAIN) --config training/configs/m2unet_small.yaml --bundle Resources/Bundles/m2unet-small
	$(TRAIN) --config training/configs/triage_small.yaml --bundle Resources/Bundles/triage-small
	$(TRAIN) --config training/configs/deepsc_covid_small.yaml --bundle Resources/Bundles/deepsc-covid-small
	$(TRAIN) --config training/configs/amyar_small.yaml --bundle Resources/Bundles/amyar-small

cmake-lists: set-up-test
	$(BIN)/python Testing/project/update_cmake_lists.py

clean:
	rm -rf build dist output .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path ./.venv -prune -o -type d -name __pycache__ -exec rm -rf {} +
