# The commands of this project. `make help` lists them.

.PHONY: help demo demo-live test bench bench-peers bench-scale lint lint-format lint-clippy lint-docs

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1	\2/p' $(MAKEFILE_LIST) | while IFS='	' read -r name what; do \
		printf '  make %-12s %s\n' "$$name" "$$what"; done

demo: ## a report over a generated fleet, in a private Postgres; ends after it
	@scripts/ensure-postgres
	cargo run --locked --release -- demo --once

demo-live: ## the same, and rows keep flowing in until Ctrl-C
	@scripts/ensure-postgres
	cargo run --locked --release -- demo

test: ## all tests; each starts what Postgres it needs
	@scripts/ensure-postgres
	@if cargo nextest --version >/dev/null 2>&1; then \
		set -x; cargo nextest run --locked --no-fail-fast && cargo test --locked --doc; \
	else \
		set -x; cargo test --locked --no-fail-fast; \
	fi

bench: ## the benches, in about three minutes; BENCH="--save-baseline before", then BENCH="--baseline before"
	cargo bench --locked -- $(BENCH)

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

lint-clippy:
	cargo clippy --locked --all-targets -- -D warnings

lint-docs:
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items
