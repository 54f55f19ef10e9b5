"""Noise is a function of an image's seed."""

import pytest
import torch

from lvae.manifests.seeds import derive
from lvae.train.network.noise import draw_drop, draw_noise, noise_shapes
from tests.train.model_examples import CONDITIONAL, EXAMPLES


@pytest.mark.parametrize("name", EXAMPLES)
def test_noise_has_a_tensor_a_group_lowest_resolution_first(name: str) -> None:
    config = EXAMPLES[name]
    noise = draw_noise(config, [1, 2])
    assert [tuple(values.shape[1:]) for values in noise] == noise_shapes(config)
    assert [values.shape[2] for values in noise] == list(config.group_resolutions)


def test_an_images_noise_does_not_depend_on_its_batch() -> None:
    seeds = [derive(0, "sample", index) for index in range(5)]
    together, alone = draw_noise(CONDITIONAL, seeds), draw_noise(CONDITIONAL, seeds[3:4])
    assert all(a[3:4].equal(b) for a, b in zip(together, alone, strict=True))


def test_noise_is_standard_normal_and_differs_between_groups_and_images() -> None:
    noise = draw_noise(CONDITIONAL, range(200))
    values = torch.cat([n.flatten() for n in noise])
    assert float(values.mean()) == pytest.approx(0, abs=0.01)
    assert float(values.std()) == pytest.approx(1, abs=0.01)
    assert not noise[0].equal(noise[1])
    assert not noise[0][0].equal(noise[0][1])


def test_labels_are_dropped_as_often_as_asked() -> None:
    seeds = range(4000)
    assert int(draw_drop(seeds, 0.1).sum()) == pytest.approx(400, abs=60)
    assert not draw_drop(seeds, 0.0).any()
    assert draw_drop(seeds, 1.0).all()
    assert draw_drop(seeds, 0.1)[7:9].equal(draw_drop(seeds[7:9], 0.1))
