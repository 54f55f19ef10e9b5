"""Diagonal Gaussians: variance from an unconstrained value, rate, draw, standardized noise."""

from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

BETA = 0.693  # of the softplus that makes variances: not ln 2, but what published weights were trained with
LOWEST = -120.0  # below, a float32 variance would leave the normal numbers; trained values lie between -20 and 20


class Gaussian(NamedTuple):
    """Mean and variance, (B, z, h, w) each."""

    mean: Tensor
    variance: Tensor

    @classmethod
    def of(cls, parameters: Tensor) -> Self:
        """From a network's output (B, 2z, h, w): means, then unconstrained values. float32 under autocast, too."""
        mean, unconstrained = full_precision(parameters).chunk(2, dim=1)
        return cls(mean, variance_from(unconstrained))

    @classmethod
    def pair(cls, first: Tensor, second: Tensor) -> tuple[Self, Self]:
        """Two of equal shape, of which half precision is widened once."""
        if first.dtype.itemsize >= torch.float32.itemsize:
            return cls.of(first), cls.of(second)
        both = full_precision(torch.stack([first, second]))
        return cls.of(both[0]), cls.of(both[1])

    @classmethod
    def standard(cls, like: Tensor) -> Self:
        """N(0, I) of this tensor's shape."""
        return cls(torch.zeros_like(like), torch.ones_like(like))

    def halves(self) -> tuple["Gaussian", "Gaussian"]:
        """Of a batch that holds two."""
        (mean1, mean2), (variance1, variance2) = self.mean.chunk(2), self.variance.chunk(2)
        return Gaussian(mean1, variance1), Gaussian(mean2, variance2)

    def draw(self, noise: Tensor, temperature: float = 1.0) -> Tensor:
        """z = mean + temperature * std * noise."""
        return self.mean + temperature * self.variance.sqrt() * noise

    def standardize(self, z: Tensor) -> Tensor:
        """The noise that `draw` makes this z of."""
        return (z - self.mean) / self.variance.sqrt()


def full_precision(values: Tensor) -> Tensor:
    """float32 at least: what half precision must not decide."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def variance_from(unconstrained: Tensor) -> Tensor:
    """Softplus ln(1 + exp(0.693 u)) / 0.693, positive and finite for every u: its ln and 1/x are finite, too."""
    return F.softplus(unconstrained.clamp(min=LOWEST), beta=BETA)


def divergence(posterior: Gaussian, prior: Gaussian) -> Tensor:
    """KL(posterior || prior) at every position of every channel, in nats: (B, z, h, w)."""
    (mean, variance), (prior_mean, prior_variance) = posterior, prior
    quadratic = 0.5 * (variance + (mean - prior_mean) ** 2) / prior_variance
    return quadratic + 0.5 * (prior_variance.log() - variance.log() - 1)


def rate(posterior: Gaussian, prior: Gaussian) -> Tensor:
    """KL(posterior || prior) of one group, in nats: (B, z, h, w) -> (B,)."""
    return divergence(posterior, prior).sum((1, 2, 3))
