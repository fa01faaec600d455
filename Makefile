# Two commands do everything on a machine with Python 3.11 to 3.13, pip and git:
#   make demo    set up, then train the default model on the built-in synthetic table
#   make test    set up, then run the tests
# `make check` is what CI and contributors run: lint, types, tests. `make test-fast` leaves the slow tests out.

# the first that is here; 3.11 to 3.13 are tested
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13; do \
	$$python -c '' 2>/dev/null && { echo $$python; exit; }; done; echo python3.11)
UV := .tools/bin/uv
BIN := .venv/bin
# uv lives beside the project's environment, not in it: a sync would remove it.
export UV_PYTHON_PREFERENCE := only-system

.PHONY: setup demo test test-fast check lint types lock wheel clean

setup: .venv/ready

$(UV):
	@command -v $(PYTHON) >/dev/null || { echo "no $(PYTHON) here: install Python 3.11, 3.12 or 3.13"; exit 1; }
	@$(PYTHON) -m pip --version >/dev/null 2>&1 || { echo "$(PYTHON) has no pip: leave the environment that is active, or install pip for it"; exit 1; }
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --target .tools 'uv>=0.13,<0.14'

.venv/ready: $(UV) requirements.lock pyproject.toml
	$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv
	$(UV) pip sync --quiet --compile-bytecode --python .venv requirements.lock
	$(UV) pip install --quiet --no-deps --python .venv --editable .
	@touch $@

DEMO := outputs/demo
demo: setup
	@echo "Demo: trains FAT, the default model, on a made-up table of 200,000 clicks whose true probabilities are known, so"
	@echo "that one sees how much of the attainable AUC it reaches. Under a minute of CPU time; no account, no download."
	@$(BIN)/fieldctr train tracker=none hydra.run.dir=$(DEMO)
	@echo
	@echo "Pictures are in $(DEMO): learning.png (how it learned, whether its probabilities are true),"
	@echo "field_pairs.png and attention.png (which fields it pairs; frames are the pairs that the table was made with)."
	@echo "Next, with  . $(BIN)/activate  once in each shell, or with $(BIN)/ in front:"
	@echo "  fieldctr show $(DEMO)                   what it is, what it reached, where its files are"
	@echo "  fieldctr train -m model=lr,fm,fat tuned=none   three models on equal footing, with a table"
	@echo "  fieldctr baseline run=$(DEMO)           what a model has to beat here, and what it cannot reach"

test: setup
	$(BIN)/pytest --numprocesses=2 --dist=loadfile

test-fast: setup
	$(BIN)/pytest --numprocesses=2 --dist=worksteal -m 'not slow'

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/ty check fieldctr

check: lint types test

# `make lock UPGRADE=--upgrade` takes newer versions. All extras but ray, which is large: its tests skip, and say so.
# TorchRec, which goes with an older torch, has a lock of its own.
EXTRAS := tensorboard joblib minilm lightgbm sklearn smollm2 slurm dev
COMPILE = $(UV) pip compile $(UPGRADE) --quiet --universal --generate-hashes --no-header --python-version 3.11
lock: $(UV)
	$(COMPILE) $(foreach extra,$(EXTRAS),--extra $(extra)) --output-file requirements.lock pyproject.toml
	$(COMPILE) --extra torchrec --output-file scripts/requirements-torchrec.lock pyproject.toml

wheel: setup
	$(BIN)/python -m build --wheel --no-isolation

clean:
	rm -rf .venv .tools dist
