"""The optimizer against its formula, its two ways against each other, and the schedule of its rate."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lvae.train.config import TrainConfig
from lvae.train.loop import adam
from lvae.train.loop.adam import Adam, has_fused_adam, learning_rate
from tests.train.trainer_examples import train_config

YES, NO = torch.tensor(True), torch.tensor(False)


def stepped(
    config: TrainConfig, fused: bool, updates: int, applied: list[Tensor] | None = None, size: int = 50
) -> tuple[Tensor, Adam]:
    """A parameter after some updates with gradients of seed `update`, at a rate of 0.01."""
    generator = torch.Generator().manual_seed(0)
    parameter = torch.randn(size, generator=generator)
    dtype = torch.bfloat16 if config.moments == "bfloat16" else torch.float32
    optimizer = Adam(config, [torch.zeros(size, dtype=dtype)], [torch.zeros(size, dtype=dtype)], fused)
    count = 0
    for update in range(updates):
        gradient = torch.randn(size, generator=generator)
        apply = YES if applied is None else applied[update]
        optimizer.step([parameter], [gradient], torch.tensor(0.01), apply, torch.tensor(float(count)))
        count += int(apply)
    return parameter, optimizer


def by_formula(config: TrainConfig, updates: int, size: int = 50) -> Tensor:
    """The same in float64, as the paper writes it."""
    generator = torch.Generator().manual_seed(0)
    parameter = torch.randn(size, generator=generator).double()
    first = second = torch.zeros(size, dtype=torch.float64)
    for update in range(1, updates + 1):
        gradient = torch.randn(size, generator=generator).double()
        first = config.beta1 * first + (1 - config.beta1) * gradient
        second = config.beta2 * second + (1 - config.beta2) * gradient**2
        mean, variance = first / (1 - config.beta1**update), second / (1 - config.beta2**update)
        parameter = parameter - 0.01 * mean / (variance.sqrt() + config.epsilon)
    return parameter


def test_torch_has_the_private_kernel_as_it_is_called() -> None:
    """If this alone fails, training goes on without the kernel, slower: adapt FUSED_ARGUMENTS and the call."""
    assert has_fused_adam()


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("epsilon", [1e-8, 0.1])
def test_updates_follow_the_formula(fused: bool, epsilon: float) -> None:
    config = train_config(epsilon=epsilon)
    parameter, _ = stepped(config, fused, 30)
    # 30 updates of 0.01 each, in float32: an error of some 1e-7 relative each.
    torch.testing.assert_close(parameter.double(), by_formula(config, 30), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fused", [True, False])
def test_an_update_that_is_not_applied_changes_no_bit(fused: bool) -> None:
    parameter, optimizer = stepped(train_config(), fused, 3)
    before = [tensor.clone() for tensor in (parameter, *optimizer.first, *optimizer.second)]
    for bad in (float("nan"), float("inf"), 1e30):
        optimizer.step([parameter], [torch.full((50,), bad)], torch.tensor(0.01), NO, torch.tensor(3.0))
    after = [parameter, *optimizer.first, *optimizer.second]
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))


def test_pieces_of_a_long_tensor_are_updated_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = stepped(train_config(), False, 4, size=1000)
    monkeypatch.setattr(adam, "CHUNK", 300)
    pieces, _ = stepped(train_config(), False, 4, size=1000)
    assert torch.equal(whole, pieces)


def test_moments_in_bfloat16_stay_near_the_formula() -> None:
    config = train_config(moments="bfloat16")
    parameter, optimizer = stepped(config, True, 30)
    assert optimizer.first[0].dtype == torch.bfloat16
    # Moments are rounded to 8 bits; over 30 updates of 0.01 the errors stay well below one update.
    torch.testing.assert_close(parameter.double(), by_formula(config, 30), rtol=0, atol=5e-3)


def rate(update: int, **changes: Any) -> float:
    config = TrainConfig(**({"learning_rate": 2e-4} | changes))
    return float(learning_rate(config, torch.tensor(float(update))))


def test_the_rate_is_warmed_up_from_zero_and_then_constant() -> None:
    assert rate(0) == 0
    assert rate(1) == pytest.approx(2e-6)
    assert rate(99) == pytest.approx(1.98e-4)
    assert rate(100) == rate(10_000_000) == pytest.approx(2e-4)
    assert rate(0, warm_up_updates=0) == pytest.approx(2e-4)


@given(st.integers(0, 3000), st.floats(0, 1e-4), st.integers(1, 2000))
def test_the_cosine_is_the_published_one(update: int, lowest: float, decay: int) -> None:
    highest, warm_up = 2e-4, 100
    counted = min(update, decay)
    warm = counted / warm_up * highest
    falling = (1 - lowest / highest) * 0.5 * (1 + math.cos(math.pi * counted / decay)) + lowest / highest
    found = rate(update, learning_rate_schedule="cosine", learning_rate_minimum=lowest, decay_updates=decay)
    # float32: a cosine near -1 leaves an error of 1e-7 of the highest rate
    assert found == pytest.approx(min(warm, highest * falling), rel=1e-5, abs=1e-10)
