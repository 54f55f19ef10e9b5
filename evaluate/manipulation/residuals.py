"""What a model leaves out of latents, measured: its covariance.

A model's output is a mean and a deviation for every number of a latent, and its likelihood takes the numbers to be
independent given these. What it really leaves out, (x - mean) / deviation, is not: neighbours and channels go together.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from lvae.evaluate.manipulation.loaded_run import LoadedRun, read_latents
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.seeds import derive
from lvae.train.network.noise import draw_noise
from lvae.train.runs.classes import number_labels

BATCH = 16
MOST = 8192  # numbers of a latent, whose covariance takes half a GiB


def measure_residuals(
    loaded: LoadedRun, dataset: Dataset, count: int, seed: int = 0, progress: Callable[[int], None] = lambda _: None
) -> NDArray[np.float64]:
    """The covariance of residuals over the first `count` latents of a dataset's shuffled order, (d*h*w, d*h*w).

    Around 0, where a model that fits has its residuals. Images stand for draws from their posteriors, a function of
    (seed, position). LvaeError for latents of more than MOST numbers.
    """
    count, numbers = min(count, len(dataset)), math.prod(loaded.config.dataset.shape)
    if count == 0:
        raise LvaeError(dataset.folder, f"split {dataset.name} holds no latents", "Give another split.")
    if numbers > MOST:
        problem = f"has latents of {numbers:,} numbers, and residuals are measured up to {MOST:,}"
        raise LvaeError(loaded.run, problem, "Draw with independent noise.")
    number_labels(loaded.config, loaded.name, dataset, dataset.labels[:count])
    total = np.zeros((numbers, numbers))
    for start in range(0, count, BATCH):
        positions = np.arange(start, min(start + BATCH, count))
        x, labels = read_latents(loaded, dataset, positions)
        left = _leave(loaded, x, labels, [derive(seed, "residuals", int(index)) for index in positions])
        total += left.T @ left
        progress(len(positions))
    return total / count


@torch.no_grad()
def _leave(
    loaded: LoadedRun, x: NDArray[np.float32], labels: NDArray[np.int32], seeds: list[int]
) -> NDArray[np.float64]:
    """(x - mean) / deviation of latents (B, d, h, w), as (B, d*h*w)."""
    latents = torch.from_numpy(x).to(loaded.device)
    told = torch.from_numpy(labels).to(loaded.device) if loaded.classes else None
    noise = [part.to(loaded.device) for part in draw_noise(loaded.model.config, seeds)]
    out = loaded.model(latents, told, noise)
    left = (latents - out.mean) * (-out.log_variance / 2).exp()
    found: NDArray[np.float64] = left.flatten(1).double().cpu().numpy()
    return found
