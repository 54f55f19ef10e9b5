"""RGB as its own latent."""

import numpy as np
import pytest
import torch
from PIL import Image

from lvae.encode.autoencoder import build, load, multiply_adds
from lvae.encode.networks.rgb import PixelsAutoencoder, reduce
from lvae.manifests.errors import LvaeError

torch.set_num_threads(1)


def pictures(height: int = 48, width: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, height, width, 3), np.uint8)


def test_full_size_only_reorders() -> None:
    pixels = pictures()
    stored = reduce(pixels, 1)
    assert stored.dtype == np.uint8
    assert stored.flags.c_contiguous
    assert np.array_equal(stored, pixels.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_reduced_pixels_equal_those_of_pillow(factor: int) -> None:
    """Pillow's bilinear filter is antialiased too; it computes in fixed point, hence one level of tolerance."""
    pixels = pictures()
    stored = reduce(pixels, factor)
    assert stored.shape == (3, 3, 48 // factor, 64 // factor)
    for image, result in zip(pixels, stored, strict=True):
        size = (64 // factor, 48 // factor)
        expected = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        assert np.abs(result.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("level", [0, 1, 2, 3, 253, 254])
def test_halves_are_rounded_up(level: int) -> None:
    column = np.array([[level, level + 1]], np.uint8)
    pixels = np.broadcast_to(column[None, ..., None], (1, 2, 2, 3))
    assert reduce(np.ascontiguousarray(pixels), 2).ravel().tolist() == [level + 1] * 3


@pytest.mark.parametrize("name", ["pixels", "pixels-f2", "pixels-f4", "pixels-f8"])
def test_stored_levels_mean_what_encode_gives(name: str) -> None:
    """uint8 u means u/127.5 - 1; storing rounds by half a level at most."""
    network = load(name)
    assert isinstance(network, PixelsAutoencoder)
    pixels = pictures()
    latents = network.encode(torch.from_numpy(pixels.transpose(0, 3, 1, 2).astype(np.float32)) / 127.5 - 1)
    stored = network.reduce(pixels)
    assert latents.shape == stored.shape
    assert np.abs(latents.numpy() - (stored.astype(np.float32) / 127.5 - 1)).max() <= 0.5 / 127.5 + 1e-6  # float32


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_decoding_restores_size_and_flat_colours(factor: int) -> None:
    network = build({"kind": "pixels", "factor": factor})
    images = torch.tensor([0.25, -1.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 16, 24).contiguous()
    decoded = network.decode(network.encode(images))
    assert (network.downsampling_factor, network.latent_channels) == (factor, 3)
    assert torch.allclose(decoded, images, atol=1e-6)  # weights of the filter sum to one within float32
    assert decoded.data_ptr() != images.data_ptr()


def test_a_picture_does_not_depend_on_its_batch() -> None:
    pixels = pictures()
    assert np.array_equal(reduce(pixels[1:2], 4), reduce(pixels, 4)[1:2])


def test_remainders_of_the_size_are_dropped() -> None:
    assert reduce(pictures(19, 13), 4).shape == (3, 3, 4, 3)


def test_pixels_have_no_weights_and_no_moments() -> None:
    network = load("pixels-f4")
    assert network.state_for_storage() == {}
    assert multiply_adds(network, 64) == 0
    with pytest.raises(LvaeError, match="only a KL autoencoder has moments"):
        network.moments(torch.zeros(1, 3, 8, 8))
    with pytest.raises(LvaeError, match="pixels-f4: pixels have no weights"):
        load("pixels-f4", "random:0")
