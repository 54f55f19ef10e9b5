"""An autoencoder whose latents are the image itself, made small: the decoder alone is learned.

A model of such latents behind it is an upsampling stack whose second stage is an autoencoder's decoder: it draws small
RGB images, and the decoder enlarges them. Names are `upsampler.layers.N...`, numbered as the decoder of a tiny one.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lvae.encode.catalogue.architectures import UpsamplerSpec
from lvae.encode.networks.base import Autoencoder
from lvae.encode.networks.rgb import resize
from lvae.encode.networks.tiny import decoder


class UpsamplerAutoencoder(Autoencoder):
    """Reduces RGB (bilinear, antialiased) and enlarges it: bilinear, plus what the network knows of details."""

    def __init__(self, spec: UpsamplerSpec):
        super().__init__(spec)
        self.patch = spec.patch
        self.upsampler = decoder(spec.decoder)

    def encode(self, images: Tensor) -> Tensor:
        self.check_images(images)
        height, width = (side // self.downsampling_factor for side in images.shape[2:])
        return torch.cat([resize(part, height, width) for part in self.one_by_one(images)])

    def decode(self, latents: Tensor) -> Tensor:
        return torch.cat([self._enlarge(part) for part in self.one_by_one(latents)])

    def _enlarge(self, latents: Tensor) -> Tensor:
        scale = float(self.downsampling_factor)
        smooth = F.interpolate(latents, scale_factor=scale, mode="bilinear", align_corners=False)
        return smooth + F.pixel_shuffle(self.upsampler(latents), self.patch)
