"""Statistics of the raw latents, from the shards alone: exact up to the rounding of what is stored."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lvae.manifests.dataset import Dataset
from lvae.manifests.manifest import Manifest
from lvae.manifests.shards.layout import ArrayLike
from lvae.manifests.statistics import STD_TOLERANCE, ChannelMoments
from lvae.manifests.storage.folder import Folder

READ_ROWS = 1024  # latents of a shard looked at together


def moments_from_shards(folder: Folder, manifest: Manifest) -> tuple[ChannelMoments, dict[int, ChannelMoments]]:
    """Statistics of the raw latents from the normalized ones, all together and by label.

    Exact up to the rounding of the stored dtype: see `shard_tolerance`.
    """
    empty = ChannelMoments.empty(manifest.view.shape[0])
    total, by_label = empty, dict[int, ChannelMoments]()
    for split in manifest.splits:
        dataset = Dataset(folder, manifest, split)
        labels = dataset.labels
        for start in range(0, len(dataset), READ_ROWS):
            raw, here = raw_moments(manifest, dataset, start, start + READ_ROWS), labels[start : start + READ_ROWS]
            total = total.merge(raw(slice(None)))
            for label in np.unique(here):
                by_label[int(label)] = by_label.get(int(label), empty).merge(raw(here == label))
            if start % (READ_ROWS * 8) == 0:
                dataset.reader.close()
        dataset.close()
    return total, by_label


class Latents(Protocol):
    """What is read of a split: a dataset, or the reader of its shards."""

    @property
    def latents(self) -> ArrayLike: ...
    @property
    def log_variances(self) -> ArrayLike | None: ...


def raw_moments(manifest: Manifest, split: Latents, start: int, stop: int) -> Callable[[Any], ChannelMoments]:
    """The moments of some rows of a block of a split, as they were before normalization."""
    stored = np.asarray(split.latents[start:stop])
    raw = stored if stored.dtype == np.uint8 else manifest.normalization.denormalize(stored)
    if split.log_variances is None:
        return lambda rows: ChannelMoments.of(raw[rows])
    scale = np.array(manifest.normalization.scale)[:, None, None]
    log_variances = np.asarray(split.log_variances[start:stop], np.float64) + 2 * np.log(scale)
    return lambda rows: ChannelMoments.of_posterior(raw[rows], log_variances[rows])


def moments_of_rows(manifest: Manifest, split: Latents, rows: range) -> ChannelMoments:
    """The moments of a run of rows of a split, before normalization."""
    total = ChannelMoments.empty(manifest.view.shape[0])
    for start in range(rows.start, rows.stop, READ_ROWS):
        total = total.merge(raw_moments(manifest, split, start, min(start + READ_ROWS, rows.stop))(slice(None)))
    return total


def shard_tolerance(manifest: Manifest) -> NDArray[np.float64]:
    """How far mean and std from shards may be off, a channel: what rounding may have moved any one value by.

    Half a unit in the last place of the largest stored value, and of the raw one in float32. A log-variance that was
    clamped to [-30, 20] and rounded changes its standard deviation by half of its own rounding.
    """
    statistics, normalization = manifest.statistics, manifest.normalization
    std, scale = np.array(statistics.std), np.array(normalization.scale)
    exact = STD_TOLERANCE * np.maximum(std, np.maximum(np.abs(statistics.min), np.abs(statistics.max)))
    if manifest.view.dtype == "uint8":
        return np.asarray(exact)
    half_unit, smallest = {"float16": (2.0**-11, 2.0**-25), "float32": (2.0**-24, 2.0**-150)}[manifest.view.dtype]
    furthest = np.maximum(*(np.abs(np.array(v) - normalization.shift) for v in (statistics.min, statistics.max)))
    rounding = np.maximum(half_unit * furthest, smallest * scale)
    rounding += 2.0**-23 * np.maximum(np.abs(statistics.min), np.abs(statistics.max))
    if manifest.autoencoder.store == "moments":
        rounding += half_unit * (30 + 2 * np.abs(np.log(scale))) * std
    return np.asarray(1.01 * rounding + exact)
