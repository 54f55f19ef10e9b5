"""The loss on images that training never sees: the bound on the likelihood, per image, without weights or penalties."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from lvae.manifests.dataset import Dataset
from lvae.manifests.seeds import derive
from lvae.train.data.batches import clip_latents, renumber
from lvae.train.data.sources import Source
from lvae.train.loop.update import Updater
from lvae.train.losses import reconstruction
from lvae.train.network.noise import noise_shapes

LATENTS = 10_000  # of the split at most: its order is shuffled, so the first ones are a fair sample


class Validation(NamedTuple):
    """Means over the images, nats per image; loss is the sum of the others."""

    validation_loss_nats: float
    validation_reconstruction_nats: float
    validation_rate_nats: float


@torch.no_grad()
def validate(updater: Updater, source: Source, dataset: Dataset, numbers: Sequence[int] | None = None) -> Validation:
    """The averaged weights on a split, with the same noise every time. Ranks share the work; all must call.

    numbers: see `renumber`.
    """
    config, device, model = updater.config, updater.device, updater.model
    shapes = noise_shapes(model.config)
    sizes = [z * height * width for z, height, width in shapes]
    count, size = min(len(dataset), LATENTS), config.batch // device.world
    sums: list[torch.Tensor] = []  # on the device until the end
    with updater.using_average(), device.without_compiling():
        for start in range(device.rank * size, count, config.batch):
            # Shapes stay the same, so the last batch is filled up with its first image, which then counts once.
            indices = np.arange(start, start + size)
            counts = device.put(torch.from_numpy((indices < count).astype(np.float32)))
            indices = np.where(indices < count, indices, start)
            latents = clip_latents(source.finish(device.put(source.read(indices, indices))), config.clip)
            labels = None
            if model.config.classes:
                labels = device.put(torch.from_numpy(renumber(dataset.labels[indices].astype(np.int64), numbers)))
            noise = device.normals(derive(config.seed, "validation", 0), start, size, sum(sizes))
            parts = noise.split(sizes, 1)  # type: ignore[no-untyped-call]
            with device.autocast():
                out = model(latents, labels, [p.unflatten(1, s) for p, s in zip(parts, shapes, strict=True)])
            distortions = reconstruction(latents, out.mean, out.log_variance, config.sigma_q)
            sums.append(torch.stack([(counts * distortions).sum(), (counts * out.rates.sum(0)).sum(), counts.sum()]))
            device.mark_step()
    found = device.fetch(torch.stack(sums)).double().sum(0) if sums else torch.zeros(3, dtype=torch.float64)
    device.average([found])
    distortion, rate = (found[:2] / found[2]).tolist()
    return Validation(distortion + rate, distortion, rate)
