"""Tiny autoencoders in the layout of TAESD (Ollin Boer Bohan): no norm, no attention, f = 8.

Names are `encoder.layers.N...` and `decoder.layers.N...`, as in diffusers' AutoencoderTiny. TAESD's own files number
the encoder's layers alike and the decoder's from one more, since their layer 0 is the clamp (weights.py maps them).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lvae.encode.autoencoder import Autoencoder, TinySpec

LEVELS = 3  # halvings: f = 8
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
    """(B, 3, H, W) in [0, 1] -> (B, C, ceil(H/8), ceil(W/8)): the padding is symmetric here."""
    layers: list[nn.Module] = [conv3(3, spec.width), Block(spec.width)]
    for _ in range(LEVELS):
        layers.append(nn.Conv2d(spec.width, spec.width, 3, stride=2, padding=1, bias=False))
        layers += [Block(spec.width) for _ in range(spec.blocks)]
    return Layers([*layers, conv3(spec.width, spec.latent_channels)])


def decoder(spec: TinySpec) -> Layers:
    """(B, C, h, w) within [-3, 3] -> (B, 3, 8h, 8w), about [0, 1]."""
    layers: list[nn.Module] = [conv3(spec.latent_channels, spec.width), nn.ReLU(inplace=True)]
    for _ in range(LEVELS):
        layers += [Block(spec.width) for _ in range(spec.blocks)]
        layers.append(nn.Upsample(scale_factor=2.0, mode="nearest"))
        layers.append(nn.Conv2d(spec.width, spec.width, 3, padding=1, bias=False))
    return Layers([*layers, Block(spec.width), conv3(spec.width, 3)])


class TinyAutoencoder(Autoencoder):
    """TAESD and its like. Pictures are [-1, 1] outside, [0, 1] inside; latents are of the scaled kind (std about 1)."""

    def __init__(self, spec: TinySpec):
        super().__init__(spec, 2**LEVELS, spec.latent_channels)
        self.encoder = encoder(spec)
        self.decoder = decoder(spec)

    def encode(self, images: Tensor) -> Tensor:
        self.check_images(images)
        return torch.cat([self.encoder((part + 1).mul_(0.5)) for part in self.one_by_one(images)])

    def decode(self, latents: Tensor) -> Tensor:
        squeezed = torch.tanh(latents / LATENT_MAGNITUDE) * LATENT_MAGNITUDE
        return torch.cat([self.decoder(part) for part in self.one_by_one(squeezed)]).mul_(2).sub_(1)
