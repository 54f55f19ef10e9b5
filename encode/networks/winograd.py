"""3 x 3 convolutions by Winograd's minimal filtering, F(4x4, 3x3): a quarter of the multiplications.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016): tiles of 6 x 6, which overlap by two, are
transformed, multiplied with transformed kernels and transformed back to 4 x 4. The transforms are products with the
Kronecker squares of the one-dimensional matrices: all the work is done by torch's matrix products. Strips of tiles are
small enough for a core's cache.

The points are 0, +-2/3, +-3/2 and infinity instead of the usual 0, +-1, +-2: nothing is gained here by transforms
without multiplications, and rounding is amplified half as much. A layer's error is about 6 times that of the direct
convolution in float32 (both measured against float64: tests/benchmarks/encoder_speed.md).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TILE, STEP = 6, 4  # pixels a side of a tile, of what comes out of it
TILES_AT_ONCE = 128  # tiles x channels x 36 numbers lie in the cache
FEWEST_CHANNELS = 96  # on either side: below, the transforms cost more than they save
POINTS = (0.0, 2 / 3, -2 / 3, 3 / 2, -3 / 2)


def transforms() -> tuple[Tensor, Tensor, Tensor]:
    """float64 matrices of F(4, 3) for inputs (6, 6), kernels (6, 3) and outputs (4, 6): Toom and Cook's, by POINTS.

    outputs @ ((kernels @ g) * (inputs @ d)) are the four products of g with windows of d.
    """
    points = torch.tensor(POINTS, dtype=torch.float64)
    inputs = torch.zeros(TILE, TILE, dtype=torch.float64)
    weights = torch.ones(TILE, dtype=torch.float64)
    for i, point in enumerate(points):
        others = torch.cat([points[:i], points[i + 1 :]])
        inputs[i, :5] = _coefficients(others)
        weights[i] = (point - others).prod()
    inputs[5] = _coefficients(points)
    infinity = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
    kernels = torch.cat([points[:, None] ** torch.arange(3) / weights[:5, None], infinity])
    outputs = torch.cat([(points[:, None] ** torch.arange(4)).T, torch.eye(4, dtype=torch.float64)[:, 3:]], dim=1)
    return inputs, kernels, outputs


def _coefficients(roots: Tensor) -> Tensor:
    """Of the polynomial with these roots and leading coefficient 1, the constant first."""
    found = torch.ones(1, dtype=torch.float64)
    for root in roots:
        found = F.pad(found, (1, 0)) - root * F.pad(found, (0, 1))
    return found


class WinogradConvolution(nn.Module):
    """Takes the place of a 3 x 3 convolution, stride 1, padding 1: (1, C, H, W) -> (1, K, H, W), channels last."""

    transform: Tensor
    inverse: Tensor
    kernels: Tensor
    bias: Tensor

    def __init__(self, convolution: nn.Conv2d):
        super().__init__()
        inputs, kernels, outputs = transforms()
        weight = convolution.weight.detach().double()
        transformed = torch.einsum("ai,bj,kcij->abck", kernels, kernels, weight).flatten(0, 1)
        self.register_buffer("transform", torch.kron(inputs, inputs).float())  # (36, 36)
        self.register_buffer("inverse", torch.kron(outputs, outputs).float())  # (16, 36)
        self.register_buffer("kernels", transformed.float().contiguous())  # (36, C, K)
        bias = convolution.bias
        self.register_buffer("bias", torch.zeros(weight.shape[0]) if bias is None else bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        _, channels, height, width = x.shape
        rows, columns = -(-height // STEP), -(-width // STEP)  # of tiles
        padded = _with_margin(x[0].permute(1, 2, 0), STEP * rows + 2, STEP * columns + 2)
        result = x.new_empty(rows, STEP, columns, STEP, len(self.bias))
        strip = max(1, TILES_AT_ONCE // columns)
        for first in range(0, rows, strip):
            count = min(strip, rows - first)
            down, right = padded.stride()[:2]
            tiles = padded.as_strided(
                (TILE, TILE, count, columns, channels),
                (down, right, STEP * down, STEP * right, 1),
                STEP * first * down,
            )
            spectra = self.transform @ tiles.reshape(TILE * TILE, -1)  # (36, tiles C)
            products = torch.bmm(spectra.view(TILE * TILE, -1, channels), self.kernels)  # (36, tiles, K)
            outputs = (self.inverse @ products.flatten(1)).view(STEP, STEP, count, columns, -1)
            torch.add(outputs.permute(2, 0, 3, 1, 4), self.bias, out=result[first : first + count])
        whole = result.view(1, STEP * rows, STEP * columns, -1)
        return whole[:, :height, :width].permute(0, 3, 1, 2)


def _with_margin(x: Tensor, height: int, width: int) -> Tensor:
    """(H, W, C) -> (height, width, C): zeros around, one row and column before it. Nothing is written twice."""
    padded = x.new_empty(height, width, x.shape[2])
    bottom, right = x.shape[0] + 1, x.shape[1] + 1
    padded[1:bottom, 1:right] = x
    for zeros in (padded[:1], padded[bottom:], padded[:, :1], padded[:, right:]):
        zeros.zero_()
    return padded


def use_winograd(network: nn.Module) -> None:
    """Replace the convolutions of a network where that pays. It can only be run afterwards, an image at a time.

    The kernels take four times the memory.
    """
    for parent in list(network.modules()):
        for name, module in list(parent.named_children()):
            if isinstance(module, nn.Conv2d) and _pays(module):
                setattr(parent, name, WinogradConvolution(module))


def _pays(convolution: nn.Conv2d) -> bool:
    shape = convolution.kernel_size, convolution.stride, convolution.padding, convolution.dilation, convolution.groups
    wide = min(convolution.in_channels, convolution.out_channels) >= FEWEST_CHANNELS
    return wide and shape == ((3, 3), (1, 1), (1, 1), (1, 1), 1)
