"""What a run will need, before anything is allocated."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lvae.train.config import ModelConfig, TrainConfig
from lvae.train.losses import loss
from lvae.train.model import HierarchicalVAE
from lvae.train.network.noise import noise_shapes
from lvae.train.runs.run import RunConfig


@dataclass(frozen=True)
class Estimate:
    """Of one device. Memory in bytes: weights with gradients, moments and average; what a backward pass keeps."""

    parameters: int
    state_bytes: int
    activation_bytes: int
    updates_per_epoch: float
    epochs: float

    def lines(self) -> list[str]:
        gib = 1 << 30
        return [
            f"parameters          {self.parameters:,}",
            f"memory, about       {(self.state_bytes + self.activation_bytes) / gib:.2f} GiB a device: "
            f"{self.state_bytes / gib:.2f} for weights, gradients, moments and average, "
            f"{self.activation_bytes / gib:.2f} for activations",
            f"updates an epoch    {self.updates_per_epoch:.1f}",
            f"epochs              {self.epochs:.1f}",
        ]


def estimate(config: RunConfig, devices: int) -> Estimate:
    model, training = config.model, config.training
    parameters = sum(p.numel() for p in _on_meta(model, training).parameters())
    moment = 2 if training.moments == "bfloat16" else 4
    images = training.batch * training.accumulate
    return Estimate(
        parameters,
        parameters * (4 + 4 + 4 + 2 * moment),
        activation_bytes(model, training) * training.batch // devices,
        config.dataset.count / images,
        training.updates * images / config.dataset.count,
    )


def activation_bytes(model: ModelConfig, training: TrainConfig) -> int:
    """What the backward pass of one image keeps, by counting on tensors without memory. bfloat16 takes about half."""
    network = _on_meta(model, training)
    own = {tensor.untyped_storage()._cdata for tensor in network.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage()._cdata
        if place not in own:
            kept[place] = tensor
        return tensor

    with torch.device("meta"), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        x = torch.empty(2, model.channels, model.resolution, model.resolution)
        labels = torch.empty(2, dtype=torch.int64) if model.classes else None
        out = network(x, labels, [torch.empty(2, *shape) for shape in noise_shapes(model)])
        loss(out, x, torch.empty(len(out.rates)), training.sigma_q, training.spectral_weight)
    whole = sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) // 2
    return whole // 2 if training.precision == "bfloat16" else whole


def _on_meta(model: ModelConfig, training: TrainConfig) -> HierarchicalVAE:
    with torch.device("meta"):
        return HierarchicalVAE(model, recompute_from=training.recompute_from)
