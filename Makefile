# Everything happens in a virtual environment of the project's own; `make VENV=... PYTHON=...` chooses others.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help demo page test ready test-incidents test-beside test-long test-full check render bench-overhead bench-calibration bench-real bench-detection bench-scoring bench-history bench-scale screenshots build clean

help: ## list what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 18

$(VENV)/.demo: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "geluwatch needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	@echo "installing into $(VENV); this takes a minute or two"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

# Versions of one package that cannot live in one environment: a folder each, for the dashboards' round trip.
$(VENV)/.sdk: tests/mixin/grafana/sdk.txt $(VENV)/.dev
	for version in $$(cat $<); do \
	  $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(VENV)/sdk/$${version#*!} \
	    "grafana-foundation-sdk==$$version" || exit 1; \
	done
	@touch $@

# Grafana's own TypeScript; without npm the tests that need it are skipped, save in CI.
tools/grafana/node_modules: tools/grafana/package-lock.json
	@if command -v npm >/dev/null; then npm ci --prefix tools/grafana --ignore-scripts --no-audit --no-fund --loglevel=error && touch $@; \
	else echo "npm is not installed: dashboards are not checked against Grafana's types"; test -z "$$CI"; fi

demo: $(VENV)/.demo ## the main job, live: baseline, drift, NaN, alerts, runbooks
	$(BIN)/geluwatch demo

page: $(VENV)/.demo ## one drift page, from the baseline to its end
	$(BIN)/geluwatch demo --page

ready: $(VENV)/.dev $(VENV)/.sdk tools/grafana/node_modules ## everything that the tests need and pip and npm install

# Incidents wait, and leave a third of two cores idle. Beside them runs one process of tests that give way to them and do not
# mind: they only compute, start no server and have no limits of time.
BESIDE := tests/core tests/tap/test_faults.py

# One thread of arithmetic to a process, for several that share the cores spin while they wait for each other; and less
# collecting of garbage in promtool, which is a quarter of its time.
test: export OMP_NUM_THREADS = 1
test: export GOGC = 400
test: ready ## every test that belongs to each change
	$(BIN)/pytest -n 2 --dist loadfile -m "not e2e and not full" $(BESIDE:%=--ignore=%)
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -rP -m "e2e and not full" --ignore=tests/incidents
	$(MAKE) --no-print-directory --jobs=2 $(if $(filter output-sync,$(.FEATURES)),--output-sync=target) test-incidents test-beside

test-incidents:
	$(BIN)/pytest -s tests/incidents

test-beside:
	nice -n 19 $(BIN)/pytest -m "not e2e and not full" $(BESIDE)

test-long: ready ## the tests that are left out of every run
	$(BIN)/pytest -m full

test-full: test test-long bench-overhead bench-calibration bench-real bench-scoring bench-history bench-scale ## the tests, then what takes long

check: $(VENV)/.dev ## lint, types, import directions, rendered artefacts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/geluwatch mixin check

render: $(VENV)/.dev ## write dashboards/, alerts/ and runbooks/ anew
	$(BIN)/geluwatch mixin render

$(VENV)/.bench: $(VENV)/.dev
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	@touch $@

bench-overhead: $(VENV)/.bench ## what the agent costs, beside what is used in its place: paired and interleaved
	$(BIN)/python benchmarks/overhead.py

bench-calibration: $(VENV)/.dev ## false alarms on simulated calm traffic, against the budget
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/calibration.py

bench-real: $(VENV)/.dev ## what is seen, and what is not minded, on a real model and real texts
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/detection.py

bench-detection: $(VENV)/.bench ## beside the tools that people would pick instead: false alarms, delays, first layer, cause; hours, may be broken off
	cd benchmarks && OMP_NUM_THREADS=1 $(abspath $(BIN))/python -m field --pictures

bench-scoring: $(VENV)/.dev ## what judging a window costs, and a million windows without growth
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/scoring.py --soak 1000000

bench-history: $(VENV)/.dev ## how large a month of windows is in a database, and what keeping one costs
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/history.py

bench-scale: $(VENV)/.bench ## how costs grow to 1,000 sites, scrapes at full load, a window of 1,000 layers beside ks_2samp
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/scale.py

screenshots: $(VENV)/.dev tools/grafana/node_modules ## a picture of every dashboard with a fleet's answers, in build/screenshots
	$(BIN)/python tools/grafana/screenshots.py build/screenshots

build: $(VENV)/.dev ## wheel and sdist
	$(BIN)/python -m build

clean: ## remove what can be made again
	rm -rf $(VENV) tools/grafana/node_modules dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
