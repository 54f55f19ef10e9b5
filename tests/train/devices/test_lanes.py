"""Slices of a micro-batch that threads compute side by side."""

from collections.abc import Iterator

import pytest
import torch

from lvae.train.devices.device import LEAST_ROWS, MOST_LANES, Device
from lvae.train.loop.update import Updater
from tests.train.trainer_examples import batch, model_config, train_config, updater

ROWS = 2 * LEAST_ROWS
MODEL = model_config(classes=3, hierarchical_prior=True)


@pytest.fixture(autouse=True)
def threads_as_they_were() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def on_threads(count: int, **changes: object) -> Updater:
    torch.set_num_threads(count)
    return updater(train_config(**changes), MODEL, Device())


@pytest.mark.parametrize("singular_vectors", ["kept", "redrawn"])
def test_two_lanes_learn_what_two_micro_batches_do_to_the_last_bit(singular_vectors: str) -> None:
    lanes = on_threads(2, batch=ROWS, singular_vectors=singular_vectors)
    after = on_threads(1, batch=ROWS // 2, accumulate=2, singular_vectors=singular_vectors)
    for number in range(6):
        whole = batch(number, ROWS, classes=3)
        assert whole.labels is not None and whole.dropped is not None
        lanes([whole])
        pieces = zip(whole.latents.chunk(2), whole.labels.chunk(2), whole.dropped.chunk(2), strict=True)
        halves = [whole._replace(latents=x, labels=y, dropped=d) for x, y, d in pieces]
        after([halves[0], halves[1]._replace(first=whole.first + ROWS // 2)])
    found = lanes.groups()
    for group, tensors in after.groups().items():
        for name, tensor in tensors.items():
            assert torch.equal(tensor, found[group][name]), f"{group} {name}"


def test_lanes_go_on_from_restored_weights() -> None:
    first, second = (on_threads(2, batch=ROWS) for _ in range(2))
    first([batch(0, ROWS, classes=3)])
    second([batch(5, ROWS, classes=3)])
    second.restore(first.snapshot())
    for training in (first, second):
        with training.using_average():
            pass
        training([batch(1, ROWS, classes=3)])
    assert torch.equal(first.parameters.tensors[0], second.parameters.tensors[0])


@pytest.mark.parametrize(
    ("threads", "rows", "lanes", "each"),
    [(1, 64, 1, 1), (2, 64, 2, 1), (2, LEAST_ROWS, 1, 2), (3, 64, 2, 1), (2, 2 * LEAST_ROWS + 1, 1, 2), (16, 64, 4, 4)],
)
def test_lanes_share_the_threads_until_the_device_is_closed(threads: int, rows: int, lanes: int, each: int) -> None:
    torch.set_num_threads(threads)
    device = Device()
    assert device.split(rows) == lanes <= MOST_LANES
    assert torch.get_num_threads() == each
    assert f"{threads} thread" in device.describe()
    device.close()
    assert torch.get_num_threads() == threads


def test_what_is_parallel_already_or_rounded_is_not_split() -> None:
    torch.set_num_threads(2)
    assert Device(compiled=True).split(64) == 1
    rank = Device()
    rank.world = 2
    assert rank.split(64) == 1
    assert Device("bfloat16").split(64) == 1
