"""Which training images are nearest to samples? Figure 8 of the paper: does a model repeat what it was shown?"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from lvae.encode.networks.base import Autoencoder
from lvae.evaluate.figures.grids import name_class
from lvae.evaluate.metrics import Points
from lvae.evaluate.pictures.decode import decode
from lvae.evaluate.pictures.originals import Originals
from lvae.evaluate.samples import describe
from lvae.evaluate.samples.draw import SampleOptions, draw, prepare
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.manifest import MANIFEST
from lvae.manifests.parts.plan import AutoencoderRecord, read_plan
from lvae.manifests.seeds import permute
from lvae.manifests.storage.folder import Folder
from lvae.train.devices.device import Device
from lvae.train.runs.run import read_run

READ_ROWS = 1024
TYPICAL = 100  # training images whose own nearest neighbour is looked for

Space = Literal["latent", "feature"]
Features = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Queries:
    """Raw latents (n, C, h, w), labels (n,), the samples' numbers, and what they are in words."""

    raw: NDArray[np.float32]
    labels: NDArray[np.int32]
    numbers: tuple[int, ...]
    what: str
    autoencoder: AutoencoderRecord
    classes: tuple[str, ...] | None = None

    def name_class(self, label: int, dataset: Dataset) -> str | None:
        """What the class of a sample is called: by its own names, where it has none by the dataset's; None for none."""
        return name_class(label, self.classes or dataset.classes) if label >= 0 else None

    def expect_same(self, dataset: Dataset) -> None:
        """LvaeError where a dataset's latents are of another autoencoder, or of another shape."""
        record, wanted = dataset.manifest.autoencoder, dataset.manifest.view.shape
        if self.autoencoder.weights_sha256 != record.weights_sha256 or self.raw.shape[1:] != wanted:
            raise LvaeError(
                dataset.folder,
                (
                    f"latents {wanted} of {record.name}, but the samples are {self.raw.shape[1:]} of "
                    f"{self.autoencoder.name} with other weights or shape"
                ),
                "Give the dataset that the model was trained on.",
            )

    @classmethod
    def of_dataset(cls, dataset: Dataset, positions: NDArray[np.int64]) -> Self:
        stored, labels = dataset.read(positions)
        plan = describe.plan_of(dataset.folder)
        what = f"{dataset.folder}" if plan is None else describe.settings(plan)
        raw = dataset.denormalize(stored)
        return cls(raw, labels, tuple(map(int, positions)), what, dataset.manifest.autoencoder, dataset.classes)

    @classmethod
    def of_run(cls, run: Path, count: int, options: SampleOptions, device: Device, batch: int = 16) -> Self:
        """The first `count` samples of a run; what 'lvae sample' writes first, given all of these options."""
        prepared = prepare(run, replace(options, count=count), device.precision)
        device.place(prepared.model)
        starts = range(0, count, batch)
        normalized = [draw(prepared, range(start, min(start + batch, count)), device, batch) for start in starts]
        plan = prepared.plan
        raw = plan.normalization.denormalize(np.concatenate(normalized))
        what = describe.settings(plan)
        return cls(raw, prepared.labels, tuple(range(count)), what, plan.autoencoder, plan.classes)


@dataclass(frozen=True)
class Neighbour:
    """One training latent. position: in its split. row, key: of its image; None where the dataset has no rows/."""

    position: int
    row: int
    key: str | None
    mirrored: bool
    label: int
    distance: float


@dataclass(frozen=True)
class Search:
    """How many neighbours, among the first `limit` latents of a split [all], which are a fair sample of it."""

    k: int
    limit: int | None = None


@dataclass(frozen=True)
class Neighbours:
    """Of every query the k nearest images, nearest first; an image and its mirror image count once.

    Distances are Euclidean: between normalized latents, or between features of decoded pictures. real: how far some
    training images are from the nearest other one (their mirror images apart), in order.
    """

    space: Space
    searched: int
    real: tuple[float, ...]
    found: tuple[tuple[Neighbour, ...], ...]

    @property
    def typical(self) -> float:
        """The median of `real`."""
        return float(np.median(self.real))

    @property
    def nearest(self) -> tuple[float, ...]:
        """How far every query is from its nearest training image."""
        return tuple(nearest[0].distance for nearest in self.found)

    def count_nearer(self, distance: float) -> int:
        """How many of the training images in `real` are nearer to another one than this."""
        return int(np.searchsorted(self.real, distance))


def find_neighbours(
    queries: Queries,
    dataset: Dataset,
    search: Search,
    network: Autoencoder,
    features: Features | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Neighbours:
    """Search a dataset's split in one pass.

    With `features`, between the features of what `network` decodes; otherwise between latents as the dataset
    normalizes them.
    """
    k = search.k
    searched = len(dataset) if search.limit is None else min(search.limit, len(dataset))
    rows = np.asarray(dataset.rows)
    images = len(np.unique(rows[:searched]))
    if images < k + 2:
        raise LvaeError(dataset.folder, f"{images} images are too few for {k} neighbours", "Ask for fewer.")
    queries.expect_same(dataset)

    def vectors(raw: NDArray[np.float32]) -> NDArray[np.float32]:
        if features is not None:
            return features(decode(network, raw))
        return np.asarray(dataset.normalization.normalize(raw, "float32")).reshape(len(raw), -1)

    own = np.sort(permute(np.arange(min(TYPICAL, searched)), searched, 0, "typical neighbours"))
    asked = np.concatenate([vectors(dataset.denormalize(dataset.read(own)[0])), vectors(queries.raw)])
    middle = asked.mean(0, np.float64)  # distances stay, digits are gained
    points = Points.of(asked, middle)
    best = _Best.empty(len(asked), dataset.manifest.image.orientations * max(k, 2))
    for start, raw in _read_blocks(dataset, searched):
        best = best.add(points, Points.of(vectors(raw), middle), start)
        progress(len(raw))
    foreign = np.where(rows[best.positions[: len(own)]] != rows[own][:, None], best.lengths[: len(own)], np.inf)
    real = tuple(np.sort(foreign.min(axis=1)).tolist())
    keys, labels, mirrored = _open_keys(dataset), dataset.labels, dataset.mirrored

    def describe_nearest(positions: NDArray[np.int64], lengths: NDArray[np.float64]) -> tuple[Neighbour, ...]:
        """The first k images of these latents; of an image and its mirror image the nearer one."""
        firsts = np.sort(np.unique(rows[positions], return_index=True)[1])[:k]
        return tuple(
            Neighbour(int(at), int(rows[at]), keys(int(rows[at])), bool(mirrored[at]), int(labels[at]), length)
            for at, length in zip(positions[firsts], lengths[firsts].tolist(), strict=True)
        )

    nearest = zip(best.positions[len(own) :], best.lengths[len(own) :], strict=True)
    found = tuple(describe_nearest(positions[positions >= 0], lengths) for positions, lengths in nearest)
    return Neighbours("latent" if features is None else "feature", searched, real, found)


@dataclass(frozen=True)
class _Best:
    """The nearest so far of every point: positions and distances (n, k), nearest first."""

    positions: NDArray[np.int64]
    lengths: NDArray[np.float64]

    @classmethod
    def empty(cls, count: int, k: int) -> "_Best":
        return cls(np.full((count, k), -1), np.full((count, k), np.inf))

    def add(self, points: Points, more: Points, first: int) -> "_Best":
        k = self.positions.shape[1]
        indices, lengths = points.nearest(more, min(k, len(more.values)))
        positions = np.concatenate([self.positions, indices + first], axis=1)
        lengths = np.concatenate([self.lengths, lengths], axis=1)
        order = np.argsort(lengths, axis=1, kind="stable")[:, :k]
        return _Best(np.take_along_axis(positions, order, 1), np.take_along_axis(lengths, order, 1))


def _read_blocks(dataset: Dataset, count: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """The first raw latents, some at a time, with the position of the first."""
    for start in range(0, count, READ_ROWS):
        stored, _ = dataset.read(np.arange(start, min(start + READ_ROWS, count)))
        yield start, dataset.denormalize(stored)


def _open_keys(dataset: Dataset) -> Callable[[int], str | None]:
    """What the image of a row is called."""
    if dataset.manifest.origin == "samples" or read_plan(dataset.folder) is None:
        return lambda row: None
    return Originals(dataset).key


def describe_strange(place: Path, dataset: Dataset) -> str | None:
    """A line for a dataset that a run, or the run of samples, was not trained on: copies cannot be found there."""
    if is_run(place):
        trained_on: str | None = read_run(place).dataset.id
    else:
        plan = describe.plan_of(Folder(place))
        trained_on = None if plan is None else plan.dataset
    if trained_on is None or trained_on == dataset.manifest.id:
        return None
    return f"{dataset.folder} is not what the model was trained on: nothing is said here of copies of training images"


def is_run(place: Path) -> bool:
    """Whether a folder is a RUN; otherwise it must hold a dataset. LvaeError where it is neither."""
    folder = Folder(place)
    if folder.exists(MANIFEST):
        return False
    if folder.exists("config.json"):
        return True
    raise LvaeError(place, "neither a run nor samples", f"Make some with 'lvae sample RUN {place}'.")
