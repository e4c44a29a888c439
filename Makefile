# The two commands: `make run` and `make test`. Both install what is missing first and share the dependencies that they build.
# CARGO_TARGET_DIR is respected.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

# Where `make run` keeps its databases.
DATA ?= ./data
CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)

# Our own code without optimisation compiles in a quarter of the time; dependencies stay as they are. Its frames need more stack.
UNOPTIMISED := CARGO_PROFILE_DEV_OPT_LEVEL=0 RUST_MIN_STACK=33554432

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: run
run: build ## Archive the bundled sample: PostgreSQL, PgBouncer, Quipu and a small local relay, data in DATA=./data
	@echo 'Running with --sample: a small local relay full of generated events, and nothing else, is archived.'
	@exec $(TARGET)/debug/quipu up --sample --data $(DATA)

.PHONY: test
test: deps-test check ## Everything that CI checks: formatting, lints, documentation, all tests (about 30 minutes on 2 cores)
	$(UNOPTIMISED) CARGO='$(CARGO)' scripts/test

.PHONY: quick
quick: deps ## While you work: formatting, lints, unit tests, rules of the architecture (two minutes after a change)
	$(CARGO) fmt --check
	$(UNOPTIMISED) $(CARGO) clippy --locked --all-targets -- -D warnings
	$(UNOPTIMISED) $(CARGO) test --locked --lib
	$(UNOPTIMISED) $(CARGO) test --locked --test it -- architecture:: documents:: migrations::

.PHONY: try
try: deps-test ## One test or a few, soon after an edit: make try TEST=messages::ttl
	$(UNOPTIMISED) $(CARGO) test --locked --test it -- $(TEST)

# How many times as long as in `make test` the tests of random lives, crashes and memory are.
ROUNDS ?= 5
SOAKED := archive::chaos archive::crashes archive::memory blossom::crashes blossom::property jobs::chaos jobs::crashes jobs::model messages::model store::overtaking store::requests store::ticks

.PHONY: soak
soak: deps-test ## The tests of random lives, crashes and memory, ROUNDS=5 times as long as in `make test`
	QUIPU_TEST_ROUNDS='$(ROUNDS)' PROPTEST_CASES=$$((256 * $(ROUNDS))) CARGO='$(CARGO)' \
	    scripts/test $(SOAKED) messages::golden_frames messages::edge messages::decide

.PHONY: build
build: deps ## Build the program
	$(CARGO) build --locked

.PHONY: dist
dist: deps ## The program as images and packages ship it: smaller and stripped, in target/dist/quipu
	$(CARGO) build --locked --profile dist --bin quipu

.PHONY: check
check: ## Formatting, lints and documentation, each a refusal
	$(CARGO) fmt --check
	$(UNOPTIMISED) $(CARGO) clippy --locked --all-targets -- -D warnings
	$(UNOPTIMISED) RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps --document-private-items

.PHONY: deps
deps: ## Install what running needs and this machine lacks (Debian, Ubuntu; elsewhere says what)
	@scripts/deps run

.PHONY: deps-test
deps-test: ## Likewise what the tests need
	@scripts/deps test

.PHONY: deps-bench
deps-bench: ## Likewise what `make bench-archive`, `make bench-jobs` and `make bench-blossom` compare with
	@scripts/deps bench

.PHONY: fmt
fmt: ## Format the code
	$(CARGO) fmt

.PHONY: docs
docs: deps ## Renew docs/configuration.md and docs/metrics.md from the code
	$(UNOPTIMISED) $(CARGO) build --locked
	@renew() { { sed '/^<!-- Generated /,$$d' "$$1" && $(TARGET)/debug/quipu $$2; } > "$$1.new"; mv "$$1.new" "$$1"; }; \
	renew docs/configuration.md 'check-config --markdown'; \
	renew docs/metrics.md metrics

.PHONY: dashboards
dashboards: ## Renew monitoring/grafana/dashboards from their sources
	python3 monitoring/grafana/build.py

.PHONY: queries
queries: ## Renew .sqlx/, the checked queries of the session door
	scripts/queries

.PHONY: migrations-freeze
migrations-freeze: ## Write the sums of new migrations into migrations/SHA256SUMS: from then on they are never edited
	@scripts/migrations-freeze

.PHONY: bench-journal
bench-journal: deps ## Appends a second, against pgbench in the same run
	$(CARGO) bench --locked --profile dev --bench journal

.PHONY: bench-ingest
bench-ingest: deps ## Events a second from relay socket to commit, against the limit measured in the same run
	$(CARGO) bench --locked --profile dev --bench ingest

.PHONY: bench-archive
bench-archive: deps-bench build ## The archive against relays: events a second, a thousand relays, duplicates, lag
	ulimit -n 8192; $(CARGO) bench --locked --profile dev --bench archive

.PHONY: bench-messages
bench-messages: deps build ## Messages: sends, deliveries, queues, idle connections, with five million stored
	ulimit -n "$$(ulimit -Hn)"; $(CARGO) bench --locked --profile dev --bench messages

.PHONY: bench-jobs
bench-jobs: deps-bench build ## Jobs against graphile-worker: drains, claim latency, a snapshot held open, a million pending
	$(CARGO) bench --locked --profile dev --bench jobs

.PHONY: bench-blossom
bench-blossom: deps-bench build ## Blobs against curl and nginx: uploads to three upstreams, redirects, the built-in store, recovery
	ulimit -n 8192; $(CARGO) bench --locked --profile dev --bench blossom

.PHONY: farm
farm: ## A thousand relays of all characters on the loopback, to try an archive on
	ulimit -n 8192; $(CARGO) bench --locked --profile dev --bench farm

# Seconds that `make fuzz` gives to each of FUZZ_TARGETS. What it finds worth keeping stays in the target folder; a failure is written
# to fuzz/artifacts/.
FUZZ_S ?= 60
FUZZ_TARGETS ?= frames relay documents lists configuration jobs blossom http
FUZZ := $(abspath $(TARGET))/fuzz

.PHONY: fuzz
fuzz: deps ## Made-up bytes against every parser of outside bytes, FUZZ_S=60 seconds each of FUZZ_TARGETS
	@[ -x $(TARGET)/tools/bin/cargo-fuzz ] || $(CARGO) install --locked --root $(TARGET)/tools --version '^0.13' cargo-fuzz
	@for target in $(FUZZ_TARGETS); do \
	    mkdir -p $(FUZZ)/corpus/$$target; \
	    options=(-timeout=30 -max_total_time=$(FUZZ_S)); \
	    if [ -f fuzz/$$target.dict ]; then options+=(-dict=fuzz/$$target.dict); fi; \
	    PATH="$(abspath $(TARGET))/tools/bin:$$PATH" $(CARGO) fuzz run --sanitizer none --target-dir $(FUZZ) \
	        $$target $(FUZZ)/corpus/$$target fuzz/seeds/$$target -- "$${options[@]}" || exit 1; \
	done

.PHONY: deny
deny: ## Licences, sources, banned crates and known vulnerabilities (needs cargo-deny, and the network for the last)
	$(CARGO) deny check

.PHONY: compose-check
compose-check: ## Check the container files, with docker compose itself where it is installed
	@if docker compose version >/dev/null 2>&1; then \
	    for file in docker-compose.yaml implementations/*/docker-compose.yaml; do \
	        docker compose --env-file "$$(dirname "$$file")/.env.example" -f "$$file" config --quiet && echo "$$file is accepted"; \
	    done; \
	else echo 'docker compose is not installed: only what can be read is checked'; fi
	$(CARGO) test --locked --test it compose::

.PHONY: compose-test
compose-test: build ## Run docker-compose.yaml for real, with podman and stand-ins from Debian's packages; PREBUILT=program (root, 10 minutes)
	scripts/compose-test

.PHONY: real-events
real-events: build ## Import FILE=… twice into a fresh instance and compare what comes out
	scripts/check-real-events $(FILE)

.PHONY: clean-data
clean-data: ## Delete DATA, the databases of `make run`; asks first
	@if [ ! -e '$(DATA)' ]; then echo '$(DATA) is not there'; exit; fi; \
	if [ ! -d '$(DATA)/postgres' ]; then echo '$(DATA) does not look like a data folder of Quipu: nothing deleted'; exit 1; fi; \
	read -r -p 'Delete $(DATA) and every event archived in it? [y/N] ' answer; \
	if [ "$$answer" = y ]; then rm -rf -- '$(DATA)'; fi
