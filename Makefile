# Every target makes its own environment in .venv from setup.cfg and constraints.txt.

PYTHON ?= python3
BIN := .venv/bin
DEMO ?= demo
DEMO_MINUTES ?= 10
CLUSTER_JOBS ?= 2
CLUSTER_TESTS := tests/pipeline/jobs/test_random_faults.py tests/pipeline/jobs/test_clusters.py tests/pipeline/jobs/test_clusters_decode.py tests/pipeline/jobs/test_s3.py

.PHONY: demo test lint types pytest slow faults life fuzz .venv-cluster/wheel test-xla test-cluster faults-cluster bench clean

demo: .venv/installed
	$(BIN)/lvae demo $(DEMO) --minutes $(DEMO_MINUTES)

test: lint types pytest

.venv/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --prefer-binary -c constraints.txt -e .
	touch $@

.venv/installed-test: .venv/installed
	$(BIN)/python -m pip install --quiet --prefer-binary -c constraints.txt -e '.[test]'
	touch $@

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed-test
	$(BIN)/mypy

pytest: .venv/installed-test
	$(BIN)/python -m pytest -n 2

slow: .venv/installed-test
	$(BIN)/python -m pytest -m slow

faults: .venv/installed-test
	$(BIN)/python -m pytest -m slow tests/pipeline/jobs/test_faults.py tests/pipeline/jobs/test_storage_faults.py

life: .venv/installed-test  # of a dataset after its first day, and the stories of docs/datasets.md
	$(BIN)/python -m pytest -n 2 -m slow tests/pipeline/jobs/test_life.py tests/test_docs_datasets.py

fuzz: .venv/installed-test  # for example make fuzz FUZZ='--minutes 60 --readers zip,tar'
	$(BIN)/python -m tests.encode.fuzz $(FUZZ)

# torch_xla 2.9 works with torch 2.9 alone, which brings the CUDA stack along: 7 GB, some minutes.
.venv-xla/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-xla
	grep -v '^torch==' constraints.txt > .venv-xla/constraints.txt
	.venv-xla/bin/python -m pip install --quiet --prefer-binary -c .venv-xla/constraints.txt -e '.[tpu]' pytest pytest-timeout hypothesis
	touch $@

test-xla: .venv-xla/installed
	PJRT_DEVICE=CPU .venv-xla/bin/python -m pytest -m xla tests/train/test_xla.py

# Workers get the wheel alone, never the source tree.
.venv-cluster/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-cluster
	.venv-cluster/bin/python -m pip install --quiet --prefer-binary -c constraints.txt '.[dask,s3,test]' 'moto[s3]>=5' flask flask-cors
	touch $@

.venv-cluster/wheel: .venv-cluster/installed
	rm -rf build
	.venv-cluster/bin/python -m pip install --quiet --no-deps --force-reinstall .

# With random faults, ten seeds of encoding and two of decoding on each of two engines; LVAE_FAULT_SEEDS=100, for more.
test-cluster: .venv-cluster/wheel
	.venv-cluster/bin/python -m pytest -n $(CLUSTER_JOBS) --dist loadgroup -m "cluster and not slow" $(CLUSTER_TESTS)

faults-cluster: .venv-cluster/wheel
	.venv-cluster/bin/python -m pytest -n $(CLUSTER_JOBS) --dist loadgroup -m cluster $(CLUSTER_TESTS)

bench: .venv/installed-test
	for script in read_shards encode_memory start encoder_speed pipeline_overhead scan; do $(BIN)/python tests/benchmarks/$$script.py; done

clean:
	rm -rf .venv .venv-xla .venv-cluster demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
