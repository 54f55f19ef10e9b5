"""What a run will need."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lvae.train.config import ModelConfig, TrainConfig
from lvae.train.devices.device import Device, Precision
from lvae.train.loop.update import Updater
from lvae.train.model import HierarchicalVAE
from lvae.train.presets import PRESETS
from lvae.train.runs.estimates import activation_bytes, latent_flop, measure_memory
from tests.train.trainer_examples import batch, model_config, train_config


def test_flop_are_those_that_torch_counts_forward_and_backward() -> None:
    # tests/benchmarks/reckoning.md: 242.4 GFLOP a latent, counted with the backward pass itself
    assert round(latent_flop(PRESETS["church256-f8"].model) / 1e9, 0) == 242


def kept_bytes(model: ModelConfig, training: TrainConfig, size: int) -> int:
    """What an update keeps for its backward pass, of so many latents, on a CPU."""
    precision: Any = training.precision
    updater = Updater(HierarchicalVAE(model, recompute_from=training.recompute_from), training, Device(precision))
    own = {tensor.untyped_storage().data_ptr() for tensor in updater.model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        updater([batch(size=size, classes=model.classes)])
    return sum(one.untyped_storage().nbytes() for place, one in kept.items() if place not in own)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("recompute_from", [None, 8])
def test_memory_is_what_a_backward_pass_keeps(precision: Precision, recompute_from: int | None) -> None:
    model = model_config(classes=3, hierarchical_prior=True)
    training = train_config(precision=precision, recompute_from=recompute_from)
    each = (kept_bytes(model, training, 64) - kept_bytes(model, training, 32)) / 32
    assert activation_bytes(model, training, "cpu") == pytest.approx(each, rel=0.02)


def test_only_where_weights_are_rounded_a_copy_of_them_counts() -> None:
    model = model_config()
    whole, half = (train_config(precision=precision) for precision in ("float32", "bfloat16"))
    numbers = measure_memory(model, whole, "cuda").parameters
    assert measure_memory(model, whole, "cuda").state_bytes == 20 * numbers  # weights, gradients, moments, average
    assert measure_memory(model, half, "cuda").state_bytes == 24 * numbers  # rounded weights and their gradients
    assert measure_memory(model, half, "xla").state_bytes == 20 * numbers


def test_attention_keeps_its_probabilities_on_xla_alone() -> None:
    model, training = PRESETS["church256-f8"].model, replace(PRESETS["church256-f8"].training, precision="bfloat16")
    difference = activation_bytes(model, training, "xla") - activation_bytes(model, training, "cuda")
    assert difference > 0
