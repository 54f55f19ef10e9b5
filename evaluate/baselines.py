"""Latents that a model's samples are measured by: Gaussians fitted to each class, and noise."""

import numpy as np
from numpy.typing import NDArray

from lvae.manifests.seeds import derive


def gaussian_samples(
    latents: NDArray[np.float32], labels: NDArray[np.int32], count: int, seed: int
) -> NDArray[np.float32]:
    """Draws from Gaussians of full covariance, one fitted to each class, classes in their own shares: (count, d).

    mean + X^T w / sqrt(n - 1) with w ~ N(0, I) has exactly the covariance of the n centred rows X.
    """
    random = np.random.default_rng(derive(seed, "linear baseline", 0))
    drawn = labels[random.integers(0, len(labels), count)]
    result = np.empty((count, latents.shape[1]), np.float32)
    for label in np.unique(drawn):
        rows = latents[labels == label].astype(np.float64)
        here = np.flatnonzero(drawn == label)
        mean = rows.mean(axis=0)
        weights = random.standard_normal((len(here), len(rows))) / np.sqrt(max(len(rows) - 1, 1))
        result[here] = mean + weights @ (rows - mean)
    return result


def channel_noise(
    latents: NDArray[np.float32], shape: tuple[int, int, int], count: int, seed: int
) -> NDArray[np.float32]:
    """Independent noise with each channel's mean and standard deviation: (count, d)."""
    by_channel = latents.reshape(len(latents), shape[0], -1)
    mean, std = by_channel.mean((0, 2), np.float64), by_channel.std((0, 2), np.float64)
    random = np.random.default_rng(derive(seed, "bottom", 0))
    noise = random.standard_normal((count, shape[0], by_channel.shape[2]))
    return np.asarray((noise * std[:, None] + mean[:, None]).reshape(count, -1), np.float32)
