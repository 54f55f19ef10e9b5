"""A few samples to look at: out of SAMPLES, or drawn now from a RUN."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from lvae.evaluate.samples import describe as settings_in_words
from lvae.evaluate.samples.draw import SampleOptions, draw, prepare
from lvae.manifests.dataset import MANIFEST, Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.plan import AutoencoderRecord
from lvae.manifests.storage.folder import Folder
from lvae.train.devices.device import Device


@dataclass(frozen=True)
class Queries:
    """Raw latents (n, C, h, w), labels (n,), the samples' numbers, and what they are in words."""

    raw: NDArray[np.float32]
    labels: NDArray[np.int32]
    numbers: tuple[int, ...]
    what: str
    autoencoder: AutoencoderRecord

    def expect_same(self, dataset: Dataset) -> None:
        """LvaeError where a dataset's latents are of another autoencoder, or of another shape."""
        record, wanted = dataset.manifest.autoencoder, dataset.manifest.view.shape
        if self.autoencoder.weights_sha256 != record.weights_sha256 or self.raw.shape[1:] != wanted:
            raise LvaeError(
                f"{dataset.folder}: latents {wanted} of {record.name}, but the samples are {self.raw.shape[1:]} of "
                f"{self.autoencoder.name} with other weights or shape. Give the dataset that the model was trained on."
            )

    @classmethod
    def of_dataset(cls, dataset: Dataset, positions: NDArray[np.int64]) -> Self:
        stored, labels = dataset.read(positions)
        plan = settings_in_words.plan_of(dataset.folder)
        what = f"{dataset.folder}" if plan is None else settings_in_words.settings(plan)
        raw = dataset.denormalize(stored)
        return cls(raw, labels, tuple(map(int, positions)), what, dataset.manifest.autoencoder)

    @classmethod
    def of_run(cls, run: Path, count: int, options: SampleOptions, device: Device, batch: int = 16) -> Self:
        """The first `count` samples of a run; what 'lvae sample' with these options writes first."""
        prepared = prepare(run, replace(options, count=count), device.precision)
        device.place(prepared.model)
        starts = range(0, count, batch)
        normalized = [draw(prepared, range(start, min(start + batch, count)), device, batch) for start in starts]
        plan = prepared.plan
        raw = plan.normalization.denormalize(np.concatenate(normalized))
        what = settings_in_words.settings(plan)
        return cls(raw, prepared.labels, tuple(range(count)), what, plan.autoencoder)


def is_run(place: Path) -> bool:
    """Whether a folder is a RUN; otherwise it must hold a dataset. LvaeError where it is neither."""
    folder = Folder(place)
    if folder.exists(MANIFEST):
        return False
    if folder.exists("config.json"):
        return True
    raise LvaeError(f"{place}: neither a run nor samples. Make some with 'lvae sample RUN {place}'.")
