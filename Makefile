# Everything that Lamplight is built, run, tested and measured with. `make help` lists it.
PYTHON ?= python3
BIN := .venv/bin
SECONDS_ARG := $(if $(SECONDS),--seconds $(SECONDS),)

.DEFAULT_GOAL := build

.PHONY: help build demo test check format lock torture fuzz bench bench-ingest bench-pipeline bench-freshness bench-finality bench-quality bench-warehouse bench-flink bench-stream duckdb15-env flink-env flink-cluster docs notebooks notebooks-env prism clean

help: ## list what make can do
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

build: .venv/.built ## the environment, from the lock file with hashes

.venv/.built: requirements.lock
	$(PYTHON) -c 'import sys; sys.exit("lamplight: Python 3.11 or later is needed: make PYTHON=python3.11") if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	touch $@

demo: build ## the city on this machine: devices, broker, pipelines, open feeds (SECONDS=90 stops by itself)
	@$(BIN)/python -m demo $(SECONDS_ARG) || { code=$$?; [ $$code -eq 130 ] || exit $$code; }

test: build ## every test, a file at a time on each core, in about twelve minutes on two
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

check: build ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: build ## rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: build ## make the lock files anew from their .in files
	for name in requirements requirements-flink requirements-duckdb15 requirements-notebooks; do \
		$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --upgrade -q $$name.in -o $$name.lock || exit; \
	done

torture: build ## kill -9 of everything under load, and power cuts: nothing lost or doubled; laws (ROUNDS=200, CUTS=20, LAWS=100, SEED=)
	@$(BIN)/python -m bench.torture --rounds $(or $(ROUNDS),200) --cuts $(or $(CUTS),20) --laws $(or $(LAWS),100) $(if $(SEED),--seed $(SEED),)

fuzz: build ## a million mutated messages: nothing crashes, nothing is unaccounted (MUTANTS=, SEED=)
	@$(BIN)/python -m bench.fuzz $(if $(MUTANTS),--mutants $(MUTANTS),) $(if $(SEED),--seed $(SEED),)

bench: bench-ingest bench-pipeline bench-freshness bench-quality bench-warehouse ## every benchmark, one JSON line per figure

bench-ingest: build ## durable ingest beside a subscriber that does nothing and Telegraf; receipts; memory (20 min)
	@$(BIN)/python -m bench.ingest

bench-pipeline: build ## the Beam graph beside plain Polars and element-wise Beam; backfill in two processes; memory
	@$(BIN)/python -m bench.pipeline
	@$(BIN)/python -m bench.backfill
	@$(BIN)/python -m bench.tick
	@$(BIN)/python -m bench.rollups

bench-quality: build ## recall of injected faults and share of good values flagged (SEED=8001 RUNS=4 POSTS= HOURS=)
	@$(BIN)/python -m bench.quality $(if $(SEED),--seed $(SEED),) $(if $(RUNS),--runs $(RUNS),) $(if $(POSTS),--posts $(POSTS),) $(if $(HOURS),--hours $(HOURS),)

bench-warehouse: build ## a month of 400 posts: queries beside a glob, bytes a reading, publishing, 20 analysts (2 h; ROOT= keeps the lake, DAYS= POSTS=)
	@$(BIN)/python -m bench.warehouse $(if $(ROOT),--root $(ROOT),) $(if $(DAYS),--days $(DAYS),) $(if $(POSTS),--posts $(POSTS),)

bench-freshness: build ## publish to catalogue, window close to open feed
	@$(BIN)/python -m bench.freshness

bench-finality: build ## what announcing final windows costs a tick, at 40 and 2,000 messages a second
	@$(BIN)/python -m bench.finality --posts 340
	@$(BIN)/python -m bench.finality --posts 17000

bench-stream: build prism ## `pipelines stream` on Prism: delay, Prism's memory, a backlog (8 min)
	@$(BIN)/python -m bench.stream

bench-flink: build flink-env ## readings/s of a Flink cluster with one and two workers beside the local loop
	@$(BIN)/python -m bench.flink

flink-env: .venv-flink/.built ## PyFlink and the core in an environment of their own (1.2 GB)

.venv-flink/.built: requirements-flink.lock
	$(PYTHON) -m venv .venv-flink
	.venv-flink/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-flink.lock
	touch $@

duckdb15-env: .venv-duckdb15/.built ## the DuckDB before ours, to read our catalogue in a test (60 MB)

.venv-duckdb15/.built: requirements-duckdb15.lock
	$(PYTHON) -m venv .venv-duckdb15
	.venv-duckdb15/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-duckdb15.lock
	touch $@

flink-cluster: flink-env ## a Flink cluster on this machine: JobManager and two TaskManagers, until Ctrl-C
	@.venv-flink/bin/python -m pipelines.cluster start

docs: build ## make docs/data_dictionary.md anew from the contracts
	$(BIN)/python -m contracts > docs/data_dictionary.md

notebooks: build notebooks-env ## run docs/notebooks on a generated day and write Markdown with pictures beside them (10 min)
	$(BIN)/python -m bench.day --data var/notebooks
	LAMPLIGHT_DATA=var/notebooks PYTHONPATH=. .venv-notebooks/bin/python docs/notebooks/execute.py docs/notebooks/city_day.py docs/notebooks/air_and_fleet.py

notebooks-env: .venv-notebooks/.built ## marimo, matplotlib and DuckDB in an environment of their own (0.8 GB)

.venv-notebooks/.built: requirements-notebooks.lock
	$(PYTHON) -m venv .venv-notebooks
	.venv-notebooks/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-notebooks.lock
	touch $@

BEAM := $(shell sed -n 's/^apache-beam==\([0-9.]*\).*/\1/p' requirements.lock)

prism: ## Beam's local portable runner for `pipelines stream`, built with Go where there is none (90 s)
	@gobin=$$(go env GOBIN) && [ -x "$${gobin:-$$(go env GOPATH)/bin}/prism" ] || go install github.com/apache/beam/sdks/v2/go/cmd/prism@v$(BEAM)

clean: ## remove the environment and the data
	rm -rf .venv .venv-flink .venv-duckdb15 .venv-notebooks var .mypy_cache .pytest_cache .ruff_cache .hypothesis
