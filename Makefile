# Every target sets itself up: the environment lives in .venv and is made again only when the pins change.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.pins
PINS := constraints.txt pyproject.toml

.PHONY: demo test check bench slow clean

$(STAMP): $(PINS)
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "flyweight needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": run `make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)`")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python has no venv/ensurepip: install it (Debian and Ubuntu: apt-get install python3-venv)"; exit 2; }
	@echo "Setting up $(VENV) from constraints.txt (about a minute, once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# torch goes first and by its exact version, so that no other package can ask for a newer build with CUDA.
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo,test,check]'
	@# By itself TorchRec would ask for a build of FBGEMM with CUDA.
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps torchrec==1.8.0
	@touch $@

demo: $(STAMP)
	@$(BIN)/flyweight demo

test: $(STAMP)
	@# A process for each core, each on one thread; a file's tests stay together, for they share what they set up.
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile

slow: $(STAMP)
	@$(BIN)/python -m pytest -m slow

check: $(STAMP)
	@$(BIN)/ruff check src tests benchmarks examples
	@$(BIN)/mypy

$(VENV)/.bench: $(STAMP)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@touch $@

bench: $(VENV)/.bench
	@$(BIN)/python benchmarks/demo.py
	@$(BIN)/python benchmarks/references.py
	@$(BIN)/python benchmarks/coverage.py
	@$(BIN)/python benchmarks/lookup.py
	@$(BIN)/python benchmarks/tables.py
	@$(BIN)/python benchmarks/encode_file.py
	@$(BIN)/python benchmarks/widths.py
	@$(BIN)/python benchmarks/roofline.py
	@$(BIN)/python benchmarks/gpu.py
	@$(BIN)/python benchmarks/saliency.py
	@$(BIN)/python benchmarks/distillation.py
	@$(BIN)/python benchmarks/dense_models.py
	@$(BIN)/python benchmarks/dense_laplace.py
	@$(BIN)/python benchmarks/dense_lenet.py 0 1 2
	@# The last ones read files that no package holds, from the folder FLYWEIGHT_DATA (docs/zoo.md).
	@$(BIN)/python benchmarks/dense.py
	@$(BIN)/python benchmarks/latency.py
	@$(BIN)/python benchmarks/retrieval.py
	@$(BIN)/python benchmarks/profile_gains.py
	@$(BIN)/python benchmarks/parallel.py
	@$(BIN)/python benchmarks/parallel_units.py
	@$(BIN)/python benchmarks/sharded_training.py plain row table recovery-1 recovery-2 tables-1 tables-2
	@$(BIN)/python benchmarks/sharded_lookup.py
	@$(BIN)/python benchmarks/cluster.py
	@# Of the bundle that `make demo` made.
	@$(BIN)/python benchmarks/serving.py demo/ranker.fly
	@$(BIN)/python benchmarks/serving_watching.py demo/ranker.fly
	@$(BIN)/python benchmarks/serving_ray.py demo/ranker.fly
	@$(BIN)/python benchmarks/auto_prediction.py
	@$(BIN)/python benchmarks/auto_certificates.py
	@$(BIN)/python benchmarks/auto_peer.py --certify --json benchmarks/results/auto_peer.json
	@$(BIN)/python benchmarks/auto.py
	@$(BIN)/python benchmarks/auto.py --ablation complete-journey-10
	@$(BIN)/python benchmarks/auto_threads.py complete-journey-10
	@$(BIN)/python benchmarks/auto.py --tables

clean:
	rm -rf $(VENV) build dist
