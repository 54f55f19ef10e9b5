"""How near a picture is to another, and how sharp: arrays in, numbers out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

WINDOW, SIGMA = 11, 1.5  # of SSIM, pixels
STABLE = ((0.01 * 255) ** 2, (0.03 * 255) ** 2)  # SSIM's two constants for 8 bits
LUMA = (0.299, 0.587, 0.114)

Pixels = NDArray[np.uint8]
Rounding = Literal["nearest", "truncate"]


def to_pixels(images: torch.Tensor, rounding: Rounding = "nearest") -> Pixels:
    """(B, 3, H, W) in [-1, 1] -> uint8 (B, H, W, 3), clipped; the nearest level, or cut off as ADM's sampler does."""
    levels = images.detach().float().clamp(-1, 1).add(1).mul(127.5)
    whole = (levels.round() if rounding == "nearest" else levels).to("cpu", torch.uint8)
    result: Pixels = whole.permute(0, 2, 3, 1).contiguous().numpy()
    return result


def to_images(pixels: Pixels) -> torch.Tensor:
    """uint8 (B, H, W, 3) -> float32 (B, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))).float().div_(127.5).sub_(1)


def psnr(one: Pixels, other: Pixels) -> float:
    """Peak signal to noise ratio of two pictures (H, W, 3) in dB; infinite where they are equal."""
    error = float(np.mean((one.astype(np.float64) - other) ** 2))
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))


def ssim(one: Pixels, other: Pixels) -> float:
    """Structural similarity of two pictures (H, W, 3), H, W >= 11: Wang et al. (2004), a Gaussian window over every
    whole neighbourhood, the mean of the three channels.
    """
    x, y = (torch.from_numpy(a.transpose(2, 0, 1)[:, None].astype(np.float64)) for a in (one, other))
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x, variance_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + STABLE[0]) / (mean_x**2 + mean_y**2 + STABLE[0])
    contrast = (2 * covariance + STABLE[1]) / (variance_x + variance_y + STABLE[1])
    return float((luminance * contrast).mean())


def _blur(x: torch.Tensor) -> torch.Tensor:
    """(3, 1, H, W) -> (3, 1, H - 10, W - 10)."""
    places = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    window = torch.exp(-places.square() / (2 * SIGMA**2))
    window = window / window.sum()
    return F.conv2d(F.conv2d(x, window.view(1, 1, 1, -1)), window.view(1, 1, -1, 1))


def fine_detail(pixels: Pixels) -> float:
    """The power of a picture (H, W, 3) above a quarter of a cycle a pixel: the finest octave that pixels can show.

    Of the luminance, under a Hann window, so that the picture's edges do not count.
    """
    luminance = pixels.astype(np.float64) @ np.array(LUMA)
    height, width = luminance.shape
    window = np.hanning(height)[:, None] * np.hanning(width)[None, :]
    power = np.abs(np.fft.rfft2((luminance - luminance.mean()) * window)) ** 2
    vertical, horizontal = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    fine = np.maximum(np.abs(vertical), horizontal) >= 0.25
    return float(power[fine].sum() / (height * width))


def detail_kept(originals: Sequence[Pixels], others: Sequence[Pixels]) -> float:
    """Sharpness: the geometric mean, over pictures, of fine detail in the others relative to the originals.

    1: as sharp as the originals; 0: none of the finest octave is left.
    """
    logs = [
        np.log((fine_detail(other) + 1e-3) / (fine_detail(original) + 1e-3))
        for original, other in zip(originals, others, strict=True)
    ]
    return float(np.exp(np.mean(logs)))


@dataclass(frozen=True)
class LinearCode:
    """Patches of f x f pixels as `channels` numbers: float64 mean (3 f f,), components (3 f f, channels)."""

    factor: int
    mean: NDArray[np.float64]
    components: NDArray[np.float64]

    @classmethod
    def fit(cls, pictures: list[Pixels], factor: int, channels: int) -> Self:
        """The principal components of all patches of these pictures (H, W, 3), f dividing H and W."""
        side = 3 * factor**2
        count, total, products = 0, np.zeros(side), np.zeros((side, side))
        for picture in pictures:
            patches = _patches(picture, factor)
            count += len(patches)
            total += patches.sum(0)
            products += patches.T @ patches
        mean = total / count
        covariance = products / count - np.outer(mean, mean)
        return cls(factor, mean, np.linalg.eigh(covariance)[1][:, ::-1][:, :channels])

    def through(self, picture: Pixels) -> Pixels:
        """A picture coded and decoded: uint8 (H, W, 3)."""
        patches = _patches(picture, self.factor) - self.mean
        decoded = patches @ self.components @ self.components.T + self.mean
        height, width = picture.shape[0] // self.factor, picture.shape[1] // self.factor
        grid = decoded.reshape(height, width, self.factor, self.factor, 3).transpose(0, 2, 1, 3, 4)
        result: Pixels = grid.reshape(picture.shape).round().clip(0, 255).astype(np.uint8)
        return result


def _patches(picture: Pixels, factor: int) -> NDArray[np.float64]:
    height, width = picture.shape[0] // factor, picture.shape[1] // factor
    grid = picture.reshape(height, factor, width, factor, 3).transpose(0, 2, 1, 3, 4)
    return grid.reshape(height * width, factor * factor * 3).astype(np.float64)
