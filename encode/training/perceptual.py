"""How different two pictures look: by LPIPS, or by EfficientNet-Lite0 of ImageNet, whichever `--perceptual` names."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import torch
from torch import Tensor, nn

from lvae.encode.quality.efficientnet import NAME, load_network, weights_path
from lvae.encode.training.lpips import Lpips

EPSILON = 1e-10
STAGES = (0, 1, 3, 5, 11, 16)  # borders of the blocks: five stages, at 1/2, 1/4, 1/8, 1/16 and 1/32 of the side


class NetworkDistance(nn.Module):
    """Distance of the features of five stages of EfficientNet-Lite0: (B, 3, H, W) twice, in [-1, 1] -> (B,). Frozen.

    As LPIPS without its learned weights (Zhang et al., 2018): what the last block of a stage gives is divided by its
    length at every place. Half the squared difference, one minus the cosine, is averaged over places and stages.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.eval().requires_grad_(False)

    def features(self, images: Tensor) -> list[Tensor]:
        """Of every stage, of length 1 at every place."""
        network = self.network
        x = network._swish(network._bn0(network._conv_stem((images * 127.5 + 0.5) / 128)))  # (level - 127) / 128
        found = []
        for first, end in pairwise(STAGES):
            for block in network._blocks[first:end]:
                x = block(x)
            found.append(x / (x.square().sum(1, keepdim=True) + EPSILON).sqrt())
        return found

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        pairs = zip(self.features(images), self.features(others), strict=True)
        return torch.stack([(one - other).square().sum(1).mean((1, 2)) / 2 for one, other in pairs]).mean(0)


@dataclass(frozen=True)
class Perceptual:
    """A distance (B, 3, H, W) twice, in [-1, 1] -> (B,), and what it is called in the log."""

    name: str
    distance: nn.Module

    @classmethod
    def read(cls, given: str, size: int) -> Self:
        """What `--perceptual` names. size: side of the crops."""
        if given == NAME:
            return cls("network_distance", NetworkDistance(load_network(weights_path(), size)))
        return cls("lpips", Lpips.read(given))
