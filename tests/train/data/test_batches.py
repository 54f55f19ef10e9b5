"""The order of samples, and the same samples from wherever they are read."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.train.data.batches import Batch, Batches, order
from lvae.train.data.sources import open_source
from lvae.train.devices.device import Device, Ranks
from lvae.train.devices.open import ranks_of
from tests.manifests.dataset_examples import build, encode, shard
from tests.train.trainer_examples import train_config


class Slice(Device):
    """One of several ranks that never meet."""

    def __init__(self, rank: int, world: int):
        super().__init__()
        self.rank, self.world = rank, world


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """144 latents of 4x2x2, some labelled."""
    return build(tmp_path_factory.mktemp("data") / "latents").open()


def read(dataset: Dataset, updates: int, first: int = 0, device: Device | None = None, **changes: Any) -> list[Batch]:
    placement = changes.pop("placement", "disk")
    config = train_config(**changes)
    device = device or Device()
    source = open_source(dataset, device, config.seed, placement)
    with Batches(source, dataset, config, device, 3, first) as batches:
        return [batch for _ in range(updates) for batch in batches.next()]


def joined(batches: list[Batch], field: str = "latents") -> torch.Tensor:
    return torch.cat([getattr(batch, field) for batch in batches])


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(0, 1 << 40), st.integers(0, 5))
def test_every_epoch_is_a_permutation(latents: int, seed: int, epoch: int) -> None:
    found = order(epoch * latents, latents, latents, seed)
    assert sorted(found.tolist()) == list(range(latents))


@settings(deadline=None, max_examples=50)
@given(st.integers(5, 50), st.integers(0, 300), st.integers(1, 100))
def test_the_order_is_a_function_of_the_place(latents: int, first: int, count: int) -> None:
    whole = order(0, first + count, latents, 7)
    assert order(first, count, latents, 7).tolist() == whole[first:].tolist()


def test_epochs_and_seeds_are_ordered_unlike() -> None:
    orders = [order(100 * epoch, 100, 100, seed).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(found) for found in orders}) == 4


def test_batches_hold_what_the_order_says_across_epochs(dataset: Dataset) -> None:
    batches = read(dataset, 12, batch=16)
    indices = order(0, 12 * 16, 144, 0)
    latents, labels = dataset.read(indices, np.float32)
    assert torch.equal(joined(batches), torch.from_numpy(latents).clamp(-4, 4))
    assert torch.equal(joined(batches, "labels"), torch.from_numpy(labels.astype(np.int64)))
    assert [batch.first for batch in batches] == [16 * number for number in range(12)]


def test_a_sequence_goes_on_from_any_update(dataset: Dataset) -> None:
    whole = read(dataset, 6, batch=8, accumulate=2)
    rest = read(dataset, 2, first=4 * 16, batch=8, accumulate=2)
    for expected, found in zip(whole[8:], rest, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(expected[:3], found[:3], strict=True))
        assert expected.first == found.first


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_every_micro_batch_equally(dataset: Dataset, world: int) -> None:
    alone = read(dataset, 3, batch=8, accumulate=2)
    ranks = [read(dataset, 3, batch=8, accumulate=2, device=Slice(rank, world)) for rank in range(world)]
    for number, expected in enumerate(alone):
        parts = [rank[number] for rank in ranks]
        for field in ("latents", "labels", "dropped"):
            assert torch.equal(joined(parts, field), getattr(expected, field))
        assert [part.first for part in parts] == [expected.first + 8 // world * rank for rank in range(world)]


@pytest.mark.parametrize("format_", ["zarr", "webdataset"])
@pytest.mark.parametrize("placement", ["disk", "memory", "device"])
def test_wherever_latents_lie_they_are_the_same(tmp_path: Path, dataset: Dataset, format_: str, placement: str) -> None:
    other = build(tmp_path / "latents", format=format_).open()
    assert torch.equal(joined(read(other, 4, placement=placement)), joined(read(dataset, 4)))


@pytest.mark.parametrize("placement", ["disk", "memory", "device"])
def test_bytes_of_pixels_are_normalized(tmp_path: Path, placement: str) -> None:
    pixels = shard(encode(tmp_path / "pixels", pixels=True), dtype="uint8").open()
    expected, _ = pixels.read(order(0, 32, len(pixels), 0), np.float32)
    assert torch.equal(joined(read(pixels, 4, placement=placement, clip=None)), torch.from_numpy(expected))


def test_latents_are_clipped_where_asked(dataset: Dataset) -> None:
    assert float(joined(read(dataset, 4, clip=0.5)).abs().max()) == 0.5
    assert float(joined(read(dataset, 18, clip=None)).abs().max()) > 2.0


def test_posteriors_are_drawn_anew_in_every_epoch_and_the_same_after_a_restart(tmp_path: Path) -> None:
    moments = shard(encode(tmp_path / "moments", store="moments"), dtype="float32").open()
    config = {"batch": 16, "clip": None}
    first, again = read(moments, 27, **config), read(moments, 18, first=9 * 16, **config)
    assert torch.equal(joined(first[9:]), joined(again))
    count = len(moments)
    epochs = [joined(first)[epoch * count : (epoch + 1) * count] for epoch in range(3)]
    places = [np.argsort(order(epoch * count, count, count, 0)) for epoch in range(3)]
    sorted_epochs = torch.stack([values[place] for values, place in zip(epochs, places, strict=True)])
    deviations = np.exp(np.asarray(moments.log_variances) / 2)
    noise = (sorted_epochs - torch.from_numpy(np.asarray(moments.latents))) / torch.from_numpy(deviations)
    assert not torch.equal(noise[0], noise[1])
    assert abs(float(noise.mean())) < 5 / noise.numel() ** 0.5
    assert abs(float(noise.square().mean()) - 1) < 5 * (2 / noise.numel()) ** 0.5


def test_labels_are_dropped_as_often_as_asked(dataset: Dataset) -> None:
    dropped = joined(read(dataset, 100, batch=16, label_drop=0.25), "dropped")
    assert abs(float(dropped.float().mean()) - 0.25) < 5 * (0.25 * 0.75 / 1600) ** 0.5


def test_an_error_of_the_reading_thread_reaches_the_training_one(tmp_path: Path) -> None:
    dataset = build(tmp_path / "latents").open()
    assert len(dataset.latents) == 144
    next((tmp_path / "latents" / "shards").rglob("latents/c/1/0/0/0")).unlink()
    with pytest.raises(LvaeError, match="missing"):
        read(dataset, 10)


def test_no_thread_is_left_behind(dataset: Dataset) -> None:
    read(dataset, 1)
    assert not [thread for thread in threading.enumerate() if thread.name == "batches"]


def test_torchrun_says_who_is_who() -> None:
    environment = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    assert ranks_of(environment) == Ranks(5, 8, 1, 4)
    assert ranks_of({"RANK": "5"}) == Ranks()
