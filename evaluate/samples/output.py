"""What stands for a model's output: its mean, as in the paper, or its mean and a share of its deviation as noise."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lvae.evaluate.samples.correlated_noise import CorrelatedNoise
from lvae.manifests.seeds import derive
from lvae.train.model import Decoded

WIDEST = 1e3  # latents have a deviation of about 1


def draw_output(
    decoded: Decoded, share: float, seed: int, indices: Sequence[int], correlated: CorrelatedNoise | None = None
) -> Tensor:
    """mean + share * deviation * noise, (B, d, h, w). Noise is a function of (seed, index); a share of 0 draws none.

    A deviation counts for WIDEST at most, so that one sample of thousands that ran away does not void the others.
    correlated: draws noise that hangs together as what the model leaves out; None: its numbers are independent.
    """
    if share == 0:
        return decoded.mean
    shape = decoded.mean.shape[1:]
    generators = (torch.Generator().manual_seed(derive(seed, "output", index)) for index in indices)
    if correlated is None:
        noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
    else:
        noise = torch.stack([correlated.draw(shape, generator) for generator in generators])
    deviation = (decoded.log_variance.float() / 2).exp().clamp(max=WIDEST)
    return decoded.mean + share * deviation * noise.to(deviation.device)
