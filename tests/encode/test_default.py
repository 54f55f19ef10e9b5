"""The autoencoder in this package: it is there, small, deterministic, and does what its card says."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lvae.encode.autoencoder import build, load
from lvae.encode.catalogue.published import DEFAULT, OURS
from lvae.encode.quality.fidelity import psnr, to_images, to_pixels
from lvae.encode.quality.score import score
from lvae.encode.scenes.make import scene
from lvae.encode.sources.subset import choose
from lvae.encode.zoo.convert import Conversion
from lvae.manifests import records
from tests.conftest import lvae

torch.set_num_threads(1)

CLASSES = "airplanes,bonsai,car_side,daisy,dandelion,leopards,motorbikes,roses,sunflowers,tulips,watch"  # without dogs
ENOUGH_DB = 2.5  # above the best linear code of the same size


def drawn(count: int, size: int) -> list[np.ndarray]:  # type: ignore[type-arg]
    return [np.asarray(scene(3, number, size)) for number in range(count)]


def test_its_file_is_small_and_is_what_its_record_says() -> None:
    record = records.parse(Conversion, OURS.with_suffix(".json").read_bytes(), "default.json")
    assert OURS.stat().st_size == record.files[0].bytes <= 6_000_000
    assert load(DEFAULT).fingerprint == record.fingerprint
    assert build(record.architecture).name == DEFAULT


def test_it_is_in_what_is_installed() -> None:
    """setup.cfg names the files beside the code that a wheel takes along."""
    config = (Path(__file__).resolve().parents[2] / "setup.cfg").read_text()
    assert "pretrained/*" in config


def test_encoding_is_deterministic_and_does_not_depend_on_the_batch() -> None:
    network = load(DEFAULT)
    images = to_images(np.stack(drawn(5, 64)))
    together, again = network.encode(images), network.encode(images)
    assert torch.equal(together, again)
    alone = torch.cat([network.encode(image[None]) for image in images])
    assert (together - alone).abs().max() < 1e-5
    whole = network.train().encode(images)  # one pass over the batch, as on a GPU
    assert (whole - alone).abs().max() < 1e-5


def test_it_draws_scenes_that_it_never_saw(tmp_path: Path) -> None:
    """Another world than photographs."""
    for number, pixels in enumerate(drawn(16, 64)):
        Image.fromarray(pixels).save(tmp_path / f"{number:02d}.png")
    result, _ = score((DEFAULT, load(DEFAULT)), choose(str(tmp_path), None, None), 64)
    assert result.psnr_db is not None
    assert result.psnr_db > 24
    assert result.ssim > 0.75
    assert all(channel.active for channel in result.channels)
    assert all(abs(channel.excess_kurtosis) < 5 for channel in result.channels)


def test_larger_pictures_have_no_seams_and_parts_are_as_the_whole() -> None:
    """Away from the edges, a part of a picture is coded and decoded as within the whole."""
    network = load(DEFAULT)
    images = to_images(drawn(1, 256)[0][None])
    whole = network.decode(network.encode(images))
    part = network.decode(network.encode(images[:, :, 64:256, 64:256]))
    reach = 80  # of a pixel through both networks, in pixels
    inner = (slice(None), slice(None), slice(reach, 192 - reach), slice(reach, 192 - reach))
    assert (whole[:, :, 64:256, 64:256][inner] - part[inner]).abs().max() < 1e-4


def test_flat_pictures_come_back_flat() -> None:
    for level in (0, 128, 255):
        flat = np.full((1, 64, 64, 3), level, np.uint8)
        network = load(DEFAULT)
        decoded = to_pixels(network.decode(network.encode(to_images(flat))))
        assert np.abs(decoded.astype(int)[:, 8:-8, 8:-8] - level).max() <= 12


def test_small_changes_of_the_latent_change_little() -> None:
    """It was trained with noise on the latent: a twentieth of a channel's spread costs less than 3 dB."""
    network = load(DEFAULT)
    pixels = np.stack(drawn(6, 64))
    latents = network.encode(to_images(pixels))
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    spread = latents.std(dim=(0, 2, 3), keepdim=True)
    clean, disturbed = (to_pixels(network.decode(z)) for z in (latents, latents + 0.05 * spread * noise))
    loss = [psnr(a, b) - psnr(a, c) for a, b, c in zip(pixels, clean, disturbed, strict=True)]
    assert np.mean(loss) < 3


@pytest.mark.shared
@pytest.mark.parametrize(("size", "least_ssim"), [(128, 0.75), (256, 0.75)])
def test_photographs_that_it_never_saw(shared_data: Path, size: int, least_ssim: float) -> None:
    chosen = choose(str(shared_data / "photos"), tuple(CLASSES.split(",")), 400)
    result, _ = score((DEFAULT, load(DEFAULT)), chosen, size, share=0.1)
    assert result.images > 30
    assert result.psnr_db is not None
    assert result.linear_psnr_db is not None
    assert result.psnr_db > result.linear_psnr_db + ENOUGH_DB * (size == 128)
    assert result.ssim > least_ssim


def test_encode_takes_it_when_nothing_else_is_named(scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "latents"
    lvae("encode", scenes, out, "--size", "32")
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["autoencoder"]["name"] == DEFAULT
    assert manifest["autoencoder"]["weights_sha256"] == load(DEFAULT).fingerprint
    lvae("inspect", out, "--preview", tmp_path / "preview.png")
    with Image.open(tmp_path / "preview.png") as image:
        assert image.width > 200
    lvae("verify", "--deep", out)
