# Two commands for a newcomer: `make run` and `make test`.  Both may be interrupted and run again.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Processes among which the files of tests are divided.
WORKERS := 2
NOTEBOOKS := $(sort $(wildcard notebooks/*.ipynb))

export OPENBLAS_NUM_THREADS := 1

.PHONY: run test lab page stress study results
.DELETE_ON_ERROR:

# The virtual environment; made again where requirements.txt has changed, finished where an install was interrupted.
$(READY): requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --progress-bar off --quiet -r requirements.txt
	$(BIN)/python -m pip install --progress-bar off --quiet --no-deps -e .
	touch $@

# Executed copies of the notebooks go to build/notebooks, their figures to figures/demo.
run: $(READY)
	@for notebook in $(NOTEBOOKS); do \
		echo "--- $$notebook"; \
		$(BIN)/jupyter nbconvert --log-level WARN --to notebook --execute --output-dir build/notebooks $$notebook || exit 1; \
	done
	@PYTHONPATH=notebooks $(BIN)/python -m study
	@echo "Where to look next: build/notebooks (executed), figures/demo, README.md; make lab opens the notebooks."

test: $(READY)
	$(BIN)/ruff check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not stress" --numprocesses=$(WORKERS) --dist=loadfile --durations=10 tests
	$(BIN)/python -m pytest --nbmake --nbmake-timeout=900 --durations=0 notebooks

# Copies, which may be run and changed: git sees nothing of it.
lab: $(READY) $(NOTEBOOKS:notebooks/%=build/lab/%)
	PYTHONPATH=$(CURDIR)/notebooks $(BIN)/jupyter lab --notebook-dir=build/lab

build/lab/%.ipynb: notebooks/%.ipynb
	@mkdir -p build/lab
	@if [ -e $@ ]; then mv $@ $(basename $@)_before.ipynb; echo "$@ is new: yours is $(basename $@)_before.ipynb"; fi
	@cp $< $@

# The controls of notebook 07 as a page, for this machine; data/examples/README.md says how others see it.
page: $(READY)
	$(BIN)/python -m xxlib.serve $(ARGS)

# What is too long for every change.
stress: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m stress --durations=10 tests

# Runs, tables and figures of mp36k:  make study ARGS="--list"
study: $(READY)
	PYTHONPATH=notebooks $(BIN)/python -m study $(ARGS)

# Parts of README.md, and data/results/README.md, from what the runs left.
results: $(READY)
	PYTHONPATH=notebooks $(BIN)/python -m study.pages
