"""Diagonal Gaussians: their laws, and the values that published weights rely on."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from lvae.train.network.gaussians import Gaussian, rate, variance_from
from lvae.train.network.guidance import guide

torch.set_num_threads(1)

LAW = settings(max_examples=60, deadline=None)

VALUES = st.floats(-20, 20, width=32)
PARAMETERS = st.lists(VALUES, min_size=4, max_size=4).map(lambda v: torch.tensor(v).view(1, 4, 1, 1))


def test_variance_is_the_published_softplus() -> None:
    values = variance_from(torch.tensor([-5.0, 0.0, 1.0, 5.0]))
    torch.testing.assert_close(values, torch.tensor([0.044436, 1.00021, 1.58516, 5.04444]), rtol=1e-5, atol=0)


@pytest.mark.parametrize("unconstrained", [-1e30, -1000.0, -130.0, -30.0, 0.0, 130.0, 1e30])
def test_variance_its_logarithm_and_gradient_are_finite_everywhere(unconstrained: float) -> None:
    u = torch.tensor([unconstrained], requires_grad=True)
    variance = variance_from(u)
    (variance.log() + 1 / variance.clamp(min=1e-30)).sum().backward()  # type: ignore[no-untyped-call]
    assert variance > 0
    assert u.grad is not None
    for value in (variance, variance.log(), 1 / variance, u.grad):
        assert value.isfinite().all()


@LAW
@given(PARAMETERS, PARAMETERS)
def test_rate_is_not_negative_and_is_zero_between_equals(first: torch.Tensor, second: torch.Tensor) -> None:
    q, p = Gaussian.of(first), Gaussian.of(second)
    assert rate(q, p) >= -1e-5
    assert rate(q, q).abs() < 1e-6


@LAW
@given(PARAMETERS, PARAMETERS)
def test_rate_is_the_divergence_of_normal_distributions(first: torch.Tensor, second: torch.Tensor) -> None:
    q, p = Gaussian.of(first.double()), Gaussian.of(second.double())
    expected = kl_divergence(Normal(q.mean, q.variance.sqrt()), Normal(p.mean, p.variance.sqrt())).sum()
    torch.testing.assert_close(rate(q, p)[0], expected, rtol=1e-9, atol=1e-9)


@LAW
@given(PARAMETERS, PARAMETERS)
def test_guidance_without_weight_is_the_conditional_prior_exactly(first: torch.Tensor, second: torch.Tensor) -> None:
    conditional = Gaussian.of(first)
    found = guide(conditional, Gaussian.of(second), 0.0, 0.0)
    assert found.mean.equal(conditional.mean)
    assert found.variance.equal(conditional.variance)


@LAW
@given(PARAMETERS, PARAMETERS, st.floats(-2, 4), st.floats(-2, 4))
def test_guidance_is_equation_2(first: torch.Tensor, second: torch.Tensor, w_mean: float, w_sigma: float) -> None:
    c, u = Gaussian.of(first.double()), Gaussian.of(second.double())
    found = guide(c, u, w_mean, w_sigma)
    (mean_c, variance_c), (mean_u, variance_u) = (tuple(np.asarray(v) for v in g) for g in (c, u))
    sigma_c, sigma_u = np.sqrt(variance_c), np.sqrt(variance_u)
    np.testing.assert_allclose(found.mean, mean_c + w_mean * (mean_c - mean_u), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.variance, sigma_c**2 * (sigma_c / sigma_u) ** (2 * w_sigma), rtol=1e-9)


@LAW
@given(PARAMETERS, st.floats(-5, 5, width=32))
def test_a_draw_and_its_standardized_noise_convert_both_ways(parameters: torch.Tensor, noise: float) -> None:
    gaussian, eps = Gaussian.of(parameters), torch.full((1, 2, 1, 1), noise)
    z = gaussian.draw(eps)
    # Rounding of z is divided by the deviation: 1e-6 of the mean over it.
    tolerance = 1e-5 + 1e-6 * float((gaussian.mean.abs() / gaussian.variance.sqrt()).max())
    torch.testing.assert_close(gaussian.standardize(z), eps, rtol=1e-5, atol=tolerance)
    torch.testing.assert_close(gaussian.draw(gaussian.standardize(z)), z, rtol=1e-5, atol=1e-5)


def test_half_precision_parameters_give_a_full_precision_gaussian() -> None:
    gaussian = Gaussian.of(torch.randn(1, 4, 2, 2).bfloat16())
    assert gaussian.mean.dtype == gaussian.variance.dtype == torch.float32
