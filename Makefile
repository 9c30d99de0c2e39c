# Every target works from a fresh clone: the virtual environment is made and filled on demand. The lock files name all
# that is needed, so nothing is resolved (--no-deps): older pips would take newer releases of packages with extras.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
IMAGE ?=
CONFIG ?=

.PHONY: install demo test check differential bench lock clean

$(VENV)/.runtime: requirements/runtime.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "admend needs Python 3.11 or newer; run: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "Python cannot make a virtual environment here: install your distribution's python3-venv package and run make again"; exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps --requirement requirements/runtime.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.runtime
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps --requirement requirements/dev.txt
	@touch $@

install: $(VENV)/.runtime

demo: install
	@$(BIN)/admend-webhook demo $(IMAGE) $(if $(CONFIG),--config $(CONFIG))

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Needs root, mmdebstrap and a Debian archive in the machine's apt configuration; prints a table and every difference.
differential: $(VENV)/.dev
	$(BIN)/python -m pytest -m differential tests/differential $(PYTEST_ARGS)

bench: $(VENV)/.dev
	$(BIN)/python bench/run.py

# Needs uv; writes no index host into the lock files.
lock:
	for set in runtime dev; do uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --strip-extras requirements/$$set.in --output-file requirements/$$set.txt; done

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
