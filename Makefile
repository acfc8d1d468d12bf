PYTHON ?= python3
BIN := .venv/bin
# Files side by side, in the order that tests/conftest.py gives them. A test waits half of its time, so there is work
# for more than one per processor.
PYTEST := $(BIN)/pytest --numprocesses $$(($$(nproc) * 3 / 2)) --dist loadfile --no-loadscope-reorder

.PHONY: demo demo-stop unit test test-all lint format faults bench screenshots clean packages

# The main job, end to end, with real parts. KEEP=1 leaves it running.
demo: packages .venv/ready
	$(BIN)/python -m tests.demo $(if $(KEEP),--keep)

demo-stop: .venv/ready
	$(BIN)/python -m tests.demo --stop

# What needs neither root nor Debian nor an engine: Python, git and openssl.
unit: .venv/unit
	$(BIN)/pytest --numprocesses auto -m "not further and not long" tests/unit

test: lint
	$(PYTEST) -m "not further"

# Over all faults, packet filters, engines and earlier versions, and the end-to-end tests again on the older image store.
test-all: lint
	$(PYTEST)
	LAB_STORE=overlay2 $(PYTEST) $(wildcard tests/*/test_*end_to_end.py) \
		tests/tunnel/test_network.py tests/tunnel/test_upgrade.py

# Lint, format, types, shell, Dockerfiles, YAML.
lint: packages .venv/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	PYTHONPATH=scripts $(BIN)/lint-imports --no-cache
	$(BIN)/shellcheck template/gateway/*.sh template/gateway/*/*.sh tests/docker_desktop/*.sh
	$(BIN)/hadolint template/gateway/Dockerfile tests/docker_desktop/*/Dockerfile tests/bench/*/Dockerfile
	$(BIN)/yamllint --strict .

format: .venv/ready
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

# What breaks, how long it takes until traffic flows again, and what is lost, on all engines: writes docs/faults.md.
faults: packages .venv/ready
	$(BIN)/python -m tests.recovery

# How fast clients are issued, against easy-rsa; how fast the VPN is, against its peers: writes docs/speed.md; what
# 50 clients notice of who makes trouble; what the scripts take themselves; and what a thousand containers and clients
# cost: writes docs/scale.md.
bench: packages .venv/ready
	$(BIN)/python -m tests.bench.issue_clients
	$(BIN)/python -m tests.bench.speed
	$(BIN)/python -m tests.bench.load
	$(BIN)/python -m tests.bench.scripts
	$(BIN)/python -m tests.bench.scale

# The pictures of the page in docs/screenshots, in its states.
screenshots: packages .venv/ready
	$(BIN)/python -m tests.screenshots

clean:
	rm -rf .venv .lab .hypothesis .mypy_cache .pytest_cache .ruff_cache

packages:
	@sh tests/docker_desktop/install.sh

.venv/unit: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --group unit
	touch $@

.venv/ready: .venv/unit
	$(BIN)/pip install --quiet --group dev
	touch $@
