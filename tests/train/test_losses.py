"""The objective: laws, and values from its description."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.distributions import Normal, kl_divergence

from lvae.manifests.errors import LvaeError
from lvae.train.losses import kl_weights, rate_schedule, reconstruction
from lvae.train.presets import NAMES, preset

torch.set_num_threads(1)

LAW = settings(max_examples=60, deadline=None)

RATES = arrays(np.float32, (5, 3), elements=st.floats(0, 1e4, width=32)).map(torch.from_numpy)
SCHEDULE = rate_schedule("shifted_exp", {"scale": 100, "shift": 1}, (5,))


def test_reconstruction_is_zero_where_the_output_is_the_target() -> None:
    x = torch.randn(3, 2, 4, 4)
    found = reconstruction(x, x, torch.full_like(x, 2 * math.log(0.07)), 0.07)
    torch.testing.assert_close(found, torch.zeros(3), rtol=0, atol=1e-4)


@LAW
@given(st.floats(-3, 3), st.floats(-8, 3), st.floats(0.01, 1))
def test_reconstruction_is_a_divergence_and_never_negative(mean: float, log_variance: float, sigma_q: float) -> None:
    x, m, lv = (torch.full((1, 1, 1, 1), v, dtype=torch.float64) for v in (0.5, mean, log_variance))
    found = reconstruction(x, m, lv, sigma_q)
    expected = kl_divergence(Normal(x, sigma_q), Normal(m, (lv / 2).exp())).sum()
    torch.testing.assert_close(found[0], expected, rtol=1e-9, atol=1e-9)
    assert found >= -1e-12


@pytest.mark.parametrize(
    ("scale", "shift", "layers", "first", "last"),
    [
        (1000, 10, 40, 0.111923, 10.276534),
        (1000, 10, 48, 0.094186, 8.648022),
        (2000, 10, 50, 0.050905, 9.301753),
        (600, 10, 33, 0.201737, 11.187246),
        (1000, 10, 35, 0.126839, 11.646154),
    ],
)
def test_shifted_exponential_schedule(scale: float, shift: float, layers: int, first: float, last: float) -> None:
    schedule = rate_schedule("shifted_exp", {"scale": scale, "shift": shift}, (layers - 3, 3))
    assert schedule.tolist()[:: layers - 1] == pytest.approx([first, last], rel=2e-5)
    assert schedule.dtype == torch.float32


def test_schedule_constant_per_resolution() -> None:
    pixels = rate_schedule("constant_per", [256, 128, 64, 32, 16, 8, 4, 1], (2, 5, *[8] * 6))
    assert (float(pixels[0]), float(pixels[-1])) == pytest.approx((0.030994, 7.934573), rel=2e-5)
    upsampler = rate_schedule("constant_per", [8, 4, 2, 1], (3, 6, 8, 8))
    assert (float(upsampler[0]), float(upsampler[-1])) == pytest.approx((0.926389, 7.411111), rel=2e-6)
    assert upsampler[:8].unique().numel() == 1


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_has_a_schedule_that_sums_to_two_thirds(name: str) -> None:
    found = preset(name)
    training = found.training
    schedule = rate_schedule(training.rate_schedule, training.rate_arguments, found.model.groups)
    assert len(schedule) == sum(found.model.groups)
    assert float(schedule.double().sum()) == pytest.approx(66.7, rel=1e-6)


@pytest.mark.parametrize("arguments", [{"scale": 10}, {"scale": 10, "shift": 1, "more": 1}, {}])
def test_a_schedule_with_other_arguments_is_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(LvaeError, match="needs scale and shift"):
        rate_schedule("shifted_exp", arguments, (2, 2))


def test_schedules_that_do_not_fit_are_refused() -> None:
    with pytest.raises(LvaeError, match="3 numbers for 2 resolutions"):
        rate_schedule("constant_per", [1, 2, 3], (2, 2))
    with pytest.raises(LvaeError, match="share above 0"):
        rate_schedule("constant_per", [1, 0], (2, 2))
    with pytest.raises(LvaeError, match="choose shifted_exp"):
        rate_schedule("linear", [1, 0], (2, 2))


def test_weights_follow_their_pieces() -> None:
    k = torch.tensor([0.5, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 100.0])
    # One image each: a second group brings the whole to 200, of which 5 percent are 10.
    weights = kl_weights(torch.stack([k, 200 - k]), torch.tensor([5.0, 61.7]))
    torch.testing.assert_close(weights[0], torch.tensor([0.1, 0.5, 1, 1, 1, 1.5, 2, 2]))


@LAW
@given(RATES)
def test_weights_stay_between_floor_and_two_and_carry_no_gradient(rates: torch.Tensor) -> None:
    weights = kl_weights(rates.requires_grad_(), SCHEDULE)
    assert not weights.requires_grad
    assert ((weights >= 0.1) & (weights <= 2)).all()


@LAW
@given(RATES, st.floats(0.01, 100))
def test_weights_do_not_depend_on_the_unit_of_rates(rates: torch.Tensor, unit: float) -> None:
    rates = rates.double()
    torch.testing.assert_close(kl_weights(rates * unit, SCHEDULE), kl_weights(rates, SCHEDULE), rtol=1e-6, atol=1e-6)


@LAW
@given(RATES, st.integers(0, 4), st.floats(1, 100))
def test_a_group_that_carries_more_costs_no_less(rates: torch.Tensor, group: int, more: float) -> None:
    higher = rates.clone()
    higher[group] *= more
    assert (kl_weights(higher, SCHEDULE)[group] >= kl_weights(rates, SCHEDULE)[group] - 1e-5).all()


def test_images_are_weighted_by_themselves() -> None:
    rates = torch.rand(5, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(kl_weights(rates, SCHEDULE)[:, 1:2], kl_weights(rates[:, 1:2], SCHEDULE))


def test_an_image_without_any_rate_gets_the_floor() -> None:
    assert (kl_weights(torch.zeros(5, 2), SCHEDULE) == torch.tensor(0.1)).all()
