"""Which channels say most: by their rate over some latents, the model's own samples where no data is at hand."""

from dataclasses import dataclass

import numpy as np
import torch

from lvae.evaluate.manipulation.loaded_run import LoadedRun, read_latents
from lvae.manifests.dataset import Dataset
from lvae.manifests.seeds import derive
from lvae.train.network.gaussians import divergence
from lvae.train.network.noise import draw_noise

IMAGES = 16
MOST = 1e9
CHANNELS = 4  # shown of every resolution


@dataclass(frozen=True)
class Channel:
    group: int
    channel: int
    nats: float  # an image, finite


@torch.no_grad()
def rank_channels(loaded: LoadedRun, dataset: Dataset | None) -> dict[int, list[Channel]]:
    """By resolution, lowest first: the channels with the largest rates, largest first."""
    model = loaded.model
    noise = [
        part.to(loaded.device) for part in draw_noise(model.config, [derive(0, "rates", n) for n in range(IMAGES)])
    ]
    labels = None
    if loaded.classes:
        labels = torch.arange(IMAGES, device=loaded.device) % loaded.classes
    if dataset is None:
        x = model.sample(IMAGES, labels, noise)
    else:
        found, told = read_latents(loaded, dataset, np.arange(min(IMAGES, len(dataset))))
        x = torch.from_numpy(found).to(loaded.device)
        labels = torch.from_numpy(told).to(loaded.device) if loaded.classes else None
    inferred = model.infer(x, labels, [part[: len(x)] for part in noise])
    ranked: dict[int, list[Channel]] = {}
    pairs = zip(inferred.posteriors, inferred.priors, model.config.group_resolutions, strict=True)
    for group, (posterior, prior, resolution) in enumerate(pairs):
        nats = divergence(posterior, prior).sum((2, 3)).mean(0).double().cpu()
        finite = torch.nan_to_num(nats, 0.0, MOST, 0.0).tolist()
        ranked.setdefault(resolution, []).extend(Channel(group, channel, value) for channel, value in enumerate(finite))
    return {
        resolution: sorted(channels, key=lambda one: (-one.nats, one.group, one.channel))[:CHANNELS]
        for resolution, channels in ranked.items()
    }
