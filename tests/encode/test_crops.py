"""Crops against procedures written down a second time, from the published descriptions, in numpy."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from lvae.encode.crops import CROPS, crop, steps
from lvae.encode.images import ImageRejected, open_image
from lvae.manifests.errors import LvaeError

SHARED = Path(os.environ.get("LVAE_SHARED_DATA", Path(__file__).parents[2] / "../shared/data"))
GEOMETRIC = [kind for kind in CROPS if kind != "none"]


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def adm(image: Image.Image, size: int) -> NDArray[np.uint8]:
    while min(*image.size) >= 2 * size:
        image = image.resize(tuple(x // 2 for x in image.size), resample=Image.Resampling.BOX)
    scale = size / min(*image.size)
    image = image.resize(tuple(round(x * scale) for x in image.size), resample=Image.Resampling.BICUBIC)
    pixels = np.array(image)
    top, left = (pixels.shape[0] - size) // 2, (pixels.shape[1] - size) // 2
    return pixels[top : top + size, left : left + size]


def centre_square_then(image: Image.Image, size: int, resample: Image.Resampling) -> NDArray[np.uint8]:
    pixels = np.array(image).astype(np.uint8)
    side = min(pixels.shape[0], pixels.shape[1])
    height, width = pixels.shape[:2]
    pixels = pixels[(height - side) // 2 : (height + side) // 2, (width - side) // 2 : (width + side) // 2]
    return np.array(Image.fromarray(pixels).resize((size, size), resample=resample))


def adm_lsun(image: Image.Image, size: int) -> NDArray[np.uint8]:
    width, height = image.size
    scale = size / min(height, width)
    pixels = np.array(image.resize((round(scale * width), round(scale * height)), resample=Image.Resampling.BOX))
    height, width, _ = pixels.shape
    top, left = (height - size) // 2, (width - size) // 2
    return pixels[top : top + size, left : left + size]


def published(image: Image.Image, size: int, kind: str) -> NDArray[np.uint8]:
    match kind:
        case "adm":
            return adm(image, size)
        case "lsun":
            return centre_square_then(image, size, Image.Resampling.BICUBIC)
        case "adm-lsun":
            return adm_lsun(image, size)
        case "center":
            return centre_square_then(image, size, Image.Resampling.LANCZOS)
    raise AssertionError(kind)


@pytest.mark.parametrize("kind", GEOMETRIC)
@settings(max_examples=60, deadline=None)
@given(width=st.integers(1, 200), height=st.integers(1, 200), size=st.integers(1, 65))
def test_crops_equal_the_published_procedures(kind: str, width: int, height: int, size: int) -> None:
    image = picture(width, height)
    cropped = crop(image, size, kind)
    assert (cropped.size, cropped.mode) == ((size, size), "RGB")
    np.testing.assert_array_equal(np.asarray(cropped), published(image, size, kind))


@pytest.mark.parametrize("kind", GEOMETRIC)
@pytest.mark.parametrize("shape", [(2400, 16), (9, 1200), (1, 1), (7, 5), (256, 256), (511, 512), (1024, 513)])
def test_odd_shapes_come_out_square(kind: str, shape: tuple[int, int]) -> None:
    image = picture(*shape)
    np.testing.assert_array_equal(np.asarray(crop(image, 256, kind)), published(image, 256, kind))


@pytest.mark.parametrize("kind", ["adm", "adm-lsun"])
def test_too_narrow_an_image_is_refused_before_it_is_enlarged(kind: str) -> None:
    with pytest.raises(ImageRejected) as caught:
        crop(picture(1, 5000), 256, kind)
    assert caught.value.reason == "1x5000: too long and narrow to be cropped to 256x256"


def test_none_takes_only_the_right_size() -> None:
    image = picture(64, 64)
    assert crop(image, 64, "none") is image
    with pytest.raises(ImageRejected) as caught:
        crop(picture(64, 63), 64, "none")
    assert caught.value.reason == "64x63: without a crop it has to be 64x64"


def test_geometry_is_known_without_pixels() -> None:
    halved, resized, cut = steps(1000, 700, 256, "adm")
    assert (halved.size, halved.filter) == ((500, 350), Image.Resampling.BOX)
    assert (resized.size, resized.filter) == ((366, 256), Image.Resampling.BICUBIC)
    assert cut.box == (55, 0, 311, 256)


def test_unknown_crops_and_sizes_are_refused() -> None:
    with pytest.raises(LvaeError, match="none of adm, lsun, adm-lsun, center, none"):
        crop(picture(8, 8), 8, "centre")
    with pytest.raises(LvaeError, match="at least one pixel"):
        crop(picture(8, 8), 0, "adm")
    with pytest.raises(ValueError, match="mode L"):
        crop(picture(8, 8).convert("L"), 8, "adm")


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.exists(), reason="needs the shared photographs")
@pytest.mark.parametrize("kind", GEOMETRIC)
def test_photographs_are_cropped_as_published(kind: str) -> None:
    for path in sorted(SHARED.glob("photos/*/*.jpg"))[::40]:
        image = open_image(path.read_bytes())
        np.testing.assert_array_equal(np.asarray(crop(image, 128, kind)), published(image, 128, kind))
