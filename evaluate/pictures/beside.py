"""Pictures from elsewhere, chosen and cropped to stand beside samples: a dataset's, or any source of images'."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lvae.encode.crops import crop
from lvae.encode.images import ImageRejected, open_image
from lvae.encode.sources.base import read_bytes
from lvae.encode.sources.open import open_reader, open_source
from lvae.evaluate.figures.drawing import Captioned
from lvae.evaluate.pictures.decode import decode_positions, load_decoder
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.manifest import is_dataset
from lvae.manifests.parts.plan import ImageSettings
from lvae.manifests.parts.rows import UNLABELLED, ImageRow
from lvae.train.runs.classes import number_classes

SPARE = 8  # more pictures than wanted are looked up, for some may turn out to be broken

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Beside:
    """Captioned pictures of one size, labels (n,) in the classes of the samples; `remark`: how they were made fit."""

    name: str
    pictures: tuple[Captioned, ...]
    labels: NDArray[np.int32]
    remark: str = ""

    @property
    def labelled(self) -> bool:
        return bool((self.labels != UNLABELLED).any())


def beside(
    place: str, image: ImageSettings, classes: Sequence[str] | None, wanted: Mapping[int, int], in_all: int
) -> Beside:
    """The first pictures at a place: `wanted` of every class where they have classes, `in_all` where they have none.

    image: the size and crop of the samples. LvaeError where there are no pictures.
    """
    if is_dataset(place):
        return _of_dataset(place, image, classes, wanted, in_all)
    return _of_source(place, image, classes, wanted, in_all)


def numbering(theirs: Sequence[str] | None, ours: Sequence[str] | None) -> Callable[[int], int]:
    """Their labels in our classes: by name, or by number where a class has no other name; -1 where we have none."""
    numbers = number_classes(theirs or (), ours or ())

    def label(its: int) -> int:
        if theirs is None or not 0 <= its < len(numbers):
            return its if its >= 0 and ours is None else UNLABELLED
        return numbers[its]

    return label


def _of_dataset(
    place: str, image: ImageSettings, classes: Sequence[str] | None, wanted: Mapping[int, int], in_all: int
) -> Beside:
    dataset = Dataset.open(place)
    own = numbering(dataset.classes, classes)
    labels = np.array([own(int(label)) for label in dataset.labels], np.int32)
    found = choose_positions(labels, wanted, in_all, 0)
    pictures = []
    for some in decode_positions(dataset, load_decoder(dataset), found, 16):
        for position, pixels in zip(some.positions, some.pixels, strict=True):
            cut = np.asarray(crop(Image.fromarray(pixels), image.size, _kind(image)))
            pictures.append(Captioned(cut, f"#{position}"))
    what = "samples" if dataset.manifest.origin == "samples" else "reconstructions"
    remark = _remark(place, (dataset.manifest.image.size,) * 2, image.size)
    return _require_pictures(place, f"{_short(place)} ({what})", pictures, labels[found], remark)


def _of_source(
    place: str, image: ImageSettings, classes: Sequence[str] | None, wanted: Mapping[int, int], in_all: int
) -> Beside:
    source = open_source(place)
    kept: dict[int, list[ImageRow]] = {}
    most = max([in_all, *wanted.values()]) + SPARE
    for row in source.rows():
        rows = kept.setdefault(row.label, [])
        if len(rows) < most:
            rows.append(row)
    own = numbering(source.classes, classes)
    rows = [row for label in sorted(kept) for row in kept[label]]
    labels = np.array([own(row.label) for row in rows], np.int32)
    candidates = choose_positions(labels, wanted, in_all, SPARE)
    pictures, found, remark = [], list[int](), ""
    left = dict(wanted) if (labels[candidates] != UNLABELLED).any() else {UNLABELLED: in_all}
    with closing(open_reader(source.kind, source.location)) as reader:
        for row, label in ((rows[number], int(labels[number])) for number in candidates):
            if not left.get(label):
                continue
            try:
                opened = open_image(read_bytes(row, reader))
                pixels = np.asarray(crop(opened, image.size, _kind(image)))
            except ImageRejected as rejection:
                logger.warning("%s/%s: left out, %s", place, row.key, rejection.reason)
                continue
            remark = remark or _remark(place, opened.size, image.size)
            pictures.append(Captioned(pixels, PurePosixPath(row.key).stem))
            found.append(label)
            left[label] -= 1
    return _require_pictures(place, _short(place), pictures, np.array(found, np.int32), remark)


def choose_positions(
    labels: NDArray[np.int32], wanted: Mapping[int, int], in_all: int, spare: int
) -> NDArray[np.int64]:
    """The first positions of every wanted class, or, where no label is among the wanted, the first of all."""
    known = sorted(label for label in wanted if label != UNLABELLED)
    found = [np.flatnonzero(labels == label)[: wanted[label] + spare] for label in known]
    if not any(len(some) for some in found):
        if (labels != UNLABELLED).any():
            return np.empty(0, np.int64)
        return np.arange(min(in_all + spare, len(labels)))
    return np.concatenate(found)


def _require_pictures(
    place: str, name: str, pictures: Sequence[Captioned], labels: NDArray[np.int32], remark: str
) -> Beside:
    if not pictures:
        raise LvaeError(place, "has no picture of the classes in this grid", "Name another place, or its classes so.")
    return Beside(name, tuple(pictures), labels, remark)


def _kind(image: ImageSettings) -> str:
    """A picture from elsewhere may have any size, also where those of the samples were taken as they are."""
    return "adm" if image.crop == "none" else image.crop


def _short(place: str) -> str:
    return place.rstrip("/").rsplit("/", 1)[-1]


def _remark(place: str, size: tuple[int, int], wanted: int) -> str:
    return "" if size == (wanted, wanted) else f"{_short(place)}: {size[0]}x{size[1]} brought to {wanted}x{wanted}"
