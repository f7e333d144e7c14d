# Everything sets itself up: a virtual environment in .venv, from pinned and hashed requirements. Only python3 (3.11 or later) has
# to be there. Each stage leaves a stamp, so that running a target again installs nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
INSTALL := $(PIP) install --quiet --no-deps
LOCKED := $(INSTALL) --require-hashes
export PIP_ROOT_USER_ACTION := ignore

# The one package that is pinned without a hash: which build fits depends on the machine (CPU, CUDA). To choose one by hand:
#   make test TORCH="torch==2.13.0 --index-url …"
TORCH ?= torch==2.13.0

# The tests of a file run in one process, since they share what is costly to make. tests/conftest.py says how many processes there
# are, and which files come first.
TESTS_AT_ONCE ?= -n auto --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo serve test check docs definitions ig lock clean bench-rebuild bench-append bench-ingest bench-qido bench-seal bench-validate bench-fhir bench-export bench-cohort

help:  ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: $(VENV)/base.stamp  ## One CT phantom through the whole house, in a temporary folder
	$(BIN)/anamnesis demo

serve: $(VENV)/base.stamp  ## Serve from ~/.local/share/anamnesis, with the embedded database and a worker
	$(BIN)/anamnesis init
	$(BIN)/anamnesis serve --with-worker

# All tests run in several processes, each with a database server of its own; what ARGS chooses runs in one that needs not wait for them.
test: $(VENV)/test.stamp  ## Run every test, several at once (or some, one after the other: make test ARGS="-k spool")
	$(BIN)/python -m pytest $(if $(ARGS),$(ARGS),$(TESTS_AT_ONCE) --durations=25)

check: $(VENV)/dev.stamp  ## Lint, types, import contracts, documentation
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

docs: $(VENV)/dev.stamp  ## Show the documentation on http://127.0.0.1:8000
	$(BIN)/mkdocs serve

bench-append: $(VENV)/dev.stamp  ## Events/s against a library and bare INSERTs
	$(BIN)/python benchmarks/append.py $(ARGS)

bench-ingest: $(VENV)/dev.stamp  ## Instances/s over C-STORE against Orthanc and the disk (as root)
	$(BIN)/python benchmarks/ingest.py $(ARGS)

bench-qido: $(VENV)/dev.stamp  ## Study lists and metadata against Orthanc (as root)
	$(BIN)/python benchmarks/qido.py $(ARGS)

bench-seal: $(VENV)/dev.stamp  ## Appends with the sealer on and off, proofs/s, and verification against bare SHA-256
	$(BIN)/python benchmarks/seal.py $(ARGS)

bench-fhir: $(VENV)/dev.stamp  ## Requests/s and search times at 1k, 8k and 64k patients, beside a bare route (half an hour)
	$(BIN)/python benchmarks/fhir.py $(ARGS)

bench-validate: $(VENV)/dev.stamp  ## Milliseconds to validate a resource, over R5's official examples (needs npm)
	$(BIN)/python benchmarks/validate.py $(ARGS)

bench-export: $(VENV)/dev.stamp  ## Resources/s of a Bulk Data export, beside COPY and a cursor
	$(BIN)/python benchmarks/export.py $(ARGS)

bench-cohort: $(VENV)/bench.stamp  ## Facets, pages and searches over a million real series, beside PostgreSQL and DuckDB (ARGS=--rows: minutes)
	$(BIN)/python benchmarks/cohort.py $(ARGS)

bench-rebuild: $(VENV)/dev.stamp  ## Resource versions/s of a full rebuild, beside COPY (minutes)
	$(BIN)/python benchmarks/rebuild.py $(ARGS)

definitions: $(VENV)/base.stamp  ## Compile R5's definitions anew from their npm packages (npm has to be there)
	$(BIN)/python ig/compile_definitions.py $(ARGS)

ig: $(VENV)/base.stamp  ## Build the implementation guide with SUSHI, and its examples (Node and npm have to be there)
	$(BIN)/python tests/golden/write_examples.py
	$(BIN)/python ig/build_guide.py $(ARGS)

lock: $(VENV)/pip.stamp  ## Pin and hash the requirements anew, after a change of pyproject.toml
	$(PIP) install --quiet uv
	$(BIN)/python requirements/lock.py

clean:  ## Remove what was made here
	rm -rf $(VENV) site build *.egg-info ig/node_modules tests/fhir_kit_client/node_modules

$(VENV)/pip.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'Anamnesis needs Python 3.11 or later'; exit 1; }
	@sh requirements/venv.sh $(PYTHON) $(VENV)
	@touch $@

$(VENV)/base.stamp: $(VENV)/pip.stamp requirements/build.txt requirements/base.txt pyproject.toml
	$(LOCKED) -r requirements/build.txt
	$(LOCKED) -r requirements/base.txt
	$(INSTALL) --no-build-isolation --editable .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/base.stamp requirements/dev.txt
	$(LOCKED) -r requirements/dev.txt
	@touch $@

$(VENV)/bench.stamp: $(VENV)/dev.stamp requirements/bench.txt
	$(LOCKED) -r requirements/bench.txt
	@touch $@

# torch comes last, when all that it needs but CUDA is there: on a machine with CPU wheels at hand nothing else is fetched.
$(VENV)/test.stamp: $(VENV)/dev.stamp requirements/segmentation.txt
	$(LOCKED) -r requirements/segmentation.txt
	$(PIP) install --quiet $(TORCH)
	@touch $@
