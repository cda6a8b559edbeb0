# The commands of this project. `make help` lists them.

.PHONY: help demo demo-live test test-web test-api test-s3 chaos chaos-figures fuzz properties bench bench-baseline bench-instructions \
	bench-trigger bench-days bench-writers bench-freshness bench-ingest bench-audit bench-peers bench-scale audit lint lint-format \
	lint-clippy lint-docs deb test-package test-image

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1	\2/p' $(MAKEFILE_LIST) | while IFS='	' read -r name what; do \
		printf '  make %-18s %s\n' "$$name" "$$what"; done

demo: ## a report over a generated fleet, in a private Postgres; ends after it
	@scripts/ensure-postgres
	cargo run --locked --release -- demo --once

demo-live: ## the same, and rows keep flowing in until Ctrl-C
	@scripts/ensure-postgres
	cargo run --locked --release -- demo

test: ## all tests; each starts what Postgres it needs
	@scripts/ensure-postgres
	@if cargo nextest --version >/dev/null 2>&1; then \
		set -x; cargo nextest run --locked --features failpoints --no-fail-fast && \
			cargo test --locked --features failpoints --doc; \
	else \
		set -x; cargo test --locked --features failpoints --no-fail-fast; \
	fi

test-api: ## the API as strangers use it: schemathesis against a daemon with a generated fleet; EXAMPLES=200 SEED=7
	@scripts/ensure-postgres
	cargo build --locked
	scripts/test-api

test-s3: ## reports in a bucket, against a server that speaks S3; installs it from PyPI
	@scripts/ensure-postgres
	scripts/test-s3

test-web: ## the pages in a real Chromium, before a real daemon; installs what is missing
	@scripts/ensure-postgres
	scripts/test-web

CHAOS = cargo test --locked --features failpoints --test chaos

chaos: ## mixed faults for ten minutes, checked after each round; MINUTES=60 SEED=1
	@scripts/ensure-postgres
	SEED=$(SEED) MINUTES=$(or $(MINUTES),10) $(CHAOS)

# Empty: left out. Each prints one line that begins with FIGURE.
DAEMON_KILLS ?= 500
POSTGRES_KILLS ?= 100
TERMINATIONS ?= 5000
WAKEUPS ?= 100000
FAILOVERS ?= 50

chaos-figures: ## single faults in large numbers, about two hours; DAEMON_KILLS=500 POSTGRES_KILLS= TERMINATIONS= WAKEUPS= FAILOVERS=
	@scripts/ensure-postgres
	SEED=$(SEED) DAEMON_KILLS=$(DAEMON_KILLS) POSTGRES_KILLS=$(POSTGRES_KILLS) TERMINATIONS=$(TERMINATIONS) \
		WAKEUPS=$(WAKEUPS) FAILOVERS=$(FAILOVERS) MINUTES=$(MINUTES) $(CHAOS)

fuzz: ## every fuzz target for FUZZ_SECONDS=60, or TARGET=histories alone
	scripts/fuzz

properties: ## CASES=1000000 generated histories against the oracle, from SEED= on, on all cores
	CASES=$${CASES:-1000000} cargo test --locked --profile checked --test rollup_properties -- --nocapture

bench: ## the benches, compared with what bench-baseline stored and with benches/instructions.txt; BENCH=render takes some
	cargo bench --locked -- --baseline-lenient stored --noise-threshold 0.2 $(BENCH)
	scripts/count-instructions

bench-baseline: ## the benches, stored on this machine for later ones to be compared with
	cargo bench --locked -- --save-baseline stored $(BENCH)

bench-instructions: ## instructions of the hot loops against benches/instructions.txt: 20 % more fail
	scripts/count-instructions

# Live measurements: a private Postgres each, gone afterwards. BENCH="--help" lists the options of one.
LIVE = cargo bench --locked --bench live --

bench-trigger: ## from trigger to complete CSV over HTTP; for a million stores BENCH="--stores 1000000 --days 1 --reports 50"
	@scripts/ensure-postgres
	$(LIVE) trigger $(BENCH)

bench-days: ## reports over 7 to 365 days beside the usual one, after a year of polls
	@scripts/ensure-postgres
	$(LIVE) days $(BENCH)

bench-writers: ## what our trigger and the daemon take from writers, by pgbench, in about 20 minutes
	@scripts/ensure-postgres
	$(LIVE) writers $(BENCH)

bench-freshness: ## from COMMIT until a row is in a report, idle and beside writers, in about 7 minutes
	@scripts/ensure-postgres
	$(LIVE) freshness $(BENCH)

bench-ingest: ## rows a second with the daemon and without, and catching up; BENCH="--overload-seconds 60"
	@scripts/ensure-postgres
	$(LIVE) ingest $(BENCH)

bench-audit: ## processor time of a daemon that audits and of one that does not, side by side, in about 5 minutes
	@scripts/ensure-postgres
	$(LIVE) audit $(BENCH)

bench-peers: ## the same report by DuckDB, ClickHouse and Postgres alone; PEERS="--stores 100000 --rounds 3"
	@scripts/ensure-postgres
	@scripts/peers-venv target/peers-venv
	cargo build --locked --release
	target/peers-venv/bin/python benches/peers.py $(PEERS)

bench-scale: ## import, rebuild, restart, memory, disk and reports by size; SIZES="13559 100000:7 1000000:1"
	@scripts/ensure-postgres
	cargo build --locked --release
	python3 benches/scale.py $(SIZES)

lint: lint-format lint-clippy lint-docs ## format, clippy and docs, as the CI does it

lint-format:
	cargo fmt --check
	cargo fmt --check --manifest-path fuzz/Cargo.toml

lint-clippy:
	cargo clippy --locked --all-targets --features failpoints -- -D warnings
	cargo clippy --locked --bench live --bench instructions -- -D warnings

lint-docs:
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items

deb: ## the Debian package, in target/debian
	scripts/build-package

test-package: deb ## installs, uses, breaks, upgrades and purges it in a machine that is booted for that; needs root
	scripts/test-package

test-image: ## the content of the container image, run in an empty root; needs root
	@scripts/ensure-postgres
	scripts/test-image

audit: ## licenses, sources, banned crates and known vulnerabilities of the dependencies
	scripts/check-dependencies --strict
