"""The objective: reconstruction with sigma_q, the rate's schedule, the spectral penalty. Nats per image throughout."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lvae.manifests.errors import LvaeError
from lvae.train.model import Output
from lvae.train.network.gaussians import full_precision

LOWER_PERCENT = 66.7  # of an image's rate: what the schedule's shares sum to


class Losses(NamedTuple):
    """Scalars, nats per image; total is what is minimized, the sum of the others. rate and spectral are weighted."""

    total: Tensor
    reconstruction: Tensor
    rate: Tensor
    spectral: Tensor


def reconstruction(x: Tensor, mean: Tensor, log_variance: Tensor, sigma_q: float) -> Tensor:
    """KL(N(x, sigma_q^2) || N(mean, exp(log_variance))) of every image: (B, d, R, R) each -> (B,). Never below 0."""
    x, mean, log_variance = full_precision(x), full_precision(mean), full_precision(log_variance)
    quadratic = 0.5 * (sigma_q**2 + (x - mean) ** 2) * (-log_variance).exp()
    return (quadratic + 0.5 * (log_variance - 2 * math.log(sigma_q) - 1)).flatten(1).sum(1)


def rate_schedule(
    kind: str,
    arguments: Mapping[str, float] | Sequence[float],
    groups: Sequence[int],
    lower: float = LOWER_PERCENT,
) -> Tensor:
    """Percent of an image's rate below which a group's rate is cheap: float32 (L,), lowest resolution first.

    kind "shifted_exp": exp(linspace(0, ln scale, L)) + shift, growing with depth; arguments {"scale", "shift"}.
    kind "constant_per": one number per resolution, from the highest to the lowest, as `groups`.
    Normalized to sum to `lower`.
    """
    count = sum(groups)
    if kind == "shifted_exp" and isinstance(arguments, Mapping):
        if sorted(arguments) != ["scale", "shift"]:
            raise LvaeError("", f"rate schedule shifted_exp needs scale and shift, not {list(arguments)!r:.60}")
        exponents = torch.linspace(0, math.log(arguments["scale"]), count, dtype=torch.float64)
        shares = exponents.exp() + arguments["shift"]
    elif kind == "constant_per" and isinstance(arguments, Sequence):
        if len(arguments) != len(groups):
            raise LvaeError(
                "", (f"rate schedule constant_per has {len(arguments)} numbers for {len(groups)} resolutions")
            )
        pairs = zip(reversed(arguments), reversed(groups), strict=True)
        shares = torch.tensor([share for share, n in pairs for _ in range(n)], dtype=torch.float64)
    else:
        raise LvaeError(f"rate schedule {kind!r:.60}", "choose shifted_exp (scale, shift) or constant_per (a list)")
    if not bool((shares > 0).all()):
        raise LvaeError("rate schedule", "every group needs a share above 0")
    return (shares * (lower / shares.sum())).float()


def kl_weights(rates: Tensor, schedule: Tensor, upper: float = 2.0, floor: float = 0.1) -> Tensor:
    """How much each group's rate costs for each image: rates (L, B), schedule (L,) percent -> (L, B), no gradient.

    With a = schedule / 100 of the image's whole rate: k / a below a, 1 up to upper * a, then rising by 1 over another
    a, then 2; never under `floor`. An image without any rate gets `floor` everywhere.
    """
    k = full_precision(rates.detach())
    a = schedule[:, None] / 100 * k.sum(0)
    q = k / a.clamp(min=torch.finfo(k.dtype).tiny)
    return (q.clamp(max=1) + (q - upper).clamp(0, 1)).clamp(min=floor)


def loss(
    out: Output,
    x: Tensor,
    schedule: Tensor,
    sigma_q: float,
    spectral_weight: float,
    upper: float = 2.0,
    floor: float = 0.1,
) -> Losses:
    """The objective of a batch: latents x (B, d, R, R), `schedule` from `rate_schedule`."""
    distortion = reconstruction(x, out.mean, out.log_variance, sigma_q).mean()
    rate = (kl_weights(out.rates, schedule, upper, floor) * out.rates).sum(0).mean()
    spectral = spectral_weight * out.spectral
    return Losses(distortion + rate + spectral, distortion, rate, spectral)
