"""Adam (Kingma and Ba, 2015), with the decision to apply an update as a tensor, and the schedule of its rate."""

from functools import cache

import torch
from torch import Tensor

from lvae.train.config import TrainConfig

FUSED_ARGUMENTS = (
    *("self", "grads", "exp_avgs", "exp_avg_sqs", "max_exp_avg_sqs", "state_steps"),
    *("lr", "beta1", "beta2", "weight_decay", "eps", "amsgrad", "maximize", "grad_scale", "found_inf"),
)
CHUNK = 1 << 22  # numbers of a parameter worked on at a time: bounds what the plain arithmetic takes in memory


def learning_rate(config: TrainConfig, update: Tensor) -> Tensor:
    """The rate of an update, counted from 0: a scalar. Update 0 has rate 0, so that only the moments begin."""
    counted = update.clamp(max=config.decay_updates)
    rate = torch.full_like(counted, config.learning_rate)
    if config.learning_rate_schedule == "cosine":
        lowest = config.learning_rate_minimum
        falling = 0.5 * (1 + torch.cos(torch.pi * counted / config.decay_updates))
        rate = lowest + (config.learning_rate - lowest) * falling
    if config.warm_up_updates:
        rate = torch.minimum(rate, counted / config.warm_up_updates * config.learning_rate)
    return rate


@cache
def has_fused_adam() -> bool:
    """Whether this torch has the kernel of its Adam(fused=True) as it is called here.

    The kernel is not public. A test fails first where torch changes it; plain operations take its place then.
    """
    try:
        schema = torch.ops.aten._fused_adam_.tensor_lr._schema
    except AttributeError:
        return False
    return tuple(argument.name for argument in schema.arguments) == FUSED_ARGUMENTS


class Adam:
    """Moments of parameters (a list of tensors), and one step of them. Without weight decay.

    fused: one pass over memory, by PyTorch's kernel, for float32 moments on CPU and CUDA. Otherwise, or without that
    kernel, in plain operations in float32, which XLA compiles, and which round bfloat16 moments once.
    """

    def __init__(self, config: TrainConfig, first: list[Tensor], second: list[Tensor], fused: bool):
        self._config, self._fused = config, fused and config.moments == "float32" and has_fused_adam()
        self.first, self.second = first, second

    def step(
        self, parameters: list[Tensor], gradients: list[Tensor], rate: Tensor, applied: Tensor, update: Tensor
    ) -> None:
        """Move parameters and moments in place where `applied`, a bool scalar.

        update: how many were applied before this one, a scalar.
        """
        if self._fused:
            self._fused_step(parameters, gradients, rate, applied, update)
            return
        for tensors in zip(parameters, gradients, self.first, self.second, strict=True):
            flat = tensors[0].dim() == 1
            for pieces in zip(*(torch.split(tensor, CHUNK) if flat else (tensor,) for tensor in tensors), strict=True):
                self._plain_step(*pieces, rate, applied, update)  # type: ignore[call-arg]

    def _fused_step(
        self, parameters: list[Tensor], gradients: list[Tensor], rate: Tensor, applied: Tensor, update: Tensor
    ) -> None:
        config = self._config
        torch._fused_adam_(
            parameters,
            gradients,
            self.first,
            self.second,
            [],
            [update + 1 for _ in parameters],
            lr=rate,
            beta1=config.beta1,
            beta2=config.beta2,
            weight_decay=0.0,
            eps=config.epsilon,
            amsgrad=False,
            maximize=False,
            found_inf=1 - applied.float(),
        )

    def _plain_step(
        self,
        parameter: Tensor,
        gradient: Tensor,
        first: Tensor,
        second: Tensor,
        rate: Tensor,
        applied: Tensor,
        update: Tensor,
    ) -> None:
        config, gradient = self._config, gradient.float()
        new_first = config.beta1 * first.float() + (1 - config.beta1) * gradient
        new_second = config.beta2 * second.float() + (1 - config.beta2) * gradient * gradient
        mean = new_first / (1 - config.beta1 ** (update + 1))
        deviation = (new_second / (1 - config.beta2 ** (update + 1))).sqrt() + config.epsilon
        parameter.copy_(torch.where(applied, parameter - rate * mean / deviation, parameter))
        first.copy_(torch.where(applied, new_first.to(first.dtype), first))
        second.copy_(torch.where(applied, new_second.to(second.dtype), second))
