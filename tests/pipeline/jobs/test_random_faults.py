"""Random faults by seed, in-process, on Dask and on Beam's job service; random_faults.py says which.

LVAE_FAULT_SEEDS: how many seeds of encoding; of decoding a fifth, on the job service half of encoding.
"""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipeline.cluster import dask, portable
from tests.pipeline.random_faults import WORKS, InProcess, OnDask, OnPortable, World, failing_writes, run

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]

SEEDS = range(int(os.environ.get("LVAE_FAULT_SEEDS", "2")))
JOBS = [("encoding", seed) for seed in SEEDS] + [("decoding", seed) for seed in SEEDS[: -(-len(SEEDS) // 5)]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> World:
    """One for all processes of these tests."""
    own = tmp_path_factory.getbasetemp()
    root = (own if worker_id == "master" else own.parent) / "random-faults"
    root.mkdir(exist_ok=True)
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return World.make(root)


@pytest.fixture(scope="module")
def on_dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[OnDask, Path]]:
    """And the folder whose disk its workers may fail to write to."""
    pytest.importorskip("distributed")
    root = tmp_path_factory.mktemp("dask")
    with dask(root / "cluster", **failing_writes(root)) as cluster:
        yield OnDask(cluster), root


@pytest.mark.parametrize(("work", "seed"), JOBS)
def test_in_process_whatever_happens_the_bytes_are_those_of_an_undisturbed_run(
    work: str, seed: int, world: World, tmp_path: Path
) -> None:
    run(InProcess(), seed, WORKS[work](world), tmp_path)


@pytest.mark.xdist_group("random faults on dask")
@pytest.mark.parametrize(("work", "seed"), JOBS)
def test_on_dask_whatever_happens_the_bytes_are_those_of_an_undisturbed_run(
    work: str, seed: int, world: World, on_dask: tuple[OnDask, Path]
) -> None:
    engine, root = on_dask
    engine.mend(stopped=True)
    run(engine, seed, WORKS[work](world), root)


@pytest.fixture(scope="module")
def on_portable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[OnPortable, Path]]:
    root = tmp_path_factory.mktemp("portable")
    with portable(root / "cluster", **failing_writes(root)) as service:
        yield OnPortable(service), root


@pytest.mark.xdist_group("random faults on the portable path")
@pytest.mark.parametrize("seed", SEEDS[: -(-len(SEEDS) // 2)])
def test_on_the_portable_path_whatever_happens_the_bytes_are_those_of_an_undisturbed_run(
    seed: int, world: World, on_portable: tuple[OnPortable, Path]
) -> None:
    engine, root = on_portable
    engine.mend(stopped=True)
    run(engine, seed, WORKS["encoding"](world), root)
