"""How much of an image each group carries, and through which of its channels: measured over a dataset."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lvae.evaluate.figures.charts import chart_shares
from lvae.evaluate.figures.render import render_png
from lvae.evaluate.manipulation.loaded_run import LoadedRun, read_latents
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.seeds import derive
from lvae.manifests.statistics import ChannelMoments
from lvae.train.losses import reconstruction
from lvae.train.network.gaussians import divergence
from lvae.train.network.noise import draw_noise
from lvae.train.runs.classes import number_labels

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

    def to_dict(self) -> dict[str, Any]:
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

    def format_table(self) -> str:
        """A line a group, for people."""
        total = max(self.nats, 1e-30)
        lines = [
            f"rate            {self.nats:.1f} nats an image, over {self.images} latents",
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
    loaded: LoadedRun,
    dataset: Dataset,
    images: int | None = None,
    seed: int = 0,
    progress: Callable[[int], None] = lambda _: None,
) -> Rates:
    """Rates over the first so many latents of a dataset's shuffled order (None: all)."""
    count = len(dataset) if images is None else min(images, len(dataset))
    if count == 0:
        raise LvaeError(dataset.folder, f"split {dataset.name} holds no latents", "Give another split.")
    number_labels(loaded.config, loaded.name, dataset, dataset.labels[:count])  # refused now, not after a long while
    tally = _Tally()
    for start in range(0, count, BATCH):
        positions = np.arange(start, min(start + BATCH, count))
        x, labels = read_latents(loaded, dataset, positions)
        tally.add(*_measure_batch(loaded, x, labels, [derive(seed, "rates", int(index)) for index in positions]))
        progress(len(positions))
    return tally.rates(loaded.model.config.group_resolutions)


@torch.no_grad()
def _measure_batch(
    loaded: LoadedRun, x: NDArray[np.float32], labels: NDArray[np.int32], seeds: Sequence[int]
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]], NDArray[np.float64]]:
    """Per group the nats (B, z) of channels and the standardized posterior means (B, z, r, r); distortion (B,)."""
    model = loaded.model
    latents = torch.from_numpy(x).to(loaded.device)
    told = torch.from_numpy(labels).to(loaded.device) if loaded.classes else None
    noise = [part.to(loaded.device) for part in draw_noise(model.config, seeds)]
    found = model.infer(latents, told, noise)
    out = model.decode(found.z, told, low_resolution=model.reduce(latents))
    pairs = list(zip(found.posteriors, found.priors, strict=True))
    nats = [_to_numpy(divergence(q, p).sum((2, 3))) for q, p in pairs]
    means = [_to_numpy(p.standardize(q.mean)) for q, p in pairs]
    distortion = reconstruction(latents, out.mean, out.log_variance, loaded.config.training.sigma_q)
    return nats, means, _to_numpy(distortion)


def _to_numpy(values: Tensor) -> NDArray[np.float64]:
    found: NDArray[np.float64] = values.double().cpu().numpy()
    return found


class _Tally:
    """Sums over images that batches are added to, and the moments of every unit's posterior mean."""

    def __init__(self) -> None:
        self._nats: list[NDArray[np.float64]] = []
        self._moments: list[ChannelMoments] = []
        self._distortion = 0.0

    def add(
        self,
        nats: Sequence[NDArray[np.float64]],
        means: Sequence[NDArray[np.float64]],
        distortion: NDArray[np.float64],
    ) -> None:
        moments = [ChannelMoments.of(each.reshape(len(each), -1, 1)) for each in means]
        sums = [each.sum(0) for each in nats]
        if self._moments:
            moments = [one.merge(other) for one, other in zip(self._moments, moments, strict=True)]
            sums = [one + other for one, other in zip(self._nats, sums, strict=True)]
        self._moments, self._nats = moments, sums
        self._distortion += float(distortion.sum())

    def rates(self, resolutions: Sequence[int]) -> Rates:
        groups = []
        count = self._moments[0].count
        for resolution, nats, moments in zip(resolutions, self._nats, self._moments, strict=True):
            units = (moments.m2 / count > ACTIVE).reshape(len(nats), -1)
            groups.append(
                GroupRate(resolution, units.shape[1], tuple((nats / count).tolist()), tuple(units.sum(1).tolist()))
            )
        return Rates(count, tuple(groups), self._distortion / count)


def draw_rates(measured: Sequence[tuple[str, int, Rates]]) -> bytes:
    """Nats per resolution as a PNG, a panel a model: (its name, pixels of its pictures, its rates)."""
    charts = []
    for number, (name, size, rates) in enumerate(measured):
        title = f"{name}: {rates.nats:.0f} nats an image of {size} px, over {rates.images} latents"
        shares = {side: nats / max(rates.nats, 1e-30) for side, nats in rates.by_resolution.items()}
        labels = [f"{nats:.1f} nats, {shares[side]:.1%}" for side, nats in rates.by_resolution.items()]
        charts.append(chart_shares(title, [f"{side}x{side}" for side in shares], list(shares.values()), labels, number))
    note = "Each bar is a share of its own model's rate, so models of different latents can stand beside one another."
    return render_png(charts, 1, "Where the nats go: rate by resolution of the groups", note)
