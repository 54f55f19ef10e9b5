"""What stands for a model's output: its mean, as in the paper, or its mean and a share of its deviation as noise."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lvae.manifests.seeds import derive
from lvae.train.model import Decoded


def draw_output(decoded: Decoded, share: float, seed: int, indices: Sequence[int]) -> Tensor:
    """mean + share * deviation * noise, (B, d, h, w). Noise is a function of (seed, index); a share of 0 draws none."""
    if share == 0:
        return decoded.mean
    generators = (torch.Generator().manual_seed(derive(seed, "output", index)) for index in indices)
    noise = torch.stack([torch.randn(decoded.mean.shape[1:], generator=generator) for generator in generators])
    deviation = (decoded.log_variance.float() / 2).exp()
    return decoded.mean + share * deviation * noise.to(deviation.device)
