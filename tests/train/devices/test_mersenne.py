"""Noise drawn on a device is the CPU generator's."""

import pytest
import torch

from lvae.manifests.seeds import derive
from lvae.train.devices.mersenne import seeded_normals


@pytest.mark.parametrize("size", [16, 17, 31, 624, 640, 5000])
def test_rows_are_those_of_the_cpu_generator(size: int) -> None:
    seeds = [0, 1, (1 << 64) - 1, derive(3, "sample", 5)]
    wanted = torch.stack([torch.randn(size, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    found = seeded_normals(seeds, size, torch.device("cpu"))
    assert (found - wanted).abs().max() < 2e-6  # logarithms, sines and cosines of another library


def test_a_row_does_not_depend_on_the_others() -> None:
    alone, many = (seeded_normals(seeds, 100, torch.device("cpu")) for seeds in ([7], [3, 7, 9]))
    assert torch.equal(alone[0], many[1])


def test_too_few_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="15 numbers"):
        seeded_normals([1], 15, torch.device("cpu"))
