"""How much of an image each group carries, and through which of its channels: measured over a dataset."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lvae.evaluate.manipulation.loaded_run import Studio, latents_at
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.seeds import derive
from lvae.train.losses import reconstruction
from lvae.train.network.gaussians import divergence
from lvae.train.network.noise import draw_noise

ACTIVE = 0.01  # variance over images of a unit's posterior mean, in std of its prior (Burda et al., 2016)
BATCH = 16


@dataclass(frozen=True)
class GroupRate:
    """A group at a resolution. channel_nats: nats per image of each channel, over all its positions.

    active: of each channel, how many of its `positions` units are active.
    """

    resolution: int
    positions: int
    channel_nats: tuple[float, ...]
    active: tuple[int, ...]

    @property
    def nats(self) -> float:
        return sum(self.channel_nats)

    @property
    def most_informative(self) -> int:
        """The channel with the largest rate."""
        return int(np.argmax(self.channel_nats))


@dataclass(frozen=True)
class Rates:
    """Of so many images; groups from the lowest resolution on. distortion_nats: per image, under sigma_q."""

    images: int
    groups: tuple[GroupRate, ...]
    distortion_nats: float

    @property
    def nats(self) -> float:
        return sum(group.nats for group in self.groups)

    @property
    def by_resolution(self) -> dict[int, float]:
        """Nats per image of all groups of a resolution, lowest first."""
        total: dict[int, float] = {}
        for group in self.groups:
            total[group.resolution] = total.get(group.resolution, 0.0) + group.nats
        return total

    def as_dict(self) -> dict[str, Any]:
        return {
            "images": self.images,
            "rate_nats": self.nats,
            "reconstruction_nats": self.distortion_nats,
            "active_units": sum(sum(group.active) for group in self.groups),
            "units": sum(group.positions * len(group.active) for group in self.groups),
            "rate_per_resolution_nats": {str(resolution): nats for resolution, nats in self.by_resolution.items()},
            "groups": [
                {
                    "group": number,
                    "resolution": group.resolution,
                    "rate_nats": group.nats,
                    "rate_per_channel_nats": list(group.channel_nats),
                    "active_units_per_channel": list(group.active),
                    "units_per_channel": group.positions,
                }
                for number, group in enumerate(self.groups)
            ],
        }

    def table(self) -> str:
        """A line a group, for people."""
        total = max(self.nats, 1e-30)
        lines = [
            f"rate            {self.nats:.1f} nats an image, over {self.images} images",
            f"reconstruction  {self.distortion_nats:.1f} nats an image",
            "",
            "group  resolution       nats   share  active units       largest channels (nats)",
        ]
        for number, group in enumerate(self.groups):
            order = np.argsort(group.channel_nats)[::-1][:3]
            largest = ", ".join(f"{channel}: {group.channel_nats[channel]:.2f}" for channel in order)
            units = f"{sum(group.active)} of {group.positions * len(group.active)}"
            size = f"{group.resolution}x{group.resolution}"
            lines.append(
                f"{number:>5}  {size:>10} {group.nats:>10.2f} {group.nats / total:>7.1%}  {units:<17}  {largest}"
            )
        return "\n".join(lines)


def measure(
    studio: Studio,
    dataset: Dataset,
    images: int | None = None,
    seed: int = 0,
    progress: Callable[[int], None] = lambda _: None,
) -> Rates:
    """Rates over the first so many latents of a dataset's shuffled order (None: all)."""
    count = len(dataset) if images is None else min(images, len(dataset))
    if count == 0:
        raise LvaeError(dataset.folder, f"split {dataset.name} holds no latents", "Give another split.")
    tally = _Tally()
    for start in range(0, count, BATCH):
        positions = np.arange(start, min(start + BATCH, count))
        x, labels = latents_at(studio, dataset, positions)
        tally.add(*_measured(studio, x, labels, [derive(seed, "rates", int(index)) for index in positions]))
        progress(len(positions))
    return tally.rates(studio.model.config.group_resolutions)


@torch.no_grad()
def _measured(
    studio: Studio, x: NDArray[np.float32], labels: NDArray[np.int32], seeds: Sequence[int]
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]], NDArray[np.float64]]:
    """Per group the nats (B, z) of channels and the standardized posterior means (B, z, r, r); distortion (B,)."""
    model = studio.model
    latents = torch.from_numpy(x).to(studio.device)
    told = torch.from_numpy(labels).to(studio.device) if studio.classes else None
    noise = [part.to(studio.device) for part in draw_noise(model.config, seeds)]
    found = model.infer(latents, told, noise)
    out = model.decode(found.z, told, low_resolution=model.reduce(latents))
    pairs = list(zip(found.posteriors, found.priors, strict=True))
    nats = [_array(divergence(q, p).sum((2, 3))) for q, p in pairs]
    means = [_array(p.standardize(q.mean)) for q, p in pairs]
    distortion = reconstruction(latents, out.mean, out.log_variance, studio.config.training.sigma_q)
    return nats, means, _array(distortion)


def _array(values: Tensor) -> NDArray[np.float64]:
    found: NDArray[np.float64] = values.double().cpu().numpy()
    return found


class _Tally:
    """Sums that batches are added to; the variance of units by Chan, Golub and LeVeque's merge."""

    def __init__(self) -> None:
        self._count = 0
        self._nats: list[NDArray[np.float64]] = []
        self._mean: list[NDArray[np.float64]] = []
        self._m2: list[NDArray[np.float64]] = []
        self._distortion = 0.0

    def add(
        self,
        nats: Sequence[NDArray[np.float64]],
        means: Sequence[NDArray[np.float64]],
        distortion: NDArray[np.float64],
    ) -> None:
        if not self._count:
            self._nats = [np.zeros(each.shape[1]) for each in nats]
            self._mean, self._m2 = ([np.zeros(each.shape[1:]) for each in means] for _ in range(2))
        more = len(distortion)
        total = self._count + more
        for number, (rates, values) in enumerate(zip(nats, means, strict=True)):
            self._nats[number] += rates.sum(0)
            mean = values.mean(0)
            gap = mean - self._mean[number]
            self._m2[number] += ((values - mean) ** 2).sum(0) + gap**2 * self._count * more / total
            self._mean[number] += gap * more / total
        self._distortion += float(distortion.sum())
        self._count = total

    def rates(self, resolutions: Sequence[int]) -> Rates:
        groups = []
        for resolution, nats, m2 in zip(resolutions, self._nats, self._m2, strict=True):
            active = (m2 / self._count > ACTIVE).sum((1, 2))
            groups.append(
                GroupRate(
                    resolution,
                    m2.shape[1] * m2.shape[2],
                    tuple(float(value) for value in nats / self._count),
                    tuple(int(value) for value in active),
                )
            )
        return Rates(self._count, tuple(groups), self._distortion / self._count)
