"""The randomness of a pass, drawn outside of the model: a function of one seed an image, the same in any batch."""

from collections.abc import Iterable

import torch
from torch import Tensor

from lvae.manifests.seeds import derive
from lvae.train.config import ModelConfig


def noise_shapes(config: ModelConfig, size: tuple[int, int] | None = None) -> list[tuple[int, int, int]]:
    """(z, h, w) of every group, lowest resolution first, for latents of `size` (the model's own)."""
    pairs = zip(reversed(config.sizes(size)), reversed(config.groups), strict=True)
    return [(config.z_channels, *extent) for extent, count in pairs for _ in range(count)]


def draw_noise(config: ModelConfig, seeds: Iterable[int], size: tuple[int, int] | None = None) -> list[Tensor]:
    """Standard normal noise for one pass: a list, lowest resolution first, (B, z, h, w) each, float32 on the CPU.

    seeds: one an image, up to 64 bits, from `manifests.seeds.derive`. An image's groups follow one another in its own
    stream, so its noise does not depend on the batch.
    """
    shapes = noise_shapes(config, size)
    counts = [z * height * width for z, height, width in shapes]
    flat = torch.stack([torch.randn(sum(counts), generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    return [part.reshape(len(flat), *shape) for part, shape in zip(torch.split(flat, counts, 1), shapes, strict=True)]


def draw_drop(seeds: Iterable[int], probability: float) -> Tensor:
    """Whose label is dropped: one seed an image -> bool (B,), on the CPU."""
    return torch.tensor([derive(seed, "label drop", 0) < probability * 2**64 for seed in seeds], dtype=torch.bool)
