"""The model against a second implementation in float64, written from the description alone (reference.py)."""

import itertools
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lvae.train.losses import loss, rate_schedule
from lvae.train.model import HierarchicalVAE
from lvae.train.network.noise import draw_noise
from tests.train import reference
from tests.train.model_examples import EXAMPLES, batch, lively

torch.set_num_threads(1)

# float64 against float64: rounding alone. float32 against float64: some 60 layers of it, relative to the largest value.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}
SIGMA_Q, SPECTRAL_WEIGHT = 0.2, 0.1


def close(found: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    found, expected = found.detach().double(), expected.detach()
    error = (found - expected).abs().max() / expected.abs().max().clamp(min=1e-12)
    assert float(error) < tolerance, f"{what}: {float(error):.1e}"


def state_of(model: HierarchicalVAE) -> dict[str, Tensor]:
    """float64 leaves that collect gradients."""
    parameters = dict(model.named_parameters())
    return {
        name: tensor.detach().double().requires_grad_(name in parameters) for name, tensor in model.state_dict().items()
    }


def low_resolution(config: dict[str, Any], x: Tensor) -> Tensor | None:
    """Halved with antialiasing by hand: the triangle filter of four taps a side, cut off and normalized at the edge."""
    if config["low_resolution_factor"] is None:
        return None
    assert config["low_resolution_factor"] == 2
    side = x.shape[-1]
    matrix = torch.zeros(side // 2, side, dtype=torch.float64)
    for i in range(side // 2):
        for j in range(side):
            matrix[i, j] = max(0.0, 1 - abs((j + 0.5) - (2 * i + 1)) / 2)
    matrix = matrix / matrix.sum(1, keepdim=True)
    return torch.einsum("ih,bchw,jw->bcij", matrix, x.double(), matrix)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("name", "attention"),
    [
        *itertools.product(EXAMPLES, ("softmax", "published")),
        ("conditional", "normalized"),
        ("upsampler", "normalized"),
    ],
)
def test_outputs_rates_losses_and_gradients_equal_the_reference(name: str, attention: str, dtype: torch.dtype) -> None:
    config = replace(EXAMPLES[name], attention=attention)  # type: ignore[arg-type]
    if attention == "normalized" and config.resolutions[-1] == 1:  # scores of one position change nothing
        config = replace(config, attentions=(*config.attentions[:-1], 0))
    model = lively(config).to(dtype)
    x, labels = batch(config)
    noise = draw_noise(config, range(3))
    drop = torch.tensor([False, True, False])
    w, fields = state_of(model), asdict(config)
    told = None if labels is None else torch.where(drop, config.classes, labels)
    expected = reference.forward(
        w, fields, x.double(), [n.double() for n in noise], labels, told, low_resolution(fields, x)
    )
    schedule = rate_schedule("shifted_exp", {"scale": 20, "shift": 1}, config.groups)
    expected_losses = reference.total_loss(x.double(), expected, schedule.numpy(), SIGMA_Q, SPECTRAL_WEIGHT)
    expected_losses[0].backward()  # type: ignore[no-untyped-call]

    out = model(x.to(dtype), labels, [n.to(dtype) for n in noise], drop)
    losses = loss(out, x.to(dtype), schedule, SIGMA_Q, SPECTRAL_WEIGHT)
    losses.total.backward()

    tolerance = TOLERANCE[dtype]
    for what, found, right in zip(out._fields, out, expected, strict=True):
        close(found, right, tolerance, what)
    for group, (found, right) in enumerate(zip(out.rates, expected[2], strict=True)):
        close(found, right, tolerance, f"rate of group {group}")
    for what, found, right in zip(losses._fields, losses, expected_losses, strict=True):
        close(found, right, max(tolerance, 1e-7), what)  # the schedule is float32
    for parameter_name, parameter in model.named_parameters():
        right = w[parameter_name].grad
        assert parameter.grad is not None and right is not None
        close(parameter.grad, right, max(tolerance, 1e-6), f"gradient of {parameter_name}")


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("kind", ["unguided", "one weight", "per resolution", "the lower half"])
def test_samples_equal_the_reference(name: str, kind: str) -> None:
    config = replace(EXAMPLES[name], attention="published")
    model = lively(config)
    levels = len(config.groups)
    mean, variance, temperature = {
        "unguided": ([0.0] * levels, [0.0] * levels, 0.8),
        "one weight": ([1.5] * levels, [2.0] * levels, 1.0),
        "per resolution": ([0.0, *[1.5] * (levels - 1)], [0.0] * (levels - 1) + [1.0], 0.9),
        "the lower half": ([1.5] * (levels // 2) + [0.0] * (levels - levels // 2), [0.0] * levels, 1.0),
    }[kind]
    x, labels = batch(config)
    low = low_resolution(asdict(config), x)
    noise = draw_noise(config, range(3))
    expected = reference.sample(
        state_of(model), asdict(config), [n.double() for n in noise], labels, mean, variance, temperature, low
    )
    asked = (mean[0], variance[0]) if kind == "one weight" else (mean, variance)
    found = model.sample(3, labels, noise, temperature, *asked, low_resolution=None if low is None else low.float())
    close(found, expected, 1e-4, "sample")
