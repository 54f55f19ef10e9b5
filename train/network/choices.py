"""How the z of every group is come by when generating: given or drawn, at which temperature, under which guidance."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lvae.manifests.errors import LvaeError
from lvae.train.config import ModelConfig
from lvae.train.network.gaussians import Gaussian

Weights = float | Sequence[float]  # one number, or one per resolution, lowest first
Choice = Callable[[Gaussian], Tensor]


def choice(z: Tensor | None, keep: Tensor | None, noise: Tensor | None, temperature: float) -> Choice:
    """From a group's prior to its z: the one given (where `keep` says so, if it says), otherwise a draw."""

    def choose(prior: Gaussian) -> Tensor:
        if z is not None and keep is None:
            return z
        assert noise is not None
        drawn = prior.draw(noise, temperature)
        return drawn if z is None or keep is None else torch.where(keep, z, drawn)

    return choose


@dataclass(frozen=True)
class Guidance:
    """How what is drawn is guided: weights, 0 is off; temperature multiplies its std. Each one number, or one per
    resolution, lowest first."""

    mean: Weights = 0.0
    variance: Weights = 0.0
    temperature: Weights = 1.0


UNGUIDED = Guidance()


def weights_per_group(config: ModelConfig, guidance: Guidance) -> list[tuple[float, float] | None]:
    """Weights of mean and variance for every group, lowest resolution first.

    None where no later group is guided either, or where priors know no label: there, one path is enough.
    """
    means = per_group(config, "guidance_mean", guidance.mean)
    variances = per_group(config, "guidance_variance", guidance.variance)
    pairs = list(zip(means, variances, strict=True))
    knows = config.classes > 0 and config.hierarchical_prior
    needed = max((index + 1 for index, pair in enumerate(pairs) if knows and any(pair)), default=0)
    return [pair if index < needed else None for index, pair in enumerate(pairs)]


def per_group(config: ModelConfig, name: str, value: Weights) -> list[float]:
    """A number for every group, lowest resolution first, from one for all or one per resolution, lowest first."""
    levels = len(config.groups)
    try:
        values = [float(v) for v in value] if isinstance(value, Sequence) else [float(value)] * levels
    except (TypeError, ValueError):
        raise LvaeError("", f"{name} must be a number, or one per resolution, not {value!r:.60}") from None
    if len(values) != levels:
        raise LvaeError(
            name, f"{len(values)} numbers for {levels} resolutions", "Give one, or one each from the lowest on."
        )
    return [v for v, groups in zip(values, reversed(config.groups), strict=True) for _ in range(groups)]
