"""LPIPS (Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", 2018) on VGG-16.

Its weights are published files that nobody ships here: torchvision's VGG-16 (`features.N.weight`) and LPIPS' own five
(`linN.model.1.weight`). Both are read without executing anything in them.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lvae.encode.weights.read import read_tensors
from lvae.manifests.errors import LvaeError

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # for pictures in [-1, 1]
WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))  # of VGG's convolutions, by stage
EPSILON = 1e-10


class Lpips(nn.Module):
    """Two pictures -> how different they look. Frozen."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        inputs, stages = 3, []
        for widths in WIDTHS:
            pairs = pairwise((inputs, *widths))
            stages.append(nn.ModuleList(nn.Conv2d(before, width, 3, padding=1) for before, width in pairs))
            inputs = widths[-1]
        self.stages = nn.ModuleList(stages)
        self.heads = nn.ModuleList(nn.Conv2d(widths[-1], 1, 1, bias=False) for widths in WIDTHS)
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1))
        self.eval().requires_grad_(False)

    @classmethod
    def read(cls, files: str) -> Self:
        """From "VGG,LPIPS", two files of weights in any format."""
        parts = files.split(",")
        if len(parts) != 2:
            raise LvaeError(f"--perceptual {files}", "name two files as VGG,LPIPS (torchvision's VGG-16, LPIPS' heads)")
        network, (vgg, heads) = cls(), (read_tensors(part) for part in parts)
        with torch.no_grad():
            for convolution, number in zip(network.convolutions(), _vgg_numbers(), strict=True):
                convolution.weight.copy_(_take(vgg, f"features.{number}.weight", convolution.weight, parts[0]))
                assert convolution.bias is not None
                convolution.bias.copy_(_take(vgg, f"features.{number}.bias", convolution.bias, parts[0]))
            for number, head in enumerate(network.heads):
                assert isinstance(head, nn.Conv2d)
                head.weight.copy_(_take(heads, f"lin{number}.model.1.weight", head.weight, parts[1]))
        return network

    def convolutions(self) -> list[nn.Conv2d]:
        return [module for stage in self.stages for module in stage.modules() if isinstance(module, nn.Conv2d)]

    def features(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [-1, 1] -> what the last convolution of each stage finds, of length 1 at every place."""
        found, x = [], (images - self.shift) / self.scale
        for number, stage in enumerate(self.stages):
            if number:
                x = F.max_pool2d(x, 2)
            assert isinstance(stage, nn.ModuleList)
            for convolution in stage:
                x = F.relu(convolution(x))
            found.append(x / (x.square().sum(1, keepdim=True).sqrt() + EPSILON))
        return found

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        """(B, 3, H, W) twice, in [-1, 1], sides of at least 16 -> (B,)."""
        pairs = zip(self.features(images), self.features(others), self.heads, strict=True)
        return torch.stack([head((one - other).square()).mean((1, 2, 3)) for one, other, head in pairs]).sum(0)


def _vgg_numbers() -> list[int]:
    """Where torchvision counts VGG's convolutions among its layers: a relu after each, a pooling after each stage."""
    numbers, number = [], 0
    for widths in WIDTHS:
        for _ in widths:
            numbers.append(number)
            number += 2
        number += 1
    return numbers


def _take(tensors: Mapping[str, Tensor], name: str, like: Tensor, file: str) -> Tensor:
    if name not in tensors:
        raise LvaeError(file, f"has no {name}", "Name two files as VGG,LPIPS (torchvision's VGG-16, LPIPS' heads).")
    found = tensors[name]
    if found.shape != like.shape:
        raise LvaeError(file, f"{name} has shape {tuple(found.shape)} instead of {tuple(like.shape)}")
    return found
