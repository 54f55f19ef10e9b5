"""Manipulations of inferred images: exact at their ends, a function of the seed, and for both priors."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lvae.evaluate.manipulation.operations import (
    ChannelSweep,
    Conditions,
    EncodedImage,
    Margins,
    count_groups_through,
    encode,
    interpolate,
    mix,
    outpaint,
    plan_canvas,
    reconstruct,
    reconstruct_depths,
    sample,
    set_channel,
    traverse,
)
from lvae.manifests.errors import LvaeError
from lvae.train.config import ModelConfig
from lvae.train.model import HierarchicalVAE
from lvae.train.network.choices import Guidance
from lvae.train.network.noise import draw_noise
from tests.train.model_examples import ABOVE_ONE, CONDITIONAL, EXAMPLES, PLAIN, UPSAMPLER, batch, lively

torch.set_num_threads(1)

# Standardizing divides by a deviation, drawing multiplies with it: a few roundings of float32.
ROUND_TRIP = {"rtol": 2e-5, "atol": 2e-5}


def coded(
    model: HierarchicalVAE, index: int = 0, seed: int = 5
) -> tuple[Tensor, Tensor | None, list[Tensor], EncodedImage]:
    """One image's latents, label, noise, and what it is encoded to."""
    x, labels = batch(model.config)
    one, label = x[index : index + 1], None if labels is None else labels[index : index + 1]
    noise = draw_noise(model.config, [seed + index])
    return one, label, noise, encode(model, one, label, noise)


@pytest.mark.parametrize("name", EXAMPLES)
def test_all_inferred_groups_decode_to_the_models_own_reconstruction(name: str) -> None:
    model = lively(EXAMPLES[name])
    x, label, noise, encoded = coded(model)
    assert reconstruct(model, encoded).equal(model(x, label, noise).mean)


@pytest.mark.parametrize("name", EXAMPLES)
def test_z_and_standardized_noise_convert_both_ways(name: str) -> None:
    model = lively(EXAMPLES[name])
    _, label, _, encoded = coded(model)
    nothing = [None] * len(encoded.z)
    with torch.no_grad():
        again = model.decode(nothing, label, encoded.noise, low_resolution=encoded.low_resolution)
    for z, found in zip(encoded.z, again.z, strict=True):
        torch.testing.assert_close(found, z, **ROUND_TRIP)
    for one, other in zip(encoded.noise, again.noise, strict=True):
        torch.testing.assert_close(other, one, **ROUND_TRIP)
    if not model.config.hierarchical_prior:
        assert all(z.equal(standardized) for z, standardized in zip(encoded.z, encoded.noise, strict=True))


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("space", ["z", "noise"])
@pytest.mark.parametrize("path", ["linear", "spherical"])
def test_the_ends_of_an_interpolation_are_the_two_reconstructions(name: str, space: str, path: str) -> None:
    model = lively(EXAMPLES[name])
    (_, _, _, first), (_, _, _, second) = coded(model, 0), coded(model, 1)
    start, middle, end = interpolate(model, first, second, (0.0, 0.5, 1.0), space, path)  # type: ignore[arg-type]
    assert start.equal(reconstruct(model, first))
    assert end.equal(reconstruct(model, second))
    assert middle.isfinite().all()
    assert not middle.equal(start)


def test_mixing_z_and_mixing_noise_are_one_under_a_standard_normal_prior_and_two_under_a_hierarchical_one() -> None:
    for config, same in ((PLAIN, True), (replace(CONDITIONAL, classes=0), False)):
        model = lively(config)
        (_, _, _, first), (_, _, _, second) = coded(model, 0), coded(model, 1)
        by_z, by_noise = (next(interpolate(model, first, second, (0.3,), space)) for space in ("z", "noise"))  # type: ignore[arg-type]
        assert torch.allclose(by_z, by_noise, rtol=1e-5, atol=1e-6) == same


@given(st.integers(0, 1000), st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_the_arc_keeps_to_norms_that_are_equal(seed: int, share: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    first, second = (torch.nn.functional.normalize(torch.randn(12, generator=generator), dim=0) for _ in range(2))
    between = mix(first, second, share, "spherical")
    assert float(between.norm()) == pytest.approx(1, abs=1e-5)
    assert mix(first, second, 0, "spherical") is first
    assert mix(first, second, 1, "spherical") is second


def test_equal_directions_are_mixed_along_the_line() -> None:
    ones = torch.ones(4)
    assert mix(ones, 3 * ones, 0.5, "spherical").equal(2 * ones)
    assert mix(torch.zeros(4), torch.zeros(4), 0.5, "spherical").equal(torch.zeros(4))


@pytest.mark.parametrize("config", [CONDITIONAL, PLAIN])
def test_a_traversal_at_the_drawn_values_is_the_sample(config: ModelConfig) -> None:
    model = lively(config)
    noise, label = draw_noise(config, [3]), torch.tensor([1]) if config.classes else None
    drawn = [float(noise[group][0, channel, 0, 0]) for group, channel in ((0, 2), (1, 0))]
    across, down = ChannelSweep(0, 2, (-1.0, drawn[0])), ChannelSweep(1, 0, (drawn[1], 2.0))
    grid = list(traverse(model, noise, down, across, Conditions(label)))
    assert len(grid) == 4
    own = sample(model, noise, Conditions(label))
    assert [one.equal(own) for one in grid] == [False, True, False, False]
    assert grid[0].equal(sample(model, set_channel(noise, 0, 2, -1.0), Conditions(label)))


def test_a_traversal_names_channels_that_are_not_there() -> None:
    model = lively(PLAIN)
    noise = draw_noise(PLAIN, [0])
    for group, channel in ((8, 0), (0, 3), (-1, 0)):
        with pytest.raises(LvaeError, match=r"groups 0 to 7 of channels 0 to 2"):
            next(traverse(model, noise, ChannelSweep(group, channel, (0.0,)), ChannelSweep(1, 1, (0.0,))))
    with pytest.raises(LvaeError, match="two different channels"):
        next(traverse(model, noise, ChannelSweep(1, 1, (0.0,)), ChannelSweep(1, 1, (0.0,))))


@pytest.mark.parametrize("name", ["conditional", "plain", "unconditional", "above one", "upsampler"])
def test_outpainting_by_nothing_is_the_reconstruction(name: str) -> None:
    model = lively(EXAMPLES[name])
    x, label, noise, encoded = coded(model)
    assert outpaint(model, encoded, Margins(), draw_noise(model.config, [1])).equal(model(x, label, noise).mean)


@pytest.mark.parametrize("config", [CONDITIONAL, PLAIN])
@pytest.mark.parametrize("margins", [Margins(right=16), Margins(left=4, top=8), Margins(1, 2, 3, 5), Margins(bottom=7)])
def test_an_outpainted_image_keeps_the_groups_inside_its_frame(config: ModelConfig, margins: Margins) -> None:
    model = lively(config)
    _, label, _, encoded = coded(model)
    grid, (rows, columns) = plan_canvas(config, margins)
    noise = draw_noise(config, [9], grid.size)
    wide = outpaint(model, encoded, margins, noise)
    assert wide.shape[2:] == (16 + margins.top + margins.bottom, 16 + margins.left + margins.right)
    assert wide.equal(outpaint(model, encoded, margins, noise))
    # The same by hand: what is given inside, the prior's draw outside, and 1x1 as it was.
    z, keep = [], []
    for given_z, resolution in zip(encoded.z, config.group_resolutions, strict=True):
        if resolution == 1:
            z.append(given_z)
            keep.append(torch.tensor(True))
            continue
        size = tuple(side * resolution // 16 for side in grid.size)
        placed, inside = torch.full((1, 3, *size), 7.0), torch.zeros(1, 1, *size, dtype=torch.bool)
        top, left = grid.top * resolution // 16, grid.left * resolution // 16
        placed[..., top : top + resolution, left : left + resolution] = given_z
        inside[..., top : top + resolution, left : left + resolution] = True
        z.append(placed)
        keep.append(inside)
    with torch.no_grad():
        whole = model.decode(z, label, noise, keep, size=grid.size)
    assert wide.equal(whole.mean[..., rows, columns])
    other = outpaint(model, encoded, margins, draw_noise(config, [10], grid.size))
    assert not wide.equal(other)


@given(st.tuples(*[st.integers(0, 20)] * 4))
def test_a_canvas_is_whole_positions_and_shows_what_was_asked_for(sides: tuple[int, int, int, int]) -> None:
    margins = Margins(*sides)
    grid, (rows, columns) = plan_canvas(PLAIN, margins)
    assert all(side % 4 == 0 for side in (*grid.size, grid.top, grid.left))
    assert rows.stop - rows.start == 16 + margins.top + margins.bottom
    assert columns.stop - columns.start == 16 + margins.left + margins.right
    assert 0 <= rows.start <= grid.top
    assert grid.top - rows.start == margins.top
    assert grid.left - columns.start == margins.left
    assert columns.stop <= grid.size[1]


def test_a_model_that_stops_above_1x1_cannot_outpaint_and_says_so() -> None:
    for config in (ABOVE_ONE, UPSAMPLER):
        model = lively(config)
        _, _, _, encoded = coded(model)
        with pytest.raises(LvaeError, match="only 16x16"):
            outpaint(model, encoded, Margins(right=8), draw_noise(config, [0]))


def test_columns_to_take_away_are_refused() -> None:
    with pytest.raises(LvaeError, match="0 or more"):
        plan_canvas(PLAIN, Margins(left=-4))


@pytest.mark.parametrize("name", EXAMPLES)
def test_depths_lead_from_a_sample_to_the_reconstruction(name: str) -> None:
    config = EXAMPLES[name]
    model = lively(config)
    x, label, noise, encoded = coded(model)
    drawn = draw_noise(config, [4])
    groups = sum(config.groups)
    found = list(reconstruct_depths(model, encoded, range(groups + 1), drawn))
    assert found[0].equal(sample(model, drawn, Conditions(label, encoded.low_resolution)))
    assert found[-1].equal(model(x, label, noise).mean)
    assert not found[1].equal(found[0])
    assert count_groups_through(config)[-1] == (config.resolution, groups)


def test_guidance_reaches_what_is_drawn_and_not_what_is_given() -> None:
    model = lively(CONDITIONAL)
    _, label, _, encoded = coded(model)
    guidance, drawn = Guidance(1.0, 0.5), draw_noise(CONDITIONAL, [4])
    none, half, every = (
        [next(reconstruct_depths(model, encoded, [count], drawn, each)) for each in (Guidance(), guidance)]
        for count in (0, 4, 8)
    )
    assert not none[0].equal(none[1])
    assert not half[0].equal(half[1])
    assert every[0].equal(every[1])
    assert not sample(model, drawn, Conditions(label)).equal(sample(model, drawn, Conditions(label, guidance=guidance)))


def test_noise_of_zeros_takes_the_means() -> None:
    model = lively(PLAIN)
    x, _ = batch(PLAIN)
    zeros = [torch.zeros_like(part) for part in draw_noise(PLAIN, [0])]
    encoded = encode(model, x[:1], None, zeros)
    found = model.infer(x[:1], None, zeros)
    assert all(z.equal(posterior.mean) for z, posterior in zip(encoded.z, found.posteriors, strict=True))
    assert np.isfinite(reconstruct(model, encoded).numpy()).all()
