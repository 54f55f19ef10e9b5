"""No autoencoder: RGB itself, full size or reduced (bilinear, antialiased). Stored as uint8 u, meaning u/127.5 - 1."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lvae.encode.catalogue.architectures import PixelsSpec
from lvae.encode.networks.base import Autoencoder


def reduce(pixels: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """uint8 (N, H, W, 3) -> uint8 (N, 3, floor(H/factor), floor(W/factor)), rounded to the nearest level, halves up.

    Factor 1 only reorders. Otherwise each image is reduced by itself in float32, which gives equal bytes on equal
    hardware, whatever the batch.
    """
    planes = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    if factor == 1:
        return planes
    height, width = planes.shape[2] // factor, planes.shape[3] // factor
    reduced = np.empty((len(planes), 3, height, width), np.uint8)
    for image, result in zip(planes, reduced, strict=True):
        values = resize(torch.from_numpy(image)[None].to(torch.float32), height, width)
        result[:] = values[0].add_(0.5).clamp_(0, 255).to(torch.uint8).numpy()  # the cast truncates
    return reduced


def resize(images: Tensor, height: int, width: int) -> Tensor:
    """(N, 3, H, W) reduced to (N, 3, height, width): bilinear, antialiased."""
    return F.interpolate(images, (height, width), mode="bilinear", antialias=True, align_corners=False)


class PixelsAutoencoder(Autoencoder):
    """Has no weights and no moments; nothing is rounded here, storing is `reduce`'s."""

    def __init__(self, spec: PixelsSpec):
        super().__init__(spec)

    def encode(self, images: Tensor) -> Tensor:
        self.check_images(images)
        factor = self.downsampling_factor
        return images.clone() if factor == 1 else resize(images, images.shape[2] // factor, images.shape[3] // factor)

    def decode(self, latents: Tensor) -> Tensor:
        factor = self.downsampling_factor
        if factor == 1:
            return latents.clone()
        return F.interpolate(latents, scale_factor=float(factor), mode="bilinear", align_corners=False)

    def reduce(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """What is stored of these images: uint8 (N, H, W, 3) -> uint8 (N, 3, h, w)."""
        return reduce(pixels, self.downsampling_factor)
