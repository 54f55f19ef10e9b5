"""PSNR, SSIM, sharpness and the best linear code, against values known on paper or computed otherwise."""

import math

import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy.ndimage import gaussian_filter

from lvae.encode.quality.fidelity import LinearCode, Pixels, detail_kept, fine_detail, psnr, ssim, to_images, to_pixels
from lvae.encode.scenes.make import scene


def picture(number: int, size: int = 64) -> Pixels:
    return np.asarray(scene(0, number, size))


def blurred(pixels: Pixels, radius: float) -> Pixels:
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


def test_psnr_of_a_known_error() -> None:
    grey = np.full((8, 8, 3), 100, np.uint8)
    assert psnr(grey, grey + 5) == pytest.approx(20 * math.log10(255 / 5))
    assert psnr(grey, grey) == math.inf


def test_ssim_equals_another_computation() -> None:
    """By scipy's Gaussian filter, whole neighbourhoods only."""
    one, other = picture(1), blurred(picture(1), 1.0)
    x, y = one.astype(float), other.astype(float)

    def mean(a: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        return gaussian_filter(a, sigma=(1.5, 1.5, 0), truncate=3.4)[5:-5, 5:-5]

    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    expected = ((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean()
    assert ssim(one, other) == pytest.approx(float(expected), abs=1e-9)
    assert ssim(one, one) == pytest.approx(1.0, abs=1e-12)


def test_blurring_takes_detail_and_nothing_else_does() -> None:
    pictures = [picture(number) for number in range(4)]
    assert detail_kept(pictures, pictures) == pytest.approx(1.0)
    soft, softer = ([blurred(one, radius) for one in pictures] for radius in (0.6, 1.5))
    assert 1 > detail_kept(pictures, soft) > detail_kept(pictures, softer) > 0
    assert detail_kept(pictures, [one[:, ::-1] for one in pictures]) == pytest.approx(1.0, rel=1e-6)


def test_fine_detail_of_one_wave() -> None:
    """A wave of a third of a cycle a pixel is fine, one of an eighth is not."""
    columns = np.arange(96)
    for frequency, is_fine in ((1 / 3, True), (1 / 8, False)):
        wave = np.broadcast_to(128 + 60 * np.cos(2 * np.pi * frequency * columns), (96, 96))
        pixels = np.repeat(wave.round().astype(np.uint8)[..., None], 3, axis=2)
        assert (fine_detail(pixels) > 100) == is_fine


def test_pixels_go_there_and_back() -> None:
    one = picture(3)[None]
    assert np.array_equal(to_pixels(to_images(one)), one)


def test_a_linear_code_of_all_numbers_loses_nothing_and_fewer_lose_more() -> None:
    pictures = [picture(number, 32) for number in range(6)]
    errors = [
        np.mean([psnr(one, LinearCode.fit(pictures, 4, channels).through(one)) for one in pictures])
        for channels in (1, 4, 16, 48)
    ]
    assert errors == sorted(errors)
    assert errors[3] == math.inf


def test_a_linear_code_beats_the_mean_of_each_patch() -> None:
    """Three channels can hold the mean colour of a patch; principal components can only do better."""
    pictures = [picture(number, 32) for number in range(8)]
    code = LinearCode.fit(pictures, 4, 3)
    for one in pictures[:1]:
        means = one.reshape(8, 4, 8, 4, 3).astype(float).mean((1, 3))
        coarse = means.round().astype(np.uint8).repeat(4, 0).repeat(4, 1)
        assert psnr(one, code.through(one)) > psnr(one, coarse) - 1
