"""Training in bfloat16: layers compute with a rounded copy of the weights, and nothing else is rounded."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lvae.train.config import ModelConfig
from lvae.train.data.batches import Batch
from lvae.train.devices.device import Device
from lvae.train.loop.update import Updater
from lvae.train.model import HierarchicalVAE
from lvae.train.network.layers import Attention, ResidualBlock
from lvae.train.presets import PRESETS
from tests.train.model_examples import CONDITIONAL, UNCONDITIONAL, lively
from tests.train.trainer_examples import batch, model_config, train_config

MODEL = model_config(classes=3, hierarchical_prior=True)


def training(precision: str = "bfloat16", **changes: Any) -> Updater:
    config = train_config(precision=precision, warm_up_updates=0, **changes)
    return Updater(lively(MODEL), config, Device(precision))  # type: ignore[arg-type]


def gradient(found: Updater, micro_batches: int = 1) -> dict[str, Tensor]:
    """Of an update that changes no weights."""
    found.counts["threshold"].fill_(-1.0)
    found.counts["applied"].fill_(10_000)
    found([batch(0, classes=3)] * micro_batches)
    assert int(found.counts["skipped"]) == 1
    return {name: tensor.clone() for name, tensor in found.parameters.named(found.parameters.gradients()).items()}


def apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The difference of two gradients over the size of the other."""
    difference = sum(float((one[name] - other[name]).square().sum()) for name in other)
    return (difference / sum(float(tensor.square().sum()) for tensor in other.values())) ** 0.5


def test_gradients_are_those_of_float32_within_what_half_precision_rounds() -> None:
    full, half = gradient(training("float32")), gradient(training())
    assert apart(half, full) < 0.02  # bfloat16 has 8 bits
    for name, tensor in full.items():
        assert apart({name: half[name]}, {name: tensor}) < 0.1, name


def test_the_penalty_and_its_gradient_are_those_of_the_weights_in_full() -> None:
    sums = []
    for precision in ("float32", "bfloat16"):
        found = training(precision)
        found([batch(0, classes=3)])
        sums.append(found.read_counts()["sums"])
    assert sums[0][3] == sums[1][3]
    vectors = [dict(training(precision).model.named_buffers()) for precision in ("float32", "bfloat16")]
    assert all(torch.equal(vector, vectors[1][name]) for name, vector in vectors[0].items())


def test_many_micro_batches_are_summed_in_full_precision() -> None:
    once, often = gradient(training()), gradient(training(), 16)
    assert apart(often, once) < 1e-6  # equal micro-batches, each divided by 16: in bfloat16 the sum would stop at a few


def test_a_class_of_many_latents_sums_their_gradients_in_full_precision() -> None:
    few = batch(0, classes=3)
    assert few.labels is not None and few.dropped is not None
    many = Batch(few.latents.repeat(128, 1, 1, 1), few.labels.repeat(128), few.dropped.repeat(128), 0)
    found = {}
    for precision in ("float32", "bfloat16"):
        updater = training(precision)
        updater.counts["threshold"].fill_(-1.0)
        updater.counts["applied"].fill_(10_000)
        updater([many])
        found[precision] = updater.parameters.named(updater.parameters.gradients())["embed.weight"].clone()
    assert apart({"": found["bfloat16"]}, {"": found["float32"]}) < 0.02


def test_weights_smaller_than_a_step_of_bfloat16_still_move() -> None:
    found = training(learning_rate=1e-5)
    for number in range(6):
        found([batch(number, classes=3)])
    groups = found.groups()
    assert {tensor.dtype for tensor in groups["model"].values()} == {torch.float32}
    weight, rounded = groups["model"]["encoder.in_proj.weight"], found.model.encoder.in_proj.weight
    assert rounded.dtype == torch.bfloat16
    assert torch.equal(weight.to(torch.bfloat16), rounded)
    assert not torch.equal(weight, weight.to(torch.bfloat16).float())


def test_what_is_restored_goes_on_bit_for_bit() -> None:
    through, stopped = training(), training()
    for number in range(2):
        through([batch(number, classes=3)])
        stopped([batch(number, classes=3)])
    restored = training()
    restored.restore(stopped.snapshot())
    for number in range(2, 4):
        through([batch(number, classes=3)])
        restored([batch(number, classes=3)])
    for group, tensors in through.groups().items():
        assert all(torch.equal(tensor, restored.groups()[group][name]) for name, tensor in tensors.items())


def test_the_average_and_weights_from_elsewhere_reach_the_layers() -> None:
    found = training()
    found([batch(0, classes=3)])
    own = found.model.encoder.in_proj.weight.detach().clone()
    average = found.parameters.named(found.average)["encoder.in_proj.weight"].to(torch.bfloat16)
    with found.using_average():
        assert torch.equal(found.model.encoder.in_proj.weight, average)
    assert torch.equal(found.model.encoder.in_proj.weight, own)
    other = {name: tensor + 1 for name, tensor in found.groups()["model"].items()}
    found.load(other, "--init")
    assert torch.equal(found.model.encoder.in_proj.weight, other["encoder.in_proj.weight"].to(torch.bfloat16))
    assert all(torch.equal(tensor, other[name]) for name, tensor in found.groups()["ema"].items())


@pytest.mark.parametrize("config", [CONDITIONAL, UNCONDITIONAL])
def test_what_layers_pass_on_is_in_half_precision_everywhere(config: ModelConfig) -> None:
    model, dtypes = lively(config), set()

    def look(_: nn.Module, given: tuple[Tensor, ...], __: Tensor) -> None:
        dtypes.add(given[0].dtype)

    for module in model.modules():
        if isinstance(module, ResidualBlock | Attention):
            module.register_forward_hook(look)
    x = torch.randn(2, config.channels, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        model.sample(2)
        model.infer(x)
    assert dtypes == {torch.bfloat16}


class Casts(TorchDispatchMode):
    """How many operations change nothing but a dtype."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.count += function is torch.ops.aten._to_copy.default and args[0].dtype != result.dtype
        return result


def casts(model: ModelConfig) -> int:
    """Of a micro-batch."""
    found = Updater(HierarchicalVAE(model), train_config(precision="bfloat16"), Device("bfloat16"))
    labels = torch.zeros(1, dtype=torch.int64) if model.classes else None
    latents = torch.randn(1, model.channels, model.resolution, model.resolution)
    one, counts = Batch(latents, labels, None, 0), []
    found([one])
    for micro_batches in (1, 2):
        with Casts() as counted:
            found([one] * micro_batches)
        counts.append(counted.count)
    return counts[1] - counts[0]


def test_four_casts_a_group_are_left() -> None:
    """Forward and backward: posterior and prior together become float32, and z becomes bfloat16; so does a label."""
    assert casts(MODEL) <= 4 * sum(MODEL.groups) + 5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["church256-f8", "imagenet256-f8"])
def test_a_micro_batch_of_the_paper_casts_fewer_than_two_hundred_times(name: str) -> None:
    assert casts(replace(PRESETS[name].model, width=8, encoder_width=8)) < 200  # as deep as the preset
