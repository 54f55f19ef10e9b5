"""The autoencoder whose latents are small images."""

import torch

from lvae.encode.autoencoder import build
from lvae.encode.networks.rgb import PixelsAutoencoder

UPSAMPLER = {"kind": "upsampler", "width": 4, "blocks": 1, "multipliers": [1, 2], "patch": 2}


def test_latents_are_the_reduced_images_whatever_the_batch() -> None:
    network, pixels = build(UPSAMPLER), build("pixels-f4")
    assert isinstance(pixels, PixelsAutoencoder)
    images = torch.rand(3, 3, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = network.encode(images)
    assert latents.shape == (3, 3, 4, 6)
    torch.testing.assert_close(latents, pixels.encode(images))
    assert torch.equal(network.encode(images[1:2])[0], latents[1])
    decoded = network.decode(latents)
    assert decoded.shape == images.shape
    assert torch.equal(network.decode(latents[1:2])[0], decoded[1])
