"""What a run will need, before anything is allocated."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from lvae.manifests.errors import LvaeError
from lvae.train.config import ModelConfig, TrainConfig
from lvae.train.losses import loss
from lvae.train.model import HierarchicalVAE
from lvae.train.network.noise import noise_shapes
from lvae.train.runs.run import RunConfig

FREE_SHARE = 0.75  # of the memory that is free, for what the estimate knows; kernels want room of their own
PRODUCTS = (F.conv2d, F.linear, F.scaled_dot_product_attention)  # of the model, which autocast gives half precision
COUNTED = 2  # latents, of which one is half: what is kept once, whatever their number, is little

Kind = Literal["cpu", "cuda", "xla"]


@dataclass(frozen=True)
class Memory:
    """Bytes of one device: weights with gradients, moments and averages; what the backward pass of one latent keeps."""

    parameters: int
    state_bytes: int
    latent_bytes: int


@dataclass(frozen=True)
class Estimate:
    """Of one device. Memory in bytes: weights with gradients, moments and average; what a backward pass keeps."""

    parameters: int
    state_bytes: int
    activation_bytes: int
    micro_batch: int
    micro_batches: int
    updates_per_epoch: float
    epochs: float

    def lines(self) -> list[str]:
        gib = 1 << 30
        return [
            f"parameters          {self.parameters:,}",
            f"micro-batch         {self.micro_batch} latents a device, {self.micro_batches} of them an update",
            f"memory, about       {(self.state_bytes + self.activation_bytes) / gib:.2f} GiB a device: "
            f"{self.state_bytes / gib:.2f} for weights, gradients, moments and average, "
            f"{self.activation_bytes / gib:.2f} for activations",
            f"updates an epoch    {self.updates_per_epoch:.1f}",
            f"epochs              {self.epochs:.1f}",
        ]


def count_parameters(model: ModelConfig) -> int:
    return sum(parameter.numel() for parameter in on_meta(model).parameters())


def measure_memory(model: ModelConfig, training: TrainConfig, kind: Kind) -> Memory:
    """Of a device of this kind, reckoned on tensors without memory; training: as it is executed there."""
    parameters = count_parameters(model)
    moment = 2 if training.moments == "bfloat16" else 4
    rounded = 2 + 2 if training.precision == "bfloat16" and kind != "xla" else 0  # weights and their gradients
    each = 4 + 4 + rounded + 2 * moment + 4 * len(training.averages)
    return Memory(parameters, parameters * each, activation_bytes(model, training, kind))


def estimate(config: RunConfig, devices: int, memory: Memory) -> Estimate:
    """memory: of the training as it is executed."""
    training = config.executed()
    return Estimate(
        memory.parameters,
        memory.state_bytes,
        memory.latent_bytes * training.batch // devices,
        training.batch // devices,
        training.accumulate,
        config.dataset.count / training.update_size,
        training.updates * training.update_size / config.dataset.count,
    )


def choose_micro_batch(each: int, most: int, memory: Memory, free: int | None) -> int:
    """Latents to compute at a time of the `each` that a device sees in an update: as many, to `most`, as fit.

    free: bytes of the device; None where unknown.
    """
    room = most if free is None else int(FREE_SHARE * free - memory.state_bytes) // max(1, memory.latent_bytes)
    return next(size for size in range(max(1, min(each, most, room)), 0, -1) if each % size == 0)


def micro_batch_of(asked: int, each: int) -> int:
    """What was asked for, which must divide the `each` that a device sees in an update."""
    if each % asked == 0:
        return asked
    near = min((size for size in range(1, each + 1) if each % size == 0), key=lambda size: (abs(size - asked), -size))
    problem = f"a device sees {each} latents in an update, and that is no multiple of it"
    raise LvaeError(f"--micro-batch {asked}", problem, f"Take {near}, for example.")


def activation_bytes(model: ModelConfig, training: TrainConfig, kind: Kind) -> int:
    """What the backward pass of one latent keeps, by counting on tensors without memory, in the precision at hand.

    Compiled layers keep less.
    """
    half = training.precision == "bfloat16"
    network = on_meta(model, training.recompute_from)
    rounded = set(network.names_to_round()[0] if half else ())
    for name, parameter in network.named_parameters():
        layout = torch.channels_last if parameter.dim() == 4 else torch.contiguous_format
        parameter.data = parameter.to(torch.bfloat16 if name in rounded else torch.float32, memory_format=layout)
    network.penalty = lambda: torch.zeros(())  # it is one, whatever the latents
    own = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.device("meta"):
        x = torch.empty(COUNTED, model.channels, model.resolution, model.resolution)
        labels = torch.empty(COUNTED, dtype=torch.int64) if model.classes else None
        noise = [torch.empty(COUNTED, *shape) for shape in noise_shapes(model)]
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=half)
        with autocast, _AsComputed(kind), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            out = network(x, labels, noise)
            loss(out, x, torch.empty(len(out.rates)), training.sigma_q, training.spectral_weight)
    return sum(one.untyped_storage().nbytes() for place, one in kept.items() if place not in own) // COUNTED


class _AsComputed(TorchFunctionMode):
    """What devices do that tensors without memory know nothing of: autocast, and attention in one kernel.

    On XLA attention is computed step by step, and its probabilities are kept.
    """

    def __init__(self, kind: Kind):
        super().__init__()
        self._attend = F.scaled_dot_product_attention if kind == "xla" else _attend_at_once

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in PRODUCTS and torch.is_autocast_enabled("cpu"):
            args = [one.bfloat16() if isinstance(one, Tensor) else one for one in args]
        if function is F.scaled_dot_product_attention:
            return self._attend(*args)
        return function(*args, **(kwargs or {}))


def _attend_at_once(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Keeps queries, keys, values, the result, and a number a query."""
    found: Tensor = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)[0]
    return found


class _Flop(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts those of matrix products and convolutions."""

    found: int = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        if (count := flop_registry.get(function._overloadpacket)) is not None:
            self.found += count(*args, **(kwargs or {}), out_val=out)
        return out


def latent_flop(model: ModelConfig) -> int:
    """What a latent costs in an update: the forward pass, counted, and twice as much for the backward pass."""
    network = on_meta(model)
    with torch.device("meta"), torch.no_grad(), _Flop() as counter:  # type: ignore[no-untyped-call]
        x = torch.empty(1, model.channels, model.resolution, model.resolution)
        labels = torch.empty(1, dtype=torch.int64) if model.classes else None
        network(x, labels, [torch.empty(1, *shape) for shape in noise_shapes(model)])
    return 3 * int(counter.found)


def on_meta(model: ModelConfig, recompute_from: int | None = None) -> HierarchicalVAE:
    """The model without memory."""
    with torch.device("meta"):
        return HierarchicalVAE(model, recompute_from=recompute_from)
