"""Stragglers, leases and outages by seed, on a disk and on an S3 server; store_faults.py says which.

LVAE_FAULT_SEEDS: how many seeds in all.
"""

import os
from collections.abc import Iterator

import pytest

from tests.pipeline.bad_s3 import bad_s3
from tests.pipeline.store_faults import World, make_world

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.xdist_group("store faults")]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    pytest.importorskip("s3fs")
    pytest.importorskip("moto")
    root = tmp_path_factory.mktemp("store-faults")
    with bad_s3(root) as store, make_world(root, store) as found:
        yield found


@pytest.mark.parametrize("seed", range(int(os.environ.get("LVAE_FAULT_SEEDS", "6"))))
def test_whatever_happens_to_storage_the_bytes_are_those_of_an_undisturbed_run_or_the_end_is_clear(
    world: World, seed: int
) -> None:
    world.run(seed)
