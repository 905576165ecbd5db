# Every command of the project. CI calls only these.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := $(shell find rust -name '*.rs' -o -name Cargo.toml) Cargo.toml Cargo.lock pyproject.toml

.PHONY: help develop demo test bench lint wheel check-wheel clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

develop: $(VENV)/.stamp-core ## virtual environment with everything, core built in release

$(VENV)/.stamp-deps: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=24'
	$(BIN)/python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
	x = p['optional-dependencies']; \
	print('\n'.join(d for d in p['dependencies'] + sum((v for k, v in x.items() if k != 'bench-peers'), []) if not d.startswith('routecore')))" \
	> $(VENV)/requirements.txt
	$(BIN)/python -m pip install --quiet -r $(VENV)/requirements.txt
	touch $@

$(VENV)/.stamp-core: $(VENV)/.stamp-deps $(SOURCES)
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --release --quiet
	touch $@

demo: develop ## live: simulated engines, a gateway, traffic through every strategy
	$(BIN)/routecore demo $(ARGS)

test: develop ## Rust tests, then Python tests
	cargo test --quiet
	cargo bench --quiet --bench select --bench index -- --test
	$(BIN)/python -m pytest -q tests benches

bench: develop ## compare every strategy with its pure-Python twin
	$(BIN)/python -m pytest benches -o addopts= --benchmark-only --benchmark-max-time=0.2 \
	  --benchmark-columns=min,median,ops --benchmark-sort=name $(ARGS)

lint: develop ## formatters, linters, types, stubs
	cargo fmt --all --check
	PYO3_PYTHON=$(abspath $(BIN))/python cargo clippy --workspace --all-targets --quiet -- -D warnings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy python/routecore
	$(BIN)/python -m mypy.stubtest routecore._core

wheel: develop ## cp311-abi3 wheel for manylinux2014, in dist/
	$(BIN)/python -m pip install --quiet ziglang
	rm -rf dist
	PATH=$(abspath $(BIN)):$$PATH $(BIN)/maturin build --release --locked --features abi3 \
	  --compatibility manylinux2014 --zig --interpreter $(BIN)/python --out dist

check-wheel: wheel ## the wheel alone, in a fresh environment, passes the tests
	rm -rf $(VENV)-wheel
	$(PYTHON) -m venv $(VENV)-wheel
	$(VENV)-wheel/bin/python -m pip install --quiet "$$(ls dist/*.whl)[test]"
	cd tests && $(abspath $(VENV))-wheel/bin/python -m pytest -q --rootdir=.. -c ../pyproject.toml .

clean: ## everything that was built
	rm -rf target dist $(VENV) $(VENV)-wheel python/routecore/*.so
