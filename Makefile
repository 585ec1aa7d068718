# make demo    all set-up, then the main job on real input
# make test    all set-up, then the whole test suite
# make services  starts the real servers that tests talk to; scripts/services down ends them
# make bench   what it costs, side by side
# make bench-rows   rows a second from ClickHouse, PostgreSQL and DuckDB, beside Python's clients
# make bench-engine   inference against llama.cpp, side by side (with AVX-512 compiles llama.cpp: 15 minutes; peer=prebuilt does not)
# make soak    kill -9, 200 times
# make fuzz    ten minutes for each fuzz target; make asan: the engine's tests under AddressSanitizer (both: nightly)
# make arm     the engine's tests on an emulated 64-bit Arm
# make reference-docs   writes docs/reference/ anew, after a kind or a setting has changed
# make reference   records again what llama.cpp computes (compiles it: 15 minutes)

cache := $(or $(WATCHPOST_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/watchpost)
export CARGO_TARGET_DIR ?= $(cache)/target
deny := $(cache)/tools/cargo-deny-0.20.2/bin/cargo-deny
# One for each clone, so that two do not end each other's.
services_run = $(cache)/services/run-$(shell pwd | cksum | cut -d' ' -f1)
nextest := $(shell command -v cargo-nextest 2>/dev/null)

.PHONY: demo test unit services services-unit lint deny docs bench bench-rows bench-engine soak fuzz asan arm reference reference-docs setup bundled clean

# Built together with the tests, so that `make test` does not build the dependencies again with other features.
demo: setup
	@echo "demo: building (the first time takes some minutes)" >&2
	@cargo build --quiet --bin watchpost --test it
	@$(CARGO_TARGET_DIR)/debug/watchpost demo

test: setup lint services-unit deny docs

# The tests, beside real servers; these are ended again.
services-unit:
	@WATCHPOST_SERVICES_RUN=$(services_run) scripts/services up
	@WATCHPOST_SERVICES=$(services_run)/env $(MAKE) --no-print-directory unit; status=$$?; \
		WATCHPOST_SERVICES_RUN=$(services_run) scripts/services down; exit $$status

# Leaves them running: `WATCHPOST_SERVICES=~/.cache/watchpost/services/run/env cargo test --test it`.
services: setup
	@scripts/services up

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- --deny warnings

unit:
ifdef nextest
	cargo nextest run --workspace --no-fail-fast
else
	cargo test --workspace --no-fail-fast
endif

# Crates of every platform and feature are looked at, so all are fetched. Without the advisory database, which is fetched from the network: `cargo deny check advisories` where there is one.
deny:
	@scripts/setup tools
	@cargo fetch --locked --quiet
	@if [ -x $(deny) ]; then $(deny) --offline check bans licenses sources; fi

docs:
	RUSTDOCFLAGS="--deny warnings --allow rustdoc::private_intra_doc_links" \
		cargo doc --workspace --no-deps --document-private-items --quiet

# Made from the doc comments of settings; a test compares.
reference-docs: setup
	cargo run --quiet --bin watchpost -- list --markdown docs/reference

bench: setup
	cargo bench --bench detection --bench service

# Ours as in a release; dependencies as the tests have built them.
bench-rows: peer := $(cache)/rows
bench-rows: setup
	test -x $(peer)/bin/python || python3 -m venv $(peer)
	$(peer)/bin/pip install --quiet 'clickhouse-connect[async]==1.12.0' asyncpg==0.32.0 duckdb==1.5.6
	@WATCHPOST_SERVICES_RUN=$(services_run) scripts/services up clickhouse postgresql
	@WATCHPOST_SERVICES=$(services_run)/env WATCHPOST_BENCH_PYTHON=$(peer)/bin/python \
		CARGO_PROFILE_DEV_OPT_LEVEL=3 cargo bench --workspace --profile dev --bench rows; \
		status=$$?; WATCHPOST_SERVICES_RUN=$(services_run) scripts/services down; exit $$status

soak: setup
	cargo build --quiet
	WATCHPOST_SOAK_KILLS=200 cargo test --test it -- soak --nocapture

# llama.cpp as its Python package brings it, for AVX2; and, where the processor has more, built here for it: `peer=native` and
# `peer=prebuilt` choose.
shapes := qwen3-0.6b qwen3-1.7b
peer ?= $(if $(shell grep -m1 -o avx512f /proc/cpuinfo 2>/dev/null),native,prebuilt)
bench-engine: python := $(cache)/reference
bench-engine: setup
	test -x $(python)/bin/python || python3 -m venv $(python)
	$(python)/bin/pip install --quiet xllamacpp==2026.10.11549 numpy $(if $(filter native,$(peer)),llama-cpp-python==0.3.36)
	cargo build --quiet -p watchpost -p watchpost-engine --example measure --example synth
	mkdir -p $(cache)/shapes
	for shape in $(shapes); do test -f $(cache)/shapes/$$shape.gguf || \
		$(CARGO_TARGET_DIR)/debug/examples/synth $$shape $(cache)/shapes/$$shape.gguf; done
	WATCHPOST_BENCH_PEER=$(peer) $(python)/bin/python benches/engine/compare.py $(CARGO_TARGET_DIR)/debug/examples/measure \
		models/SmolLM2-135M-Instruct.Q4_1.gguf $(shapes:%=$(cache)/shapes/%.gguf)

fuzz_s ?= 600
fuzz_run = CARGO_TARGET_DIR=$(cache)/target-fuzz cargo +nightly fuzz run $(1) -- \
	-max_total_time=$(fuzz_s) -max_len=$(2) -len_control=0 -detect_leaks=0 -timeout=20 -rss_limit_mb=2048
fuzz:
	cargo fuzz --version >/dev/null 2>&1 || cargo install --quiet cargo-fuzz@0.13.2
	mkdir -p fuzz/corpus/gguf fuzz/corpus/tokenizer
	cargo run --quiet -p watchpost-engine --example synth -- headers fuzz/corpus/gguf
	$(call fuzz_run,gguf,16384)
	$(call fuzz_run,tokenizer,4096)

# The standard library is not instrumented: what it does with our memory is seen all the same, by its allocations.
asan: export CARGO_TARGET_DIR := $(cache)/target-asan
asan: export RUSTFLAGS := -Zsanitizer=address
asan: setup
	cargo +nightly test --target $(shell rustc -vV | sed -n 's/^host: //p') -p watchpost-engine --lib -- network::

# On a processor with dot product, then on one without.
arm: export CARGO_TARGET_DIR := $(cache)/target-arm
arm: export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER := aarch64-linux-gnu-gcc
arm: emulated = CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu $(1)" \
	cargo test --target aarch64-unknown-linux-gnu -p watchpost-engine
arm: setup
	@scripts/setup arm
	cargo clippy --target aarch64-unknown-linux-gnu -p watchpost-engine --all-targets --quiet -- --deny warnings
	$(call emulated,max)
	$(call emulated,cortex-a53) --lib -- network::kernel network::tests

# What crates/engine/tests/data holds. Needed only when crates/engine/synth or crates/engine/tests/reference change.
reference: python := $(cache)/reference
reference: setup
	test -x $(python)/bin/python || python3 -m venv $(python)
	$(python)/bin/pip install --quiet llama-cpp-python==0.3.36 gguf==0.19.0 numpy sentencepiece==0.2.3 tokenizers==0.23.3 tzdata
	$(python)/bin/pip download --quiet --no-deps --dest $(python) django==5.2.19 faker==40.63.0 mistral-common==1.13.1
	cargo build --quiet -p watchpost-engine --example synth
	mkdir -p $(python)/models
	$(CARGO_TARGET_DIR)/debug/examples/synth tiny $(python)/models
	$(python)/bin/python crates/engine/tests/reference/record.py $(python)/models crates/engine/tests/data/reference
	$(python)/bin/python crates/engine/tests/reference/corpus.py examples/logs $(python)/django-5.2.19-*.whl \
		$(python)/faker-40.63.0-*.whl crates/engine/tests/data/tokenizer/corpus.txt
	$(python)/bin/python crates/engine/tests/reference/tokens.py models/SmolLM2-135M-Instruct.Q4_1.gguf \
		$(python)/mistral_common-1.13.1-*.whl crates/engine/tests/data/tokenizer

# The shipped binary, DuckDB inside. The first build compiles its C++: 15 to 30 minutes on two cores.
bundled:
	cargo build --release --features bundled-duckdb

setup:
	@scripts/setup duckdb model

clean:
	rm -rf $(CARGO_TARGET_DIR)
