"""Which training images are nearest to samples? Figure 8 of the paper: does a model repeat what it was shown?"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lvae.encode.networks.base import Autoencoder
from lvae.evaluate.figures.drawing import Captioned
from lvae.evaluate.figures.grids import LARGE, Block, Row, draw_grid, name_class
from lvae.evaluate.metrics import Points
from lvae.evaluate.pictures.decode import decode
from lvae.evaluate.pictures.originals import Originals
from lvae.evaluate.samples import describe
from lvae.evaluate.samples.draw import SampleOptions, draw, prepare
from lvae.manifests import records
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.manifest import MANIFEST
from lvae.manifests.messages import counted
from lvae.manifests.parts.plan import AutoencoderRecord, read_plan
from lvae.manifests.seeds import permute
from lvae.manifests.storage.folder import Folder
from lvae.train.devices.device import Device

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
        what = describe.settings(plan)
        return cls(raw, prepared.labels, tuple(range(count)), what, plan.autoencoder)


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
    """Of every query the k nearest, nearest first.

    Distances are Euclidean: between normalized latents, or between features of decoded pictures. typical: the median
    distance of a training image to the nearest other one (its mirror image apart), which a copy would fall far below.
    """

    space: Space
    searched: int
    typical: float
    found: tuple[tuple[Neighbour, ...], ...]


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
    if searched < k + 2:
        raise LvaeError(dataset.folder, f"{searched} latents are too few for {k} neighbours", "Ask for fewer.")
    queries.expect_same(dataset)

    def vectors(raw: NDArray[np.float32]) -> NDArray[np.float32]:
        if features is not None:
            return features(decode(network, raw))
        return np.asarray(dataset.normalization.normalize(raw, "float32")).reshape(len(raw), -1)

    own = np.sort(permute(np.arange(min(TYPICAL, searched)), searched, 0, "typical neighbours"))
    asked = np.concatenate([vectors(dataset.denormalize(dataset.read(own)[0])), vectors(queries.raw)])
    middle = asked.mean(0, np.float64)  # distances stay, digits are gained
    points = Points.of(asked, middle)
    best = _Best.empty(len(asked), max(k, dataset.manifest.image.orientations + 1))
    for start, raw in _read_blocks(dataset, searched):
        best = best.add(points, Points.of(vectors(raw), middle), start)
        progress(len(raw))
    rows = np.asarray(dataset.rows)
    foreign = np.where(rows[best.positions[: len(own)]] != rows[own][:, None], best.lengths[: len(own)], np.inf)
    typical = float(np.median(foreign.min(axis=1)))
    own_images = _open_keys(dataset)
    found = tuple(
        tuple(
            Neighbour(int(at), int(rows[at]), own_images(int(rows[at])), bool(dataset.mirrored[at]), int(label), length)
            for at, label, length in zip(positions, dataset.labels[positions], lengths.tolist(), strict=True)
        )
        for positions, lengths in zip(best.positions[len(own) :, :k], best.lengths[len(own) :, :k], strict=True)
    )
    return Neighbours("latent" if features is None else "feature", searched, typical, found)


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


def load_pictures(
    dataset: Dataset, network: Autoencoder, found: Neighbours
) -> tuple[list[list[NDArray[np.uint8]]], bool]:
    """Pictures of the neighbours, from their source where it is there; whether they are.

    Otherwise all of them are decoded from their latents, and the log says why.
    """
    try:
        return _open_originals(dataset, found), True
    except LvaeError as error:
        logger.warning("%s The neighbours are shown as reconstructions.", error)
    shown = []
    for nearest in found.found:
        stored, _ = dataset.read(np.array([one.position for one in nearest]))
        shown.append(list(decode(network, dataset.denormalize(stored))))
    return shown, False


def _open_originals(dataset: Dataset, found: Neighbours) -> list[list[NDArray[np.uint8]]]:
    with Originals(dataset) as originals:
        return [[originals.open(one.row, one.mirrored) for one in nearest] for nearest in found.found]


def draw_neighbours(
    dataset: Dataset, network: Autoencoder, queries: Queries, found: Neighbours
) -> tuple[Image.Image, bool]:
    """A row a sample: itself, then its neighbours with their distances; whether these are from their source."""
    shown, from_source = load_pictures(dataset, network, found)
    own = decode(network, queries.raw)
    names = dataset.classes
    rows = []
    for number, pixels, label, pictures, nearest in zip(
        queries.numbers, own, queries.labels, shown, found.found, strict=True
    ):
        cells = [Captioned(pixels, f"#{number}")]
        cells += [
            Captioned(picture, write_caption(one, int(label), names))
            for picture, one in zip(pictures, nearest, strict=True)
        ]
        rows.append(Row(name_class(int(label), names) if label >= 0 else "", tuple(cells)))
    k = len(found.found[0])
    where = "latent space" if found.space == "latent" else "feature space"
    kind = "originals" if from_source else "reconstructions: their originals are not here"
    blocks = [Block("sample", 1), Block(f"nearest of {counted(found.searched, 'training latent')} ({kind})", k)]
    note = f"Samples: {queries.what}.\n{explain(found)}"
    return draw_grid(f"Nearest training images in {where}", blocks, rows, note, LARGE), from_source


def write_caption(one: Neighbour, label: int, names: tuple[str, ...] | None) -> str:
    """The distance, and the class where it is another than the sample's."""
    other = f" {name_class(one.label, names)}" if one.label not in (label, -1) else ""
    return f"{one.distance:.3g}{other}"


def explain(found: Neighbours) -> str:
    what = "normalized latents" if found.space == "latent" else "features of decoded pictures"
    return (
        f"Below each its distance (Euclidean, between {what}). From a training image to the nearest other one it is "
        f"{found.typical:.3g} (median of {min(TYPICAL, found.searched)}). A copy would be far nearer; a smooth "
        "picture is somewhat nearer to everything."
    )


def to_dict(queries: Queries, dataset: Dataset, found: Neighbours) -> dict[str, Any]:
    names = dataset.classes
    return {
        "space": found.space,
        "samples_are": queries.what,
        "dataset_id": dataset.manifest.id,
        "split": dataset.name,
        "searched": found.searched,
        "typical_distance": found.typical,
        "samples": [
            {
                "number": number,
                "label": int(label),
                "class": name_class(int(label), names) if label >= 0 else None,
                "neighbours": records.plain(nearest),
            }
            for number, label, nearest in zip(queries.numbers, queries.labels, found.found, strict=True)
        ],
    }


def is_run(place: Path) -> bool:
    """Whether a folder is a RUN; otherwise it must hold a dataset. LvaeError where it is neither."""
    folder = Folder(place)
    if folder.exists(MANIFEST):
        return False
    if folder.exists("config.json"):
        return True
    raise LvaeError(place, "neither a run nor samples", f"Make some with 'lvae sample RUN {place}'.")
