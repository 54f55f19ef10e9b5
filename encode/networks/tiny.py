"""Tiny autoencoders in the layout of TAESD (Ollin Boer Bohan): no norm, no attention.

TAESD itself has f = 8 and one width throughout. Here the width may grow from level to level, and the first level may
see squares of pixels as channels, which saves the costly convolutions at full resolution.

Names are `encoder.layers.N...` and `decoder.layers.N...`, as in diffusers' AutoencoderTiny. TAESD's own files number
the encoder's layers alike and the decoder's from one more, since their layer 0 is the clamp (encode/weights/
read.py maps them).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lvae.encode.catalogue.architectures import TinySpec
from lvae.encode.networks.base import Autoencoder

LATENT_MAGNITUDE = 3.0  # the decoder squeezes its input softly into [-3, 3]


def conv3(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class Block(nn.Module):
    """relu(x + three convolutions of x): (B, C, H, W) -> the same."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Sequential(
            conv3(width, width), nn.ReLU(inplace=True), conv3(width, width), nn.ReLU(inplace=True), conv3(width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.conv(x)
        return F.relu(h.add_(x), inplace=True)


class Layers(nn.Module):
    """A sequence under the name `layers`."""

    def __init__(self, layers: list[nn.Module]):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.layers(x)
        return h


def encoder(spec: TinySpec) -> Layers:
    """(B, 3 patch^2, H, W) in [0, 1] -> (B, C, ceil(H/2^n), ceil(W/2^n)), n halvings: symmetric padding here."""
    first, *deeper = spec.widths
    layers: list[nn.Module] = [conv3(3 * spec.patch**2, first), Block(first)]
    for shallow, deep in zip(spec.widths, deeper, strict=False):
        layers.append(nn.Conv2d(shallow, deep, 3, stride=2, padding=1, bias=False))
        layers += [Block(deep) for _ in range(spec.blocks)]
    return Layers([*layers, conv3(spec.widths[-1], spec.latent_channels)])


def decoder(spec: TinySpec) -> Layers:
    """(B, C, h, w) within [-3, 3] -> (B, 3 patch^2, 2^n h, 2^n w), about [0, 1]."""
    *shallower, last = spec.widths
    layers: list[nn.Module] = [conv3(spec.latent_channels, last), nn.ReLU(inplace=True)]
    for deep, shallow in zip(reversed(spec.widths), reversed(shallower), strict=False):
        layers += [Block(deep) for _ in range(spec.blocks)]
        layers.append(nn.Upsample(scale_factor=2.0, mode="nearest"))
        layers.append(nn.Conv2d(deep, shallow, 3, padding=1, bias=False))
    return Layers([*layers, Block(spec.widths[0]), conv3(spec.widths[0], 3 * spec.patch**2)])


class TinyAutoencoder(Autoencoder):
    """TAESD and its like. Pictures are [-1, 1] outside, [0, 1] inside; latents are of the scaled kind (std about 1)."""

    def __init__(self, spec: TinySpec):
        super().__init__(spec)
        self.patch = spec.patch
        self.encoder = encoder(spec)
        self.decoder = decoder(spec)

    def encode(self, images: Tensor) -> Tensor:
        self.check_images(images)
        parts = [F.pixel_unshuffle((part + 1).mul_(0.5), self.patch) for part in self.one_by_one(images)]
        return torch.cat([self.encoder(part) for part in parts])

    def decode(self, latents: Tensor) -> Tensor:
        squeezed = torch.tanh(latents / LATENT_MAGNITUDE) * LATENT_MAGNITUDE
        pictures = [F.pixel_shuffle(self.decoder(part), self.patch) for part in self.one_by_one(squeezed)]
        return torch.cat(pictures).mul_(2).sub_(1)
