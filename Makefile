# Every target works in .venv, made from setup.cfg and constraints.txt. PYTHON chooses the interpreter; TORCH_INDEX an index of packages
# that has the build of torch you want, for example one for CPUs (see README, "Installing").

PYTHON ?= python3
TORCH_INDEX ?=
BIN := .venv/bin
CLUSTER := .venv-cluster/bin/python
DEMO ?= demo
DEMO_MINUTES ?= 8
JOBS ?= 3
CLUSTER_JOBS ?= 3
PIP := $(BIN)/python -m pip install --quiet --prefer-binary
JOB_TESTS := tests/pipeline/jobs
CLUSTER_TESTS := $(JOB_TESTS)/test_random_faults.py $(JOB_TESTS)/test_clusters.py $(JOB_TESTS)/test_clusters_decode.py $(JOB_TESTS)/test_s3.py

.PHONY: demo test lint types pytest slow test-browser faults life search fuzz .venv-cluster/wheel test-xla test-cluster faults-cluster bench clean

demo: .venv/installed-features
	$(BIN)/lvae demo $(DEMO) --minutes $(DEMO_MINUTES)

test: lint types pytest

.venv/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(if $(TORCH_INDEX),$(PIP) -c constraints.txt --index-url $(TORCH_INDEX) torch)
	$(PIP) -c constraints.txt -e .
	touch $@

.venv/installed-features: .venv/installed
	$(PIP) -c constraints.txt -e '.[features]'
	touch $@

.venv/installed-test: .venv/installed
	$(PIP) -c constraints.txt -e '.[test]'
	touch $@

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed-test
	$(BIN)/mypy

pytest: .venv/installed-test
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

# What takes minutes each: kill -9, stalls, a full disk, bad storage, a dataset's life after its first day, long searches.
slow: .venv/installed-test
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "slow and not cluster"

# With stragglers, leases and outages by seed, on a disk and on an S3 server; LVAE_FAULT_SEEDS=200, for more.
faults: .venv/installed-test
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup -m slow $(JOB_TESTS)/test_faults.py $(JOB_TESTS)/test_storage_faults.py \
		$(JOB_TESTS)/test_store_faults.py

test-browser: .venv/installed-test  # needs chromium and chromedriver
	$(BIN)/python -m pytest -m browser tests/evaluate/explore

life: .venv/installed-test  # of a dataset after its first day, and the stories of docs/datasets.md
	$(BIN)/python -m pytest -n $(JOBS) -m slow $(JOB_TESTS)/test_life.py tests/test_docs_datasets.py

search: .venv/installed-test  # for inputs that break a law, other ones at every run; LVAE_HOSTILE_EXAMPLES=3000, for more
	LVAE_EXAMPLES=random $(BIN)/python -m pytest -n $(JOBS) -m "not xla and not cluster and not browser" \
		$$(grep -rl "from hypothesis" tests --include="test_*.py")

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

# Workers get the wheel and never the source tree: an environment of its own that borrows .venv's libraries. A path in a .pth file is
# searched, but the .pth files in it, the one of the editable install among them, are not read.
.venv-cluster/site: .venv/installed-test
	rm -rf .venv-cluster
	$(PYTHON) -m venv --without-pip .venv-cluster
	$(CLUSTER) -c 'import site; print(site.getsitepackages()[0])' > .venv-cluster/place
	$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' > "$$(cat .venv-cluster/place)/borrowed.pth"
	mv .venv-cluster/place $@

.venv-cluster/wheel: .venv-cluster/site
	rm -rf build
	$(PIP) --no-deps --upgrade --target "$$(cat .venv-cluster/site)" .

# With random faults, a few seeds on each of two engines; LVAE_FAULT_SEEDS=100, for more.
test-cluster: .venv-cluster/wheel
	$(CLUSTER) -m pytest -n $(CLUSTER_JOBS) --dist loadgroup -m "cluster and not slow" $(CLUSTER_TESTS)

faults-cluster: .venv-cluster/wheel
	LVAE_FAULT_SEEDS=$${LVAE_FAULT_SEEDS:-10} $(CLUSTER) -m pytest -n $(CLUSTER_JOBS) --dist loadgroup -m cluster $(CLUSTER_TESTS)

bench: .venv/installed-test
	for script in read_shards encode_memory start encoder_speed pipeline_overhead scan; do $(BIN)/python tests/benchmarks/$$script.py; done

clean:
	rm -rf .venv .venv-xla .venv-cluster demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
